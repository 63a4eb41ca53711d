//! Which connections go elsewhere than their client thinks: a Service address and the backend
//! behind it, as connection tracking knows them. Does no IO and never waits.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

// Its hash is several times as fast as the standard library's, and every connection is asked for.
use hashbrown::HashMap;

/// A connection, from the end that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// IP protocol number.
    pub protocol: u8,
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl FiveTuple {
    /// The other end's, of what it answers.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            client: self.server,
            server: self.client,
            ..self
        }
    }
}

/// What a client sent, and what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    pub from: FiveTuple,
    pub to: FiveTuple,
}

/// More are forgotten, the oldest first.
pub(crate) const MAX_TRANSLATIONS: usize = 65_536;
/// Old ones are looked for at most this often: there may be many.
const FORGET: Duration = Duration::from_secs(30);
/// Connection tracking forgets a connection sooner than we may hear of it.
const KEEP: Duration = Duration::from_secs(600);
/// Through a namespace of its own and a router: two. More would be a circle.
pub(crate) const MAX_HOPS: usize = 4;

#[derive(Default)]
pub struct Translations {
    known: HashMap<FiveTuple, (FiveTuple, Instant)>,
    /// By client and the address that it talks to, for what has no ports.
    backends: HashMap<(IpAddr, IpAddr), BTreeSet<IpAddr>>,
    forgot: Option<Instant>,
}

impl Translations {
    /// Adds what connection tracking holds now.
    pub fn add(&mut self, translations: impl IntoIterator<Item = Translation>, now: Instant) {
        let mut is_changed = false;
        for Translation { from, to } in translations {
            let before = self.known.insert(from, (to, now));
            is_changed |= before.is_some_and(|(before, _)| before.server.ip() != to.server.ip());
            let pair = (from.client.ip(), from.server.ip());
            (self.backends.entry(pair).or_default()).insert(to.server.ip());
        }
        let is_due = |at: Instant| now.saturating_duration_since(at) >= FORGET;
        if self.known.len() > MAX_TRANSLATIONS || self.forgot.is_none_or(is_due) {
            self.forget(now);
            self.forgot = Some(now);
            is_changed = true;
        }
        if is_changed {
            self.backends.clear();
            for (from, (to, _)) in &self.known {
                let pair = (from.client.ip(), from.server.ip());
                (self.backends.entry(pair).or_default()).insert(to.server.ip());
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        self.known
            .retain(|_, (_, seen)| now.saturating_duration_since(*seen) < KEEP);
        if self.known.len() > MAX_TRANSLATIONS {
            let mut ages: Vec<Instant> = self.known.values().map(|(_, seen)| *seen).collect();
            let surplus = ages.len() - MAX_TRANSLATIONS;
            let (_, oldest, _) = ages.select_nth_unstable(surplus);
            let oldest = *oldest;
            let mut room = MAX_TRANSLATIONS;
            self.known.retain(|_, (_, seen)| {
                let keep = *seen >= oldest && room > 0;
                room -= usize::from(keep);
                keep
            });
        }
        // A table does not become smaller by itself.
        if self.known.capacity() > 4 * self.known.len().max(1024) {
            self.known.shrink_to_fit();
        }
    }

    /// Where a connection arrives; `None` if it is where the client sent it.
    pub fn follow(&self, tuple: &FiveTuple) -> Option<FiveTuple> {
        let mut arrived = None;
        let mut at = tuple;
        for _ in 0..MAX_HOPS {
            let Some((to, _)) = self.known.get(at) else {
                break;
            };
            arrived = Some(*to);
            at = to;
        }
        arrived
    }

    /// Every address that this client's connections to `address` went to.
    pub fn backends(&self, client: IpAddr, address: IpAddr) -> impl Iterator<Item = IpAddr> {
        (self.backends.get(&(client, address)).into_iter().flatten()).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Who sent what left a namespace under another source.
#[derive(Default)]
pub struct Untranslated(HashMap<FiveTuple, FiveTuple>);

impl Untranslated {
    pub(super) fn of(translations: impl IntoIterator<Item = Translation>) -> Self {
        let back = (translations.into_iter()).map(|Translation { from, to }| (to, from));
        Self(back.collect())
    }

    /// Addresses of the two ends of a packet, whichever of them opened the connection.
    pub fn ends(&self, packet: FiveTuple) -> (IpAddr, IpAddr) {
        (self.sender(packet), self.sender(packet.reversed()))
    }

    fn sender(&self, packet: FiveTuple) -> IpAddr {
        let mut at = packet;
        for _ in 0..MAX_HOPS {
            match self.0.get(&at) {
                Some(before) => at = *before,
                None => break,
            }
        }
        at.client.ip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(client: &str, server: &str) -> FiveTuple {
        FiveTuple {
            protocol: 6,
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
        }
    }

    fn translation(from: (&str, &str), to: (&str, &str)) -> Translation {
        Translation {
            from: tuple(from.0, from.1),
            to: tuple(to.0, to.1),
        }
    }

    #[test]
    fn a_connection_is_followed_to_its_end_and_no_further() {
        let mut translations = Translations::default();
        let now = Instant::now();
        let first = ("10.0.0.1:4000", "10.96.0.1:80");
        let second = ("10.0.0.1:4000", "10.97.0.1:80");
        let last = ("10.0.0.254:4000", "[fd00::2]:8080");
        translations.add(
            [
                translation(first, second),
                translation(second, last),
                translation(("1.1.1.1:1", "2.2.2.2:2"), ("1.1.1.1:1", "2.2.2.2:2")),
            ],
            now,
        );
        let follow = |from: (&str, &str)| translations.follow(&tuple(from.0, from.1));
        assert_eq!(follow(first), Some(tuple(last.0, last.1)));
        assert_eq!(follow(last), None);
        assert_eq!(follow(("10.0.0.1:4001", "10.96.0.1:80")), None);
        assert!(
            follow(("1.1.1.1:1", "2.2.2.2:2")).is_some(),
            "a circle ends"
        );

        let backends = |client: &str| -> Vec<IpAddr> {
            let address = "10.96.0.1".parse().unwrap();
            (translations.backends(client.parse().unwrap(), address)).collect()
        };
        assert_eq!(
            backends("10.0.0.1"),
            ["10.97.0.1".parse::<IpAddr>().unwrap()]
        );
        assert!(backends("10.0.0.9").is_empty());
    }

    #[test]
    fn a_sender_is_found_behind_what_hides_it() {
        let pod = ("10.0.0.1:4000", "198.51.100.1:443");
        let node = ("192.0.2.1:61000", "198.51.100.1:443");
        let gateway = ("203.0.113.1:1024", "198.51.100.1:443");
        let hidden = Untranslated::of([translation(pod, node), translation(node, gateway)]);
        let ends = |packet: FiveTuple| {
            let (source, destination) = hidden.ends(packet);
            (source.to_string(), destination.to_string())
        };
        let (client, server) = ("10.0.0.1".to_owned(), "198.51.100.1".to_owned());
        let sent = tuple(gateway.0, gateway.1);
        assert_eq!(ends(sent), (client.clone(), server.clone()));
        assert_eq!(ends(sent.reversed()), (server, client));
        let own = tuple("192.0.2.1:1", "198.51.100.1:443");
        assert_eq!(ends(own).0, "192.0.2.1", "the node's own");
    }

    #[test]
    fn old_ones_are_forgotten() {
        let mut translations = Translations::default();
        let now = Instant::now();
        let one = ("10.0.0.1:4000", "10.96.0.1:80");
        let to = ("10.0.0.1:4000", "10.0.0.2:80");
        translations.add([translation(one, to)], now);
        let many = (0..MAX_TRANSLATIONS + 10).map(|i| {
            let client = SocketAddr::from(([10, 1, (i >> 16) as u8, (i >> 8) as u8], i as u16));
            let mut translation = translation(one, to);
            translation.from.client = client;
            translation
        });
        translations.add(many, now + Duration::from_secs(1));
        assert_eq!(translations.known.len(), MAX_TRANSLATIONS);
        assert_eq!(translations.follow(&tuple(one.0, one.1)), None);
        translations.add([], now + KEEP * 2);
        assert!(translations.is_empty());
    }
}
