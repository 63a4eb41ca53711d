//! Where something is: the workloads at the ends of a series and of a hypothesis; pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::runbook::End;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for Workload {
    /// Namespace only where it tells something: `host` is where everything is that no orchestrator placed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() || &*self.namespace == "host" || self.name.starts_with('~') {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl Workload {
    /// A name that stands for all whose name is not known, so that nobody could be sent there.
    pub fn is_anonymous(&self) -> bool {
        self.name.starts_with('~') && &*self.name != "~host"
    }
}

/// What the labels of one series say about where it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Position {
    /// Between two workloads; an end that is not in the labels may be anyone.
    Pair {
        src: Option<Workload>,
        dst: Option<Workload>,
    },
    /// At one workload.
    Owner(Workload),
    /// The labels name no workload.
    Anywhere,
}

impl Position {
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        let workload = |prefix: &str| {
            let name = labels.get(&format!("{prefix}workload"))?;
            let namespace = labels.get(&format!("{prefix}namespace"));
            Some(Workload {
                namespace: namespace.map_or("", String::as_str).into(),
                name: name.as_str().into(),
            })
        };
        match (workload("src_"), workload("dst_")) {
            (None, None) => workload("").map_or(Self::Anywhere, Self::Owner),
            (src, dst) => Self::Pair { src, dst },
        }
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        let (one, other) = match self {
            Self::Pair { src, dst } => (src.as_ref(), dst.as_ref()),
            Self::Owner(owner) => (Some(owner), None),
            Self::Anywhere => (None, None),
        };
        one.into_iter().chain(other)
    }
}

/// Where a hypothesis lives. An end that is `None` is open: one listener, whoever its clients are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub src: Option<Workload>,
    pub dst: Option<Workload>,
}

impl Place {
    pub const ANYWHERE: Self = Self {
        src: None,
        dst: None,
    };

    /// The place that a series points at, when it is required evidence.
    pub fn suggested_by(position: &Position, at: End) -> Self {
        match (position, at) {
            (Position::Pair { src, dst }, _) => Self {
                src: src.clone(),
                dst: dst.clone(),
            },
            (Position::Owner(owner), End::Src) => Self {
                src: Some(owner.clone()),
                dst: None,
            },
            // Without a word about the end, the one that serves is the likelier one.
            (Position::Owner(owner), End::Dst | End::Pair) => Self {
                src: None,
                dst: Some(owner.clone()),
            },
            (Position::Anywhere, _) => Self::ANYWHERE,
        }
    }

    /// Whether a series may be about this place. Between two known ends either direction will do, because answers,
    /// retransmits and drops are seen on the way back too.
    pub fn admits(&self, position: &Position, at: End) -> bool {
        match position {
            Position::Pair { src, dst } => {
                let forward = fits(&self.src, src) && fits(&self.dst, dst);
                let both_known = self.src.is_some() && self.dst.is_some();
                forward || (both_known && fits(&self.src, dst) && fits(&self.dst, src))
            }
            // An open end may be anyone, but that is no reason to believe it is this one.
            Position::Owner(owner) => match at {
                End::Src => self.src.as_ref() == Some(owner),
                End::Dst => self.dst.as_ref() == Some(owner),
                End::Pair => self.workloads().any(|end| end == owner),
            },
            Position::Anywhere => true,
        }
    }

    /// Whether the two are about the same traffic: compatible in one direction, and with a workload in common.
    pub fn overlaps(&self, other: &Place) -> bool {
        if *self == Self::ANYWHERE || *other == Self::ANYWHERE {
            return true;
        }
        let forward = fits(&self.src, &other.src) && fits(&self.dst, &other.dst);
        let backward = fits(&self.src, &other.dst) && fits(&self.dst, &other.src);
        let shared = self
            .workloads()
            .any(|end| other.workloads().any(|theirs| theirs == end));
        shared && (forward || backward)
    }

    /// Whether this place says all that `other` says, and more.
    pub fn refines(&self, other: &Place) -> bool {
        let says =
            |mine: &Option<Workload>, theirs: &Option<Workload>| theirs.is_none() || mine == theirs;
        self != other && says(&self.src, &other.src) && says(&self.dst, &other.dst)
    }

    /// Whether it names ends, and none of them is one that is known.
    pub fn is_anonymous(&self) -> bool {
        self.workloads().next().is_some() && self.workloads().all(Workload::is_anonymous)
    }

    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst.clone(),
            dst: self.src.clone(),
        }
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.src.iter().chain(&self.dst)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.src, &self.dst) {
            (Some(src), Some(dst)) => write!(f, "{src} → {dst}"),
            (Some(end), None) | (None, Some(end)) => write!(f, "{end}"),
            (None, None) => f.write_str("the network as a whole"),
        }
    }
}

fn fits(one: &Option<Workload>, other: &Option<Workload>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str) -> Option<Workload> {
        (name != "_").then(|| Workload {
            namespace: "host".into(),
            name: name.into(),
        })
    }

    /// `a>b`, with `_` for an open end.
    fn place(text: &str) -> Place {
        let (src, dst) = text.split_once('>').unwrap();
        Place {
            src: workload(src),
            dst: workload(dst),
        }
    }

    fn pair(text: &str) -> Position {
        let Place { src, dst } = place(text);
        Position::Pair { src, dst }
    }

    #[test]
    fn pairs_match_in_either_direction_where_both_ends_are_known() {
        for (position, at, admitted) in [
            ("a>b", "a>b", true),
            ("b>a", "a>b", true),
            ("_>b", "a>b", true),
            ("a>_", "a>b", true),
            ("a>c", "a>b", false),
            ("a>b", "_>b", true),
            ("b>a", "_>b", false),
            ("a>a", "a>a", true),
        ] {
            assert_eq!(
                place(at).admits(&pair(position), End::Pair),
                admitted,
                "{position} at {at}"
            );
        }
    }

    #[test]
    fn an_owner_must_be_the_end_that_the_evidence_says() {
        let owner = |name| Position::Owner(workload(name).unwrap());
        for (name, end, at, admitted) in [
            ("b", End::Dst, "a>b", true),
            ("a", End::Dst, "a>b", false),
            ("a", End::Src, "a>b", true),
            ("a", End::Pair, "a>b", true),
            ("c", End::Pair, "a>b", false),
            ("a", End::Src, "_>b", false),
        ] {
            assert_eq!(
                place(at).admits(&owner(name), end),
                admitted,
                "{name} at {at}"
            );
        }
    }

    #[test]
    fn overlap_needs_a_workload_in_common() {
        for (one, other, overlap) in [
            ("_>b", "a>b", true),
            ("_>b", "b>a", true),
            ("_>b", "a>_", false),
            ("a>b", "b>a", true),
            ("a>b", "a>c", false),
            ("_>_", "a>c", true),
        ] {
            assert_eq!(
                place(one).overlaps(&place(other)),
                overlap,
                "{one} and {other}"
            );
        }
    }

    #[test]
    fn labels_name_the_ends() {
        let labels = |pairs: &[(&str, &str)]| {
            Position::of(
                &pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(
            labels(&[
                ("src_namespace", "host"),
                ("src_workload", "a"),
                ("workload", "x")
            ]),
            pair("a>_")
        );
        assert_eq!(
            labels(&[("namespace", "host"), ("workload", "a")]),
            Position::Owner(workload("a").unwrap())
        );
        assert_eq!(labels(&[("namespace", "host")]), Position::Anywhere);
    }
}
