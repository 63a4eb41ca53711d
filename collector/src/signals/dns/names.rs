//! The names that are asked for: how often, and what was answered. Bounded: where many names of
//! one domain are asked for, and where there are too many names at all, the domain stands for them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::domain;
use crate::abi::dns_answer_key;

/// Names that are kept, domains included. When there are more, the half that is asked for least
/// makes room.
const NAMES: usize = 2000;
/// Names of one domain that are kept.
const NAMES_OF_DOMAIN: usize = 32;
/// Hashes whose name is remembered.
const HASHES: usize = 16_384;
/// A name that nobody asks for any more is kept for so long.
const KEEP: Duration = Duration::from_secs(3600);
/// Names in a report.
const REPORTED: usize = 100;
/// Those that there is no room for.
const OTHER: &str = "~other";

/// In the order of `enum dns_rcode`.
pub(super) const RCODES: [&str; 7] = [
    "noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other",
];
/// In place of an rcode.
pub(super) const TIMEOUT: &str = "timeout";
const OUTCOMES: usize = RCODES.len() + 1;

/// How queries for one name ended.
pub(super) struct Ended {
    pub(super) name: u64,
    pub(super) parent: u64,
    /// Index into [`RCODES`]; the one after is a time-out.
    pub(super) outcome: usize,
    pub(super) count: u64,
}

impl Ended {
    pub(super) fn answers(key: &dns_answer_key, count: u64) -> Self {
        let outcome = usize::try_from(key.rcode).unwrap_or(RCODES.len() - 1);
        Self {
            name: key.name,
            parent: key.parent,
            outcome: outcome.min(RCODES.len() - 1),
            count,
        }
    }

    pub(super) fn timeouts(name: u64, parent: u64, count: u64) -> Self {
        Self {
            name,
            parent,
            outcome: RCODES.len(),
            count,
        }
    }
}

impl Kept {
    fn total(&self) -> u64 {
        self.ended.iter().sum()
    }
}

#[derive(Default)]
pub(super) struct Names {
    kept: HashMap<String, Kept>,
    /// What stands for the name behind a hash: itself or its domain.
    by_hash: HashMap<u64, String>,
    /// The domains of names by the hash of what follows their first label: a name that the kernel
    /// has forgotten already has sisters that it has not.
    by_parent: HashMap<u64, String>,
    /// How many names of a domain are kept.
    of_domain: HashMap<String, usize>,
    /// Those that are label values. Once one, always one.
    exported: HashSet<String>,
}

struct Kept {
    ended: [u64; OUTCOMES],
    last: Instant,
}

impl Names {
    /// Adds, and says what stands for the name. `look_up` gives what the kernel remembers of it.
    pub(super) fn add(
        &mut self,
        ended: &Ended,
        now: Instant,
        look_up: impl FnOnce() -> Option<String>,
    ) -> String {
        let name =
            (self.resolve(ended.name, ended.parent, look_up)).unwrap_or_else(|| OTHER.to_owned());
        let kept = self.kept.entry(name.clone()).or_insert_with(|| Kept {
            ended: [0; OUTCOMES],
            last: now,
        });
        kept.ended[ended.outcome] += ended.count;
        kept.last = now;
        name
    }

    /// What is the label value where `limit` names may be some: the first that come.
    pub(super) fn label(&mut self, name: String, limit: usize) -> String {
        if self.exported.contains(&name) {
            return name;
        }
        if self.exported.len() >= limit {
            return OTHER.to_owned();
        }
        self.exported.insert(name.clone());
        name
    }

    /// What stands for a name, by the hashes of it and of what follows its first label. `None` if
    /// nobody remembers it.
    pub(super) fn resolve(
        &mut self,
        hash: u64,
        parent: u64,
        look_up: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        if let Some(name) = self.by_hash.get(&hash) {
            return Some(name.clone());
        }
        let Some(name) = look_up() else {
            let domain = self.by_parent.get(&parent)?;
            return Some(format!("*.{domain}"));
        };
        if self.by_hash.len() >= HASHES {
            self.by_hash.clear();
        }
        if self.by_parent.len() >= HASHES {
            self.by_parent.clear();
        }
        let domain = domain::registered(&name).to_owned();
        if !domain::parent(&name).is_empty() {
            self.by_parent.insert(parent, domain.clone());
        }
        let name = self.admit(name, &domain);
        self.by_hash.insert(hash, name.clone());
        Some(name)
    }

    fn admit(&mut self, name: String, domain: &str) -> String {
        if self.kept.contains_key(&name) {
            return name;
        }
        if self.kept.len() >= NAMES {
            self.make_room();
        }
        let sisters = self.of_domain.entry(domain.to_owned()).or_default();
        if *sisters >= NAMES_OF_DOMAIN {
            return format!("*.{domain}");
        }
        *sisters += 1;
        name
    }

    fn make_room(&mut self) {
        let mut totals: Vec<u64> = self.kept.values().map(Kept::total).collect();
        totals.sort_unstable();
        let least = totals[totals.len() / 2];
        let mut room = totals.len() / 2;
        let mut gone = [0; OUTCOMES];
        self.kept.retain(|name, kept| {
            let goes = name != OTHER && kept.total() <= least && room > 0;
            if goes {
                room -= 1;
                (gone.iter_mut().zip(kept.ended)).for_each(|(gone, count)| *gone += count);
            }
            !goes
        });
        let other = (self.kept.entry(OTHER.to_owned())).or_insert_with(|| Kept {
            ended: [0; OUTCOMES],
            last: Instant::now(),
        });
        (other.ended.iter_mut().zip(gone)).for_each(|(other, count)| *other += count);
        self.names_went();
    }

    pub(super) fn forget_idle(&mut self, now: Instant) {
        let before = self.kept.len();
        self.kept
            .retain(|_, kept| now.saturating_duration_since(kept.last) < KEEP);
        if self.kept.len() < before {
            self.names_went();
        }
    }

    fn names_went(&mut self) {
        self.by_hash.clear();
        self.of_domain.clear();
        for name in self.kept.keys().filter(|name| is_one_name(name)) {
            let domain = domain::registered(name).to_owned();
            *self.of_domain.entry(domain).or_default() += 1;
        }
    }

    /// The names that were asked for most.
    pub(super) fn report(&self) -> Value {
        let mut names: Vec<(&String, &Kept)> = self.kept.iter().collect();
        names.sort_by(|a, b| (b.1.total().cmp(&a.1.total())).then_with(|| a.0.cmp(b.0)));
        let shown: Vec<Value> = (names.iter().take(REPORTED))
            .map(|(name, kept)| {
                let outcomes: serde_json::Map<_, _> = (RCODES.iter().chain([&TIMEOUT]))
                    .zip(kept.ended)
                    .filter(|(_, count)| *count > 0)
                    .map(|(outcome, count)| ((*outcome).to_owned(), count.into()))
                    .collect();
                json!({ "name": name, "queries": kept.total(), "outcomes": outcomes })
            })
            .collect();
        json!({ "names_kept": names.len(), "names": shown })
    }
}

fn is_one_name(name: &str) -> bool {
    name != OTHER && !name.starts_with("*.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(name: &str) -> u64 {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    }

    fn add(names: &mut Names, name: &str, known: bool) -> String {
        let ended = Ended {
            name: hash(name),
            parent: hash(domain::parent(name)),
            outcome: 0,
            count: 1,
        };
        names.add(&ended, Instant::now(), || known.then(|| name.to_owned()))
    }

    #[test]
    fn ever_new_names_are_shown_under_their_domain() {
        let mut names = Names::default();
        for n in 0..10_000 {
            // Of half of them the kernel remembers nothing.
            add(&mut names, &format!("x{n}.example.co.uk"), n % 2 == 0);
        }
        for n in 0..10_000 {
            add(&mut names, &format!("www.site{n}.test"), true);
        }
        let service = "web.shop.svc.cluster.local";
        assert_eq!(add(&mut names, service, true), service);
        assert!(names.kept.len() <= NAMES + 1, "{}", names.kept.len());
        let random: u64 = names.kept["*.example.co.uk"].ended.iter().sum();
        assert!(random >= 10_000 - 2 * NAMES_OF_DOMAIN as u64, "{random}");
        let all: u64 = names.kept.values().flat_map(|kept| kept.ended).sum();
        assert_eq!(all, 20_001);
        let report = names.report();
        let first = [0, 1].map(|at| report["names"][at]["name"].clone());
        assert!(first.contains(&"*.example.co.uk".into()), "{first:?}");
        assert_eq!(names.report()["names"].as_array().unwrap().len(), REPORTED);
    }

    #[test]
    fn names_that_nobody_asks_for_make_room() {
        let mut names = Names::default();
        assert_eq!(add(&mut names, "a.example", true), "a.example");
        names.forget_idle(Instant::now());
        assert_eq!(names.kept.len(), 1);
        names.forget_idle(Instant::now() + KEEP);
        assert!(names.kept.is_empty() && names.of_domain.is_empty());
        assert_eq!(add(&mut names, "a.example", true), "a.example");
    }

    #[test]
    fn few_names_are_label_values() {
        let mut names = Names::default();
        let label = |names: &mut Names, name: &str| names.label(name.to_owned(), 2);
        assert_eq!(label(&mut names, "a"), "a");
        assert_eq!(label(&mut names, "b"), "b");
        assert_eq!(label(&mut names, "c"), OTHER);
        assert_eq!(label(&mut names, "a"), "a");
    }
}
