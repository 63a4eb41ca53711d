//! What a process and the whole machine have used: CPU time, memory, kernel maps.

use std::fs;

use anyhow::{Context, Result};

/// What /proc counts CPU time in, whatever the kernel's own tick is.
const TICKS_A_SECOND: f64 = 100.0;

/// Seconds of CPU time since the process started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Cpu {
    /// Of all threads, ended ones included. Good to a hundredth of a second.
    pub(super) fn of_process(id: u32) -> Result<Self> {
        let file = format!("/proc/{id}/stat");
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        // The second field is the name in parentheses and may contain anything.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let seconds = |index: usize| {
            let ticks = fields
                .get(index)
                .and_then(|field| field.parse::<f64>().ok());
            ticks.with_context(|| format!("{file} lacks CPU times"))
        };
        Ok(Self {
            user: seconds(11)? / TICKS_A_SECOND,
            system: seconds(12)? / TICKS_A_SECOND,
        })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }

    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Seconds that the CPUs of this machine were busy since it booted, interrupts included.
pub(super) fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // User, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen.
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let busy = ticks.iter().take(8).sum::<f64>() - ticks.iter().skip(3).take(2).sum::<f64>();
    Ok(busy / TICKS_A_SECOND)
}

/// Resident memory in bytes.
pub(super) fn resident_bytes(id: u32) -> Result<u64> {
    let file = format!("/proc/{id}/status");
    let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("{file} lacks VmRSS"))? * 1024)
}

/// What the kernel says it holds for the BPF maps that the process has open, in bytes. Socket storage is counted with its sockets,
/// not here.
pub(super) fn map_bytes(id: u32) -> Result<u64> {
    let folder = format!("/proc/{id}/fdinfo");
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        // It may have been closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let number = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        if let (Some(map), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            maps.insert(map, bytes);
        }
    }
    Ok(maps.values().sum())
}
