//! Where something is: the workloads at the ends of a series and of a hypothesis; pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::topology::Topology;
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
pub struct Position {
    pub ends: Ends,
    /// The label `node`, else `instance` without its port. It says where a series was scraped, which only evidence at nodes
    /// and links means.
    pub node: Option<Arc<str>>,
    pub device: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ends {
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
        let ends = match (workload("src_"), workload("dst_")) {
            (None, None) => workload("").map_or(Ends::Anywhere, Ends::Owner),
            (src, dst) => Ends::Pair { src, dst },
        };
        let node = labels
            .get("node")
            .map(String::as_str)
            .or_else(|| labels.get("instance").map(|instance| host_of(instance)));
        Self {
            ends,
            node: node.map(Arc::from),
            device: labels.get("device").map(|device| device.as_str().into()),
        }
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        let (one, other) = match &self.ends {
            Ends::Pair { src, dst } => (src.as_ref(), dst.as_ref()),
            Ends::Owner(owner) => (Some(owner), None),
            Ends::Anywhere => (None, None),
        };
        one.into_iter().chain(other)
    }
}

/// `10.0.0.1:9435` is scraped on 10.0.0.1, as is `10.0.0.1:9100`.
pub(super) fn host_of(instance: &str) -> &str {
    match instance.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => instance,
    }
}

/// Where a hypothesis lives. An end that is `None` is open: one listener, whoever its clients are. A node or a link has no
/// ends, or the one that the link belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub src: Option<Workload>,
    pub dst: Option<Workload>,
    pub node: Option<Arc<str>>,
    pub device: Option<Arc<str>>,
}

impl Place {
    pub const ANYWHERE: Self = Self {
        src: None,
        dst: None,
        node: None,
        device: None,
    };

    pub fn between(src: Option<Workload>, dst: Option<Workload>) -> Self {
        Self {
            src,
            dst,
            ..Self::ANYWHERE
        }
    }

    /// The place that a series points at, when it is required evidence.
    pub fn suggested_by(position: &Position, at: End) -> Self {
        let ends = match (&position.ends, at) {
            (Ends::Pair { src, dst }, _) => Self::between(src.clone(), dst.clone()),
            (Ends::Owner(owner), End::Src) => Self::between(Some(owner.clone()), None),
            // Without a word about the end, the one that serves is the likelier one.
            (Ends::Owner(owner), End::Dst | End::Pair | End::Node | End::Link) => {
                Self::between(None, Some(owner.clone()))
            }
            (Ends::Anywhere, _) => Self::ANYWHERE,
        };
        match at {
            End::Pair | End::Src | End::Dst => ends,
            End::Node if position.node.is_some() => Self {
                node: position.node.clone(),
                ..Self::ANYWHERE
            },
            End::Node => ends,
            End::Link => Self {
                node: position.node.clone(),
                device: position.device.clone(),
                ..ends
            },
        }
    }

    /// Whether a series may be about this place. Between two known ends either direction will do, because answers,
    /// retransmits and drops are seen on the way back too. A series with one end says that this end sends, or that it is sent to.
    pub fn admits(&self, position: &Position, at: End, topology: &Topology) -> bool {
        match at {
            End::Node | End::Link => {
                let theirs = Self::suggested_by(position, at);
                theirs == Self::ANYWHERE
                    || (fits(&self.device, &theirs.device) && self.overlaps(&theirs, topology))
            }
            End::Pair | End::Src | End::Dst if self.is_machine() => {
                *self == Self::ANYWHERE
                    || position.ends == Ends::Anywhere
                    || position.workloads().any(|end| self.carries(end, topology))
            }
            End::Pair | End::Src | End::Dst => match &position.ends {
                Ends::Pair { src, dst } => {
                    let forward = fits(&self.src, src) && fits(&self.dst, dst);
                    let known = [&self.src, &self.dst, src, dst].map(Option::is_some);
                    let both_known = known.into_iter().all(|end| end);
                    forward || (both_known && fits(&self.src, dst) && fits(&self.dst, src))
                }
                // An open end may be anyone, but that is no reason to believe it is this one.
                Ends::Owner(owner) => match at {
                    End::Src => self.src.as_ref() == Some(owner),
                    End::Dst => self.dst.as_ref() == Some(owner),
                    End::Pair | End::Node | End::Link => self.workloads().any(|end| end == owner),
                },
                Ends::Anywhere => true,
            },
        }
    }

    /// Whether the two are about the same traffic: compatible in one direction, and with a workload in common; or a machine
    /// and what runs on it.
    pub fn overlaps(&self, other: &Place, topology: &Topology) -> bool {
        if *self == Self::ANYWHERE || *other == Self::ANYWHERE {
            return true;
        }
        match (self.is_machine(), other.is_machine()) {
            (true, true) => self.node == other.node && fits(&self.device, &other.device),
            (true, false) => other.workloads().any(|end| self.carries(end, topology)),
            (false, true) => self.workloads().any(|end| other.carries(end, topology)),
            (false, false) => {
                let forward = fits(&self.src, &other.src) && fits(&self.dst, &other.dst);
                let backward = fits(&self.src, &other.dst) && fits(&self.dst, &other.src);
                // A link is at both of its owner's ends.
                let link = self.is_link() || other.is_link();
                let shared = self
                    .workloads()
                    .any(|end| other.workloads().any(|theirs| theirs == end));
                shared && (forward || backward || link)
            }
        }
    }

    /// The same place, where an end that could not be told may be anyone: seen from the other end it may have a name, such as
    /// behind a Service.
    pub fn opened(&self) -> Self {
        let known = |end: &Option<Workload>| end.clone().filter(|end| &*end.name != "~unknown");
        match (known(&self.src), known(&self.dst)) {
            (None, None) => self.clone(),
            (src, dst) => Self {
                src,
                dst,
                ..self.clone()
            },
        }
    }

    /// Whether it is a node, or a link of the node itself: everything on the node goes through it.
    pub fn is_machine(&self) -> bool {
        let own = |end: &Workload| &*end.name == "~host";
        self.workloads().next().is_none() || (self.is_link() && self.workloads().all(own))
    }

    fn is_link(&self) -> bool {
        self.device.is_some()
    }

    fn carries(&self, workload: &Workload, topology: &Topology) -> bool {
        let on_it = |node: &Arc<str>| topology.is_on(workload, node);
        self.node.as_ref().is_some_and(on_it) || self.workloads().any(|end| end == workload)
    }

    /// Whether this place says all that `other` says, and more.
    pub fn refines(&self, other: &Place) -> bool {
        self != other
            && says(&self.src, &other.src)
            && says(&self.dst, &other.dst)
            && says(&self.node, &other.node)
            && says(&self.device, &other.device)
    }

    /// Whether it names ends, and none of them is one that is known.
    pub fn is_anonymous(&self) -> bool {
        self.workloads().next().is_some() && self.workloads().all(Workload::is_anonymous)
    }

    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst.clone(),
            dst: self.src.clone(),
            ..self.clone()
        }
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.src.iter().chain(&self.dst)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.device {
            write!(f, "{device} of ")?;
        }
        match (&self.src, &self.dst) {
            (Some(src), Some(dst)) => write!(f, "{src} → {dst}"),
            (Some(end), None) | (None, Some(end)) => match &self.node {
                Some(node) if self.is_machine() => write!(f, "node {node}"),
                _ => write!(f, "{end}"),
            },
            (None, None) => match &self.node {
                Some(node) => write!(f, "node {node}"),
                None => f.write_str("the network as a whole"),
            },
        }
    }
}

fn says<T: PartialEq>(mine: &Option<T>, theirs: &Option<T>) -> bool {
    theirs.is_none() || mine == theirs
}

fn fits<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
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
        Place::between(workload(src), workload(dst))
    }

    fn pair(text: &str) -> Position {
        let Place { src, dst, .. } = place(text);
        Position {
            ends: Ends::Pair { src, dst },
            node: None,
            device: None,
        }
    }

    #[test]
    fn pairs_match_in_either_direction_where_both_ends_are_known() {
        for (position, at, admitted) in [
            ("a>b", "a>b", true),
            ("b>a", "a>b", true),
            ("_>b", "a>b", true),
            ("a>_", "a>b", true),
            ("b>_", "a>b", false),
            ("_>a", "a>b", false),
            ("a>c", "a>b", false),
            ("a>b", "_>b", true),
            ("b>a", "_>b", false),
            ("a>a", "a>a", true),
        ] {
            assert_eq!(
                place(at).admits(&pair(position), End::Pair, &Topology::default()),
                admitted,
                "{position} at {at}"
            );
        }
    }

    #[test]
    fn an_owner_must_be_the_end_that_the_evidence_says() {
        let owner = |name| Position {
            ends: Ends::Owner(workload(name).unwrap()),
            ..pair("_>_")
        };
        for (name, end, at, admitted) in [
            ("b", End::Dst, "a>b", true),
            ("a", End::Dst, "a>b", false),
            ("a", End::Src, "a>b", true),
            ("a", End::Pair, "a>b", true),
            ("c", End::Pair, "a>b", false),
            ("a", End::Src, "_>b", false),
        ] {
            assert_eq!(
                place(at).admits(&owner(name), end, &Topology::default()),
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
                place(one).overlaps(&place(other), &Topology::default()),
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
            Position {
                ends: Ends::Owner(workload("a").unwrap()),
                ..pair("_>_")
            }
        );
        assert_eq!(labels(&[("namespace", "host")]).ends, Ends::Anywhere);
        for (name, value, node) in [
            ("node", "n1", "n1"),
            ("instance", "10.0.0.1:9435", "10.0.0.1"),
            ("instance", "[fd00::1]:9435", "[fd00::1]"),
            ("instance", "host-a", "host-a"),
        ] {
            assert_eq!(labels(&[(name, value)]).node.as_deref(), Some(node));
        }
    }

    #[test]
    fn a_node_carries_those_who_run_on_it_and_a_link_is_its_owner_s() {
        let mut topology = Topology::default();
        topology.add_to_node(&"n1".into(), &workload("a").unwrap());
        topology.add_to_node(&"n2".into(), &workload("b").unwrap());
        let labels = |text: &str| {
            let pairs = text.split(',').map(|pair| pair.split_once('=').unwrap());
            Position::of(&pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
        };
        let at = |text: &str, end| Place::suggested_by(&labels(text), end);
        let node = at("node=n1", End::Node);
        let uplink = at(
            "node=n1,device=eth0,namespace=host,workload=~host",
            End::Link,
        );
        let own = at("node=n1,device=eth0,namespace=host,workload=a", End::Link);
        for (machine, pair, overlaps) in [
            (&node, "a>b", true),
            (&node, "c>b", false),
            (&uplink, "b>a", true),
            (&own, "a>c", true),
            (&own, "c>a", true),
            (&own, "b>c", false),
        ] {
            assert_eq!(
                machine.overlaps(&place(pair), &topology),
                overlaps,
                "{machine} {pair}"
            );
            assert_eq!(
                place(pair).overlaps(machine, &topology),
                overlaps,
                "{pair} {machine}"
            );
        }
        assert!(place("a>b").admits(&labels("node=n1"), End::Node, &topology));
        assert!(!place("b>c").admits(&labels("node=n1"), End::Node, &topology));
        assert!(node.admits(&pair("c>a"), End::Pair, &topology));
        assert!(!uplink.admits(&labels("node=n1,device=eth1"), End::Link, &topology));
        assert_eq!(
            [node, uplink, own].map(|place| place.to_string()),
            ["node n1", "eth0 of node n1", "eth0 of a"]
        );
    }
}
