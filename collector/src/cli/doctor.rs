//! `runwire-collector doctor`: what this kernel and this user have of what is needed, with the fix
//! for what they lack. Works without root, by saying what is missing.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use nix::unistd::{AccessFlags, access, getegid, geteuid};
use serde::Serialize;

use super::print;
use super::table::{Cell, Colour, cell, coloured, colours, render};
use crate::capabilities::{self, Capability, missing_for_programs, needed};
use crate::capture::{CaptureMode, interface_names};
use crate::config::Config;
use crate::enrich::Enricher;
use crate::export::Registry;
use crate::host::cgroup::cgroup2_mount;
use crate::host::{Host, Paths, netns};
use crate::k8s::watch::{Missing, WatchSettings, probe};
use crate::kernel::{release, version};
use crate::signals::{SignalSettings, Signals};

/// Older kernels lack helpers that the programs call.
const OLDEST_KERNEL: (u32, u32) = (5, 15);
/// Where there are hundreds, some tell how they are called.
const SHOWN_NAMES: usize = 12;
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
pub(super) struct Check {
    what: String,
    outcome: Outcome,
    found: String,
    fix: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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

pub fn doctor(config: &Config, arguments: &ArgMatches) -> ExitCode {
    let checks = checks(config);
    if arguments.get_flag("json") {
        print(format_args!("{}", serde_json::json!(checks)));
    } else {
        print(format_args!("{}", report(&checks, colours()).trim_end()));
    }
    if count(&checks, Outcome::Broken) > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![
        kernel(),
        types(),
        cgroup2(),
        lockdown(),
        jit(),
        memory_lock(),
        tracefs(),
        bpffs(),
        port(config),
    ];
    let held = capabilities::held();
    checks.extend(needed().map(|capability| capability_check(held, capability)));
    checks.push(namespaces());
    checks.extend(kubernetes(&config.watch_settings()));
    checks.extend(flow_store(config));
    checks.extend(captured(config));
    if missing_for_programs().is_empty() {
        checks.extend(hooks(config));
    } else {
        let missing = missing_for_programs().join(" and ");
        checks.push(Check::new(
            "hooks",
            Outcome::Broken,
            format!("not tried: {missing} missing"),
            "run `sudo runwire-collector doctor`",
        ));
    }
    checks
}

pub(super) fn report(checks: &[Check], colours: bool) -> String {
    let rows: Vec<Vec<Cell>> = checks.iter().map(row).collect();
    let (broken, lacking) = (
        count(checks, Outcome::Broken),
        count(checks, Outcome::Lacking),
    );
    let all = checks.len();
    let verdict = match (broken, lacking) {
        (0, 0) => "everything is there".to_owned(),
        (0, n) => format!("the collector runs; {n} of {all} checks cost it something"),
        (n, _) => format!("{n} of {all} checks failed; the line of each says the fix"),
    };
    format!("{}\n{verdict}\n", render(&rows, colours))
}

fn count(checks: &[Check], outcome: Outcome) -> usize {
    let such = checks.iter().filter(|check| check.outcome == outcome);
    such.count()
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

/// Nothing where Kubernetes is not asked.
fn kubernetes(settings: &WatchSettings) -> Option<Check> {
    if !settings.is_on() {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let tried = runtime.block_on(async {
        tokio::time::timeout(PROBE_TIMEOUT, probe(settings))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {PROBE_TIMEOUT:?}")))
    });
    Some(match tried {
        Err(error) => Check::new(
            "Kubernetes",
            Outcome::Broken,
            format!("{error:#}"),
            "see that the API server runs and can be reached from here, set `kubeconfig` to a file that works, or `kubernetes` to off; until then pods have no names",
        ),
        Ok(missing) if !missing.is_empty() => Check::new(
            "Kubernetes",
            Outcome::Lacking,
            refusals(&missing),
            "give the collector list and watch on them, as manifests/ does",
        ),
        Ok(_) => Check::new("Kubernetes", Outcome::Fine, "answers", ""),
    })
}

/// What cannot be done to which resources, and the first reason: the others are its likes.
fn refusals(missing: &[Missing]) -> String {
    let of = |verb: &str, done: &str| {
        let resources = missing.iter().filter(|it| it.verb == verb);
        let names: Vec<&str> = resources.map(|it| it.resource).collect();
        (!names.is_empty()).then(|| format!("{} cannot be {done}", names.join(", ")))
    };
    let said: Vec<String> = [of("list", "listed"), of("watch", "watched")]
        .into_iter()
        .flatten()
        .collect();
    let why = missing.first().map_or("", |it| &it.why);
    format!("{}: {why}", said.join("; "))
}

/// Nothing where flows are not stored. The folder may still have to be made.
fn flow_store(config: &Config) -> Option<Check> {
    let folder = config.flow_store.as_deref()?;
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(folder);
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    let (outcome, found) = match access(there, wanted) {
        Ok(()) if config.drop_capabilities && is_anothers(there) => {
            let why = "belongs to another user, and `drop_capabilities` gives up the right to write there";
            (Outcome::Lacking, format!("{} {why}", there.display()))
        }
        Ok(()) if there.is_dir() => (Outcome::Fine, folder.display().to_string()),
        Ok(()) => (
            Outcome::Lacking,
            format!("{} is no folder", there.display()),
        ),
        Err(error) => (
            Outcome::Lacking,
            format!("cannot write to {}: {error}", there.display()),
        ),
    };
    Some(Check::new(
        "flow store",
        outcome,
        found,
        "set `flow_store` to a folder that this user may write to (systemd: StateDirectory=, Kubernetes: a hostPath), or leave it empty",
    ))
}

/// Nothing where packets are not counted at interfaces.
fn captured(config: &Config) -> Option<Check> {
    if config.capture == CaptureMode::Off {
        return None;
    }
    let host = Enricher::of_host(Host::new(Paths::default()), &Registry::new(1));
    let names = interface_names(&host);
    let is_captured = |name: &&String| config.capture_interfaces.matches(name);
    let captured = names.iter().filter(is_captured).count();
    let (outcome, found) = match captured {
        0 => {
            let names: Vec<&str> = names.iter().map(String::as_str).take(SHOWN_NAMES).collect();
            let names = names.join(", ");
            let wanted = &config.capture_interfaces;
            let found = format!("no interface has a name that {wanted} means; there are {names}");
            (Outcome::Lacking, found)
        }
        n => (Outcome::Fine, format!("{n} of {} names", names.len())),
    };
    Some(Check::new(
        "capture interfaces",
        outcome,
        found,
        "set `capture_interfaces` to patterns of names that are there; interfaces that come later are found then",
    ))
}

/// Whether only a right that the collector gives up lets us write there.
fn is_anothers(folder: &Path) -> bool {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    fs::metadata(folder).is_ok_and(|of| {
        let mode = of.mode();
        let by_group = of.gid() == group && mode & 0o020 != 0;
        of.uid() != user && !by_group && mode & 0o002 == 0
    })
}

fn kernel() -> Check {
    let release = release();
    let outcome = match version(&release) {
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
    let Ok(mode) = fs::read_to_string("/sys/kernel/security/lockdown") else {
        // As in a pod; the hooks below are tried in any case.
        return Check::new("lockdown", Outcome::Fine, "not to be seen from here", fix);
    };
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
        Ok(_) => Check::new("JIT", Outcome::Fine, "on", fix),
        Err(_) => Check::new("JIT", Outcome::Fine, "not to be seen from here", fix),
    }
}

/// Kernels before 5.11 charge maps to the limit; aya raises it there, which needs a right.
fn memory_lock() -> Check {
    let fix = "raise it: `ulimit -l unlimited`, systemd: LimitMEMLOCK=infinity";
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    let limit = line.and_then(|line| line.split_ascii_whitespace().nth(3));
    let found = limit.unwrap_or("unknown");
    Check::new(
        "locked memory",
        Outcome::Fine,
        format!("limit {found}; this kernel charges maps to the control group instead"),
        fix,
    )
}

fn tracefs() -> Check {
    mounted("tracefs", "the one hook that asks for it has its own")
}

fn bpffs() -> Check {
    mounted("bpf", "nothing is pinned")
}

/// File systems that other tools need and we do not: said, since it is often looked for.
fn mounted(kind: &str, why: &str) -> Check {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_there = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(kind));
    let found = match is_there {
        true => "mounted",
        false => "not mounted",
    };
    let what = if kind == "bpf" { "bpffs" } else { kind };
    Check::new(
        what,
        Outcome::Fine,
        format!("{found}; not needed: {why}"),
        "",
    )
}

fn port(config: &Config) -> Check {
    let address = config.listen;
    let fix = "end what has it, or set `listen` to an address of this host that is free";
    let what = "listen address";
    match TcpListener::bind(address) {
        Ok(_) => Check::new(what, Outcome::Fine, format!("{address} is free"), fix),
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_collector(address) => Check::new(
            what,
            Outcome::Fine,
            format!("a collector answers on {address}"),
            fix,
        ),
        Err(error) => Check::new(what, Outcome::Broken, format!("{address}: {error}"), fix),
    }
}

fn is_collector(address: SocketAddr) -> bool {
    let metrics = super::http::get(address, "/metrics").unwrap_or_default();
    metrics.contains("runwire_build_info")
}

fn capability_check(held: u64, capability: &Capability) -> Check {
    let Capability { name, purpose, .. } = capability;
    let fix = "run as root, or grant it (systemd: AmbientCapabilities=, Kubernetes: securityContext.capabilities.add)";
    // On a kernel that shows its addresses to everybody, this one is not needed.
    let is_spare = *name == "CAP_SYSLOG" && shows_addresses();
    match capabilities::holds(held, capability) {
        true => Check::new(name, Outcome::Fine, *purpose, fix),
        false if capabilities::is_implied(held, capability) => {
            let found = "missing; CAP_SYS_ADMIN stands for it";
            Check::new(name, Outcome::Fine, found, fix)
        }
        false if is_spare => Check::new(name, Outcome::Fine, "missing; not needed here", fix),
        false => Check::new(
            name,
            if capability.kept && *name != "CAP_DAC_READ_SEARCH" {
                Outcome::Broken
            } else {
                Outcome::Lacking
            },
            format!("missing: to {purpose}"),
            fix,
        ),
    }
}

fn shows_addresses() -> bool {
    let Ok(file) = fs::File::open("/proc/kallsyms") else {
        return false;
    };
    let mut line = String::new();
    let read = BufReader::new(file).read_line(&mut line);
    read.is_ok()
        && line
            .trim_start_matches('0')
            .starts_with(|c: char| c.is_ascii_hexdigit())
}

fn namespaces() -> Check {
    let paths = Paths::default();
    let named = netns::named(&paths).unwrap_or_default().len();
    let fix = "without CAP_SYS_ADMIN the other end of a connection is ~external wherever it lives";
    match netns::may_enter() {
        false => Check::new(
            "network namespaces",
            Outcome::Broken,
            "may not be entered",
            fix,
        ),
        true => Check::new(
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
fn what_an_administrator_may_is_not_missing() {
    let broken = |held: u64| -> Vec<String> {
        let checks = needed().map(|capability| capability_check(held, capability));
        let broken = checks.filter(|check| check.outcome == Outcome::Broken);
        broken.map(|check| check.what).collect()
    };
    let (net_admin, ptrace, administrator) = (1 << 12, 1 << 19, 1 << 21);
    assert!(broken(net_admin | ptrace | administrator).is_empty());
    let others = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"];
    assert_eq!(broken(net_admin | ptrace), others);
}

#[test]
fn who_has_no_right_to_enter_namespaces_is_told_so() {
    let outcome = std::thread::spawn(|| {
        crate::kernel::keep_capabilities(0).unwrap();
        namespaces().outcome
    });
    assert!(outcome.join().unwrap() == Outcome::Broken);
}
