//! Fills the connection-tracking table of a namespace. The limit is the whole machine's and cannot be lowered for one namespace,
//! but entries are counted for each; so nothing outside of the lab changes.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use crate::command;

/// An entry takes about 400 bytes of the kernel's memory until its namespace goes.
const MOST: u32 = 1_100_000;
const PORTS: u32 = 60_000;

/// Adds streams between strangers, seen in both directions so that the kernel does not drop them early, until there is no room.
pub(crate) fn fill(namespace: &str) -> Result<()> {
    let limit: u32 = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
        .context("the kernel has no connection tracking: load nf_conntrack")?
        .trim()
        .parse()?;
    ensure!(
        limit <= MOST,
        "nf_conntrack_max is {limit}: set it to {MOST} or less, or leave this scenario out"
    );
    // Said to fail when the table is full, which is what was wanted.
    let line = format!("ip netns exec {namespace} conntrack -R -");
    let _ = command::run_with_input(&line, &entries(limit));
    let count = command::run(&format!("ip netns exec {namespace} conntrack -C"))?;
    let count: u32 = count
        .trim()
        .parse()
        .context("conntrack -C gave no number")?;
    ensure!(
        count + 64 > limit,
        "conntrack made only {count} of {limit} entries in {namespace}"
    );
    Ok(())
}

/// As `conntrack -R` reads them.
fn entries(count: u32) -> String {
    let mut text = String::new();
    for number in 0..count {
        let (host, port) = (number / PORTS + 1, 1024 + number % PORTS);
        let _ = writeln!(
            text,
            "-A -t 900 -u SEEN_REPLY,ASSURED -s 100.64.0.{host} -d 198.51.100.9 -r 198.51.100.9 -q 100.64.0.{host} \
             -p udp --sport {port} --dport 4000 --reply-port-src 4000 --reply-port-dst {port}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_entries_are_the_same() {
        let text = entries(130_000);
        let lines: BTreeSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), 130_000);
        assert!(lines.iter().all(|line| line.contains("--sport ")));
    }
}
