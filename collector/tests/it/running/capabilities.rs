//! What the collector may do, and what it gives up.

use std::fs;
use std::process::Command;

use super::collector::{Collector, stdout};

/// Of `include/uapi/linux/capability.h`: BPF, PERFMON, NET_ADMIN, SYS_ADMIN, SYS_PTRACE.
const KEPT: u64 = 1 << 39 | 1 << 38 | 1 << 12 | 1 << 21 | 1 << 19;
const NAMES: [&str; 5] = ["bpf", "perfmon", "net_admin", "sys_admin", "sys_ptrace"];

#[test]
#[ignore = "loads BPF: needs root"]
fn every_thread_gives_up_what_is_not_needed() {
    let collector = Collector::start("");
    // Makes a thread that was not there before.
    collector.get("/metrics");
    let tasks = fs::read_dir(format!("/proc/{}/task", collector.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(field(set), KEPT, "{set} {status}");
        }
        assert_eq!((field("CapInh:"), field("CapAmb:")), (0, 0));
        assert_eq!(field("NoNewPrivs:"), 1);
        threads += 1;
    }
    assert!(threads > 1);
    assert_eq!(
        collector.metric("capability_held{capability=\"CAP_PERFMON\"}"),
        1.0
    );
}

#[test]
#[ignore = "loads BPF: needs root"]
fn keeping_all_capabilities_is_possible() {
    let collector = Collector::start("drop_capabilities: off\n");
    let status = fs::read_to_string(format!("/proc/{}/status", collector.pid())).unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let effective = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("CapEff:"));
        line.unwrap().to_owned()
    };
    assert_eq!(effective(&status), effective(&own));
}

/// Root with no more capabilities than these, for this and all that it starts.
fn only(names: &[&str]) -> Vec<String> {
    let set = names.iter().map(|name| format!(",+{name}"));
    let set = format!("-all{}", set.collect::<String>());
    let words = [
        "setpriv",
        "--no-new-privs",
        "--inh-caps",
        "-all",
        "--bounding-set",
        &set,
    ];
    words.map(str::to_owned).into()
}

#[test]
#[ignore = "loads BPF: needs root"]
fn every_hook_is_attached_with_no_more_than_what_is_documented() {
    let wrapper = only(&NAMES);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    // Loaded, and on no interface of this machine.
    let capture = "capture: tc\ncapture_interfaces: nothing0\n";
    let collector = Collector::start_by(&wrapper, capture);
    let (_, text) = collector.get("/metrics");
    let hooks = text
        .lines()
        .filter(|line| line.starts_with("runwire_hook_attached{"));
    let refused: Vec<&str> = hooks
        .filter(|line| line.ends_with(" 0"))
        // What this kernel does not have, root cannot have either.
        .filter(|line| !line.contains("unsupported_by_kernel") && !line.contains("\"kallsyms\""))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(text.contains("runwire_hook_attached{"));
}

#[test]
#[ignore = "loads BPF: needs root"]
fn doctor_names_the_capability_that_is_missing() {
    for missing in NAMES {
        let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != missing).collect();
        let words = only(&others);
        let output = Command::new(&words[0])
            .args(&words[1..])
            .arg(env!("CARGO_BIN_EXE_runwire-collector"))
            .args(["doctor", "--listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        let text = stdout(&output);
        let name = format!("CAP_{}", missing.to_uppercase());
        // Programs may be loaded by who may do everything: nothing is missing then.
        let is_replaced = matches!(missing, "bpf" | "perfmon");
        let (mark, words, code) = match is_replaced {
            true => ("ok", "CAP_SYS_ADMIN stands for it", 0),
            false => ("FAIL", "run as root, or grant it", 1),
        };
        let line = text
            .lines()
            .find(|line| line.starts_with(mark) && line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("{name} is not named:\n{text}"));
        assert!(line.contains(words), "{line}");
        assert_eq!(output.status.code(), Some(code), "{name}:\n{text}");
    }
}
