//! `runwire-collector doctor`: what this kernel and this user have of what is needed, with the fix
//! for what they lack. Works without root, by saying what is missing.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use super::table::{Cell, Colour, cell, coloured, colours, render};
use crate::config::Config;
use crate::export::Registry;
use crate::host::cgroup::cgroup2_mount;
use crate::host::netns;
use crate::signals::{SignalSettings, Signals};

/// Older kernels lack helpers that the programs call.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Bit, name, and what it is for: `include/uapi/linux/capability.h`.
const CAPABILITIES: [(u32, &str, &str); 6] = [
    (39, "CAP_BPF", "load programs and maps"),
    (38, "CAP_PERFMON", "read kernel memory in programs"),
    (12, "CAP_NET_ADMIN", "see the packets of cgroups (DNS)"),
    (
        21,
        "CAP_SYS_ADMIN",
        "enter network namespaces for their addresses and counters",
    ),
    (
        19,
        "CAP_SYS_PTRACE",
        "see which namespace another user's process lives in",
    ),
    (
        34,
        "CAP_SYSLOG",
        "name the kernel function that drops a packet, which tells a firewall from a full table",
    ),
];

struct Check {
    what: String,
    outcome: Outcome,
    found: String,
    fix: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fine,
    /// Works, with something missing.
    Lacking,
    Broken,
}

impl Check {
    fn new(what: &str, outcome: Outcome, found: impl Into<String>, fix: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            outcome,
            found: found.into(),
            fix,
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the user asked for")]
pub fn doctor(config: &Config) -> ExitCode {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = effective_capabilities(&status).unwrap_or(0);
    let mut checks = vec![kernel(), types(), cgroup2(), lockdown(), jit()];
    checks.extend(capabilities(held));
    checks.push(namespaces());
    if held & (1 << 39) != 0 || held & (1 << 21) != 0 {
        checks.extend(hooks(config));
    } else {
        checks.push(Check::new(
            "hooks",
            Outcome::Broken,
            "not tried: they need CAP_BPF",
            "run `sudo runwire-collector doctor`",
        ));
    }
    let rows: Vec<Vec<Cell>> = checks.iter().map(row).collect();
    println!("{}", render(&rows, colours()).trim_end());
    let broken = checks
        .iter()
        .filter(|check| check.outcome == Outcome::Broken)
        .count();
    let lacking = checks
        .iter()
        .filter(|check| check.outcome == Outcome::Lacking)
        .count();
    if broken > 0 {
        println!(
            "\n{broken} of {} checks failed; the line of each says the fix",
            checks.len()
        );
        return ExitCode::FAILURE;
    }
    match lacking {
        0 => println!("\neverything is there"),
        _ => println!(
            "\nthe collector runs; {lacking} of {} checks cost it something",
            checks.len()
        ),
    }
    ExitCode::SUCCESS
}

fn row(check: &Check) -> Vec<Cell> {
    let (mark, colour) = match check.outcome {
        Outcome::Fine => ("ok", Colour::Good),
        Outcome::Lacking => ("lacks", Colour::Warn),
        Outcome::Broken => ("FAIL", Colour::Bad),
    };
    let found = match check.outcome {
        Outcome::Fine => check.found.clone(),
        _ => format!("{}; {}", check.found, check.fix),
    };
    vec![coloured(mark, colour), cell(&check.what), cell(found)]
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let outcome = match version(release) {
        Some(version) if version >= OLDEST_KERNEL => Outcome::Fine,
        _ => Outcome::Broken,
    };
    Check::new(
        "kernel",
        outcome,
        format!("Linux {release}"),
        "boot Linux 5.15 or newer",
    )
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn types() -> Check {
    let fix = "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution's since 2021)";
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Check::new(
            "kernel types",
            Outcome::Fine,
            "/sys/kernel/btf/vmlinux",
            fix,
        ),
        false => Check::new(
            "kernel types",
            Outcome::Broken,
            "no /sys/kernel/btf/vmlinux",
            fix,
        ),
    }
}

fn cgroup2() -> Check {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let fix = "mount it (`mount -t cgroup2 none /sys/fs/cgroup/unified`), or DNS is not measured and units have no name";
    match cgroup2_mount(&mounts) {
        Some(mount) => Check::new("cgroup2", Outcome::Fine, mount.display().to_string(), fix),
        None => Check::new("cgroup2", Outcome::Lacking, "not mounted", fix),
    }
}

fn lockdown() -> Check {
    let fix = "boot with lockdown=integrity or none";
    let mode = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    match mode.contains("[confidentiality]") {
        true => Check::new(
            "lockdown",
            Outcome::Broken,
            "confidentiality: programs may not read the kernel",
            fix,
        ),
        false => Check::new("lockdown", Outcome::Fine, "does not hinder", fix),
    }
}

fn jit() -> Check {
    let fix = "set net.core.bpf_jit_enable=1, or every event costs several times as much";
    let enabled = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    match enabled.as_deref().map(str::trim) {
        Ok("0") => Check::new("JIT", Outcome::Lacking, "off", fix),
        _ => Check::new("JIT", Outcome::Fine, "on", fix),
    }
}

fn capabilities(held: u64) -> impl Iterator<Item = Check> {
    CAPABILITIES.iter().map(move |&(bit, name, purpose)| {
        let fix = "run as root, or grant it (systemd: AmbientCapabilities=, Kubernetes: securityContext.capabilities.add)";
        match held & (1 << bit) {
            0 => Check::new(name, Outcome::Broken, format!("missing: to {purpose}"), fix),
            _ => Check::new(name, Outcome::Fine, purpose, fix),
        }
    })
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn namespaces() -> Check {
    let paths = crate::host::Paths::default();
    let own: Vec<_> = netns::own(&paths).into_iter().collect();
    let named = netns::named(&paths).len();
    let place = paths.proc.join("self/ns/net");
    let places: Vec<_> = own.iter().map(|&inode| (inode, place.clone())).collect();
    let fix = "without CAP_SYS_ADMIN the other end of a connection is ~external wherever it lives";
    match netns::visit(&places, || ()).is_empty() {
        true => Check::new(
            "network namespaces",
            Outcome::Broken,
            "may not be entered",
            fix,
        ),
        false => Check::new(
            "network namespaces",
            Outcome::Fine,
            format!("can be entered; {named} with a name under /run/netns"),
            fix,
        ),
    }
}

/// Loads and attaches everything, once.
fn hooks(config: &Config) -> Vec<Check> {
    let settings = SignalSettings {
        off: config.disabled_signals.clone(),
        ..SignalSettings::default()
    };
    let signals = Signals::start(&Registry::new(config.series_budget), &settings);
    let hooks = signals.hooks();
    let attached = hooks.iter().filter(|hook| hook.refusal.is_none()).count();
    hooks
        .iter()
        .map(|hook| {
            let what = format!("{} {}", hook.signal, hook.hook);
            match &hook.refusal {
                None => Check::new(&what, Outcome::Fine, "attached", ""),
                Some(refusal) if refusal.reason == "off" => {
                    Check::new(&what, Outcome::Fine, refusal.to_string(), "")
                }
                Some(refusal) => {
                    let outcome = if attached == 0 {
                        Outcome::Broken
                    } else {
                        Outcome::Lacking
                    };
                    Check::new(&what, outcome, refusal.to_string(), fix_of(refusal.reason))
                }
            }
        })
        .collect()
}

fn fix_of(reason: &str) -> &'static str {
    match reason {
        "permission_denied" => "grant the missing capability",
        "unsupported_by_kernel" => "a newer kernel has this hook; the other signals go on",
        "rejected_by_verifier" => "please report it with the kernel's version",
        "no_cgroup2" => "mount cgroup2",
        _ => "the other signals go on",
    }
}

#[test]
fn versions_and_capabilities_are_read() {
    assert_eq!(version("6.18.44-fc-v509"), Some((6, 18)));
    assert_eq!(version("5.15.0"), Some((5, 15)));
    assert_eq!(version("unknown"), None);
    let status = "Name:\tx\nCapEff:\t000001ffffffffff\n";
    assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
}
