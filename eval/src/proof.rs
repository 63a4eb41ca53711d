//! Whether a fault that no client feels has happened: a counter of the kernel, read by `nstat`.

use anyhow::{Context, Result};

use crate::command;
use crate::lab::Plan;
use crate::scenario::Proof;

/// What the counter shows now.
pub(crate) fn read(proof: &Proof, plan: &Plan) -> Result<u64> {
    let namespace = plan
        .namespace(&proof.node)
        .with_context(|| format!("no node `{}`", proof.node))?;
    // Absolute, zeros too, and without a history file.
    let shown = command::run(&format!(
        "ip netns exec {namespace} nstat -a -s -z {}",
        proof.counter
    ))?;
    value(&shown, &proof.counter)
        .with_context(|| format!("nstat shows no counter `{}`", proof.counter))
}

/// In words, when it moved far enough.
pub(crate) fn verdict(proof: &Proof, before: u64, after: u64) -> Option<String> {
    let moved = after.saturating_sub(before);
    (moved >= proof.at_least)
        .then(|| format!("the kernel: {} +{moved} at {}", proof.counter, proof.node))
}

fn value(shown: &str, counter: &str) -> Option<u64> {
    shown.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(counter)).then_some(words.next()?.parse().ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let shown = "#kernel\nTcpExtTCPDSACKRecvSegs         7                  0.0\nTcpExtTCPDSACKRecv             12                 0.0\n";
        assert_eq!(value(shown, "TcpExtTCPDSACKRecv"), Some(12));
        assert_eq!(value(shown, "TcpExtTCPDSACK"), None);
    }

    #[test]
    fn a_counter_that_hardly_moved_proves_nothing() {
        let proof = Proof {
            node: "client".to_owned(),
            counter: "TcpExtTCPDSACKRecv".to_owned(),
            at_least: 10,
        };
        assert_eq!(verdict(&proof, 5, 14), None);
        assert_eq!(
            verdict(&proof, 5, 15).as_deref(),
            Some("the kernel: TcpExtTCPDSACKRecv +10 at client")
        );
    }
}
