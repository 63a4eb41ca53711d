//! What this process may do: which capabilities measuring needs, which it holds, and giving up the
//! others.

use std::fs;
use std::io;
use std::sync::OnceLock;

use crate::kernel::keep_capabilities;

/// Of `include/uapi/linux/capability.h`.
pub struct Capability {
    pub bit: u32,
    pub name: &'static str,
    /// What cannot be done without it.
    pub purpose: &'static str,
    /// Whether it is needed as long as the collector runs.
    pub kept: bool,
}

const ALL: [Capability; 7] = [
    Capability {
        bit: 39,
        name: "CAP_BPF",
        purpose: "load programs and maps",
        kept: true,
    },
    Capability {
        bit: 38,
        name: "CAP_PERFMON",
        purpose: "read kernel memory in programs",
        kept: true,
    },
    Capability {
        bit: 12,
        name: "CAP_NET_ADMIN",
        purpose: "see packets: DNS, UDP, TLS, captures",
        kept: true,
    },
    Capability {
        bit: 21,
        name: "CAP_SYS_ADMIN",
        purpose: "enter network namespaces for their addresses and counters",
        kept: true,
    },
    Capability {
        bit: 19,
        name: "CAP_SYS_PTRACE",
        purpose: "see which namespace another user's process lives in",
        kept: true,
    },
    Capability {
        bit: 34,
        name: "CAP_SYSLOG",
        purpose: "name the kernel function that drops a packet, which tells a firewall from a full table",
        // The kernel asks who opened its list of functions, and that is done before.
        kept: false,
    },
    READ_ALL,
];

const READ_ALL: Capability = Capability {
    bit: 2,
    name: "CAP_DAC_READ_SEARCH",
    purpose: "read, as another user than root, tracefs and the container runtimes' state",
    kept: true,
};

/// Those that matter to the user we run as.
pub fn needed() -> impl Iterator<Item = &'static Capability> {
    let is_root = nix::unistd::geteuid().is_root();
    (ALL.iter()).filter(move |capability| !(is_root && capability.bit == READ_ALL.bit))
}

/// The effective ones of the calling thread, as bits.
pub fn held() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    mask(&status, "CapEff:").unwrap_or(0)
}

/// As [`held`], and those that were only needed at start and held then.
pub fn had() -> u64 {
    held() | AT_START.get().unwrap_or(&0)
}

static AT_START: OnceLock<u64> = OnceLock::new();

pub fn holds(held: u64, capability: &Capability) -> bool {
    held & (1 << capability.bit) != 0
}

/// CAP_BPF and CAP_PERFMON were a part of CAP_SYS_ADMIN, which still stands for them.
pub fn is_implied(held: u64, capability: &Capability) -> bool {
    held & (1 << 21) != 0 && [38, 39].contains(&capability.bit)
}

/// What the kernel asks for when programs are loaded and attached, and is not there.
pub fn missing_for_programs() -> Vec<&'static str> {
    let held = held();
    ALL[..3]
        .iter()
        .filter(|capability| !is_implied(held, capability) && !holds(held, capability))
        .map(|capability| capability.name)
        .collect()
}

/// All that somebody who is refused something could grant us, and does not hold.
pub fn missing() -> Vec<&'static str> {
    let held = had();
    needed()
        .filter(|capability| !is_implied(held, capability) && !holds(held, capability))
        .map(|capability| capability.name)
        .collect()
}

/// Gives up, for good and for all threads that this one starts, what measuring does not need. To be
/// called before there are other threads: capabilities belong to threads.
pub fn drop_others() -> io::Result<()> {
    let start_only = needed().filter(|capability| !capability.kept);
    let start_only: u64 = start_only.map(|capability| 1 << capability.bit).sum();
    let _ = AT_START.set(held() & start_only);
    let kept = needed().filter(|capability| capability.kept);
    keep_capabilities(kept.map(|capability| 1 << capability.bit).sum())
}

fn mask(status: &str, name: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[test]
fn the_kernels_notation_is_read() {
    let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
    assert_eq!(mask(status, "CapEff:"), Some(0x1ff_ffff_ffff));
    assert_eq!(mask("", "CapEff:"), None);
}
