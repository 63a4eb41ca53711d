//! Which pings nobody answers: what went and came between collections in, hosts that stayed silent out. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::enrich::NetnsId;

/// Nanoseconds after which no answer is waited for any more: `ping` does not wait longer either.
const PATIENCE: u64 = 2_000_000_000;
/// Hosts that are waited for at a time; a sweep is known long before.
const WAITING: usize = 8192;

/// One host as seen from one address of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pinged {
    pub(super) netns: NetnsId,
    pub(super) source: IpAddr,
    pub(super) host: IpAddr,
}

#[derive(Default)]
pub(super) struct Unanswered {
    /// When each was first seen to be pinged without an answer.
    waiting: HashMap<Pinged, u64>,
}

impl Unanswered {
    /// What became of a host since the last call.
    pub(super) fn take(&mut self, pinged: Pinged, answered: bool, now: u64) {
        if answered {
            self.waiting.remove(&pinged);
        } else if self.waiting.len() < WAITING {
            self.waiting.entry(pinged).or_insert(now);
        }
    }

    /// Hosts that had time to answer and did not. Each comes once for the pings so far.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<Pinged> {
        (self.waiting)
            .extract_if(|_, since| now.saturating_sub(*since) >= PATIENCE)
            .map(|(pinged, _)| pinged)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn pinged(host: u32) -> Pinged {
        Pinged {
            netns: NetnsId(1),
            source: Ipv4Addr::new(10, 0, 0, 1).into(),
            host: Ipv4Addr::from(host).into(),
        }
    }

    #[test]
    fn hosts_that_answer_late_are_not_in_vain() {
        let mut unanswered = Unanswered::default();
        unanswered.take(pinged(1), false, 0);
        unanswered.take(pinged(2), false, 0);
        unanswered.take(pinged(3), true, 0);
        assert_eq!(unanswered.overdue(SECOND), []);
        // Its answer came between the collections.
        unanswered.take(pinged(1), true, SECOND);
        assert_eq!(unanswered.overdue(2 * SECOND), [pinged(2)]);
        assert_eq!(unanswered.overdue(9 * SECOND), []);
    }

    #[test]
    fn hosts_that_are_waited_for_are_bounded() {
        let mut unanswered = Unanswered::default();
        (0..20_000).for_each(|host| unanswered.take(pinged(host), false, 0));
        assert_eq!(unanswered.overdue(2 * SECOND).len(), WAITING);
    }
}
