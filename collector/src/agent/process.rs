//! What this process costs and may do, as metrics: see proc(5).

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::capabilities::{self, needed};
use crate::export::{Counter, Gauge, Labels, Registry};

/// Times in /proc count these, whatever the kernel's own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct Process {
    cpu: Counter,
    resident: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    capabilities: Gauge,
}

impl Process {
    pub(super) fn register(registry: &Registry) -> Self {
        let started = registry.gauge(
            "process_start_time_seconds",
            "When the collector was started, as Unix time",
            &[],
        );
        if let Some(time) = start_time() {
            started.set(Labels::default(), time);
        }
        Self {
            cpu: registry.counter(
                "process_cpu_seconds",
                "Time on a processor that the collector took, user and system together",
                &[],
            ),
            resident: registry.gauge(
                "process_resident_memory_bytes",
                "Memory of the collector",
                &[],
            ),
            open_fds: registry.gauge(
                "process_open_fds",
                "File descriptors that the collector has open",
                &[],
            ),
            max_fds: registry.gauge(
                "process_max_fds",
                "File descriptors that the collector may have open",
                &[],
            ),
            capabilities: registry.gauge(
                "capability_held",
                "Whether the collector holds a capability that it needs, or held it at start if that is enough",
                &[&["capability"]],
            ),
        }
    }

    /// `counted`: seconds of processor time that are in the counter already.
    pub(super) fn update(&self, counted: &mut f64) {
        if let Some(stat) = read("stat").as_deref().and_then(parse_stat) {
            self.cpu
                .add_seconds(Labels::default(), (stat.cpu - *counted).max(0.0));
            *counted = stat.cpu;
        }
        let status = read("status").unwrap_or_default();
        if let Some(kilobytes) = field(&status, "VmRSS:") {
            self.resident.set(Labels::default(), kilobytes * 1024.0);
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory itself.
            let open = descriptors.count().saturating_sub(1);
            self.open_fds.set(Labels::default(), open as f64);
        }
        if let Some(most) = max_open_fds() {
            self.max_fds.set(Labels::default(), most);
        }
        let held = capabilities::had();
        let series = needed().map(|capability| {
            let value = f64::from(u8::from(capabilities::holds(held, capability)));
            (Labels::new(&[capability.name]), value)
        });
        self.capabilities.replace_all(series.collect());
    }
}

/// How many file descriptors this process may have open.
pub fn max_open_fds() -> Option<f64> {
    field(&read("limits")?, "Max open files")
}

struct Stat {
    /// Seconds.
    cpu: f64,
    /// Seconds after the kernel started.
    started: f64,
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let mut number = |skip| fields.nth(skip)?.parse::<f64>().ok();
    let (user, system) = (number(11)?, number(0)?);
    Some(Stat {
        cpu: (user + system) / TICKS_PER_SECOND,
        started: number(6)? / TICKS_PER_SECOND,
    })
}

fn start_time() -> Option<f64> {
    let started = parse_stat(&read("stat")?)?.started;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = uptime.split(' ').next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.as_secs_f64() - up + started)
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

/// The first number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[test]
fn proc_is_understood() {
    let stat = parse_stat("7 (a ) b) S 1 7 7 0 -1 4194304 9 0 0 0 250 50 0 0 20 0 3 0 1234 0 0");
    let stat = stat.unwrap();
    assert_eq!((stat.cpu, stat.started), (3.0, 12.34));
    assert_eq!(field("VmRSS:\t  1024 kB\n", "VmRSS:"), Some(1024.0));
    let limits = "Max open files            20000                20000                files\n";
    assert_eq!(field(limits, "Max open files"), Some(20000.0));
}
