//! Whose series of a block's answer are told: those of the place or the scope in question, as far as their labels tell; pure.

use std::collections::BTreeSet;

use promql_parser::parser::token::{T_BOTTOMK, T_TOPK};
use promql_parser::parser::{Expr, LabelModifier};

use crate::diagnosis::place::{Place, Workload};
use crate::diagnosis::scope::Scope;
use crate::diagnosis::snapshot::Series;
use crate::diagnosis::topology::Topology;
use crate::diagnosis::tree::number;

const EVERYBODY: &str = "all workloads";

/// Whom a block is evaluated for.
#[derive(Debug, Clone, Copy)]
pub(in crate::diagnosis) enum Subject<'a> {
    /// Where the hypothesis is that cites the block.
    Place(&'a Place),
    Scope(&'a Scope),
}

/// The series that are about a subject.
pub(super) struct Chosen<'a> {
    pub(super) series: Vec<&'a Series>,
    /// Whose they are: the subject, the end of it that the labels name, or everybody's, where they name nobody.
    pub(super) about: String,
}

/// What a series' labels say about a subject, and whose it is by them.
enum Fit {
    Its(String),
    /// Its workload in the other role: what a server sends, where it is the one that is connected to.
    Reversed(String),
    /// The labels do not tell it from others.
    Untold,
    Others,
}

impl Subject<'_> {
    /// Of an answer that `ranks` all, and of one whose labels do not tell the subject from others, everything.
    pub(super) fn choose<'a>(
        &self,
        answer: &'a [Series],
        ranks: bool,
        topology: &Topology,
    ) -> Chosen<'a> {
        let (mut its, mut reversed, mut untold) = (Group::default(), Group::default(), Vec::new());
        for series in answer {
            let fit = match ranks {
                true => Fit::Untold,
                false => self.fit(series, topology),
            };
            match fit {
                Fit::Its(whose) => its.add(series, whose),
                Fit::Reversed(whose) => reversed.add(series, whose),
                Fit::Untold => untold.push(series),
                Fit::Others => {}
            }
        }
        let group = [its, reversed].into_iter().find(|group| !group.is_empty());
        match group {
            Some(group) => group.chosen(),
            None if untold.is_empty() => Chosen {
                series: untold,
                about: self.name(),
            },
            None => Chosen {
                series: untold,
                about: EVERYBODY.to_owned(),
            },
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Place(place) => place.to_string(),
            Self::Scope(scope) => name(scope),
        }
    }

    fn fit(&self, series: &Series, topology: &Topology) -> Fit {
        let told = Told::of(series);
        match self {
            Self::Place(place) => told.at_place(place, topology),
            Self::Scope(scope) => told.in_scope(scope, topology),
        }
    }
}

#[derive(Default)]
struct Group<'a> {
    series: Vec<&'a Series>,
    whose: BTreeSet<String>,
}

impl<'a> Group<'a> {
    fn add(&mut self, series: &'a Series, whose: String) {
        self.series.push(series);
        self.whose.insert(whose);
    }

    fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    fn chosen(self) -> Chosen<'a> {
        Chosen {
            series: self.series,
            about: Vec::from_iter(self.whose).join(", "),
        }
    }
}

/// A workload as labels name it. A block is written for people: it may group by a workload without its namespace.
#[derive(Clone, Copy)]
struct Name<'a> {
    namespace: Option<&'a str>,
    workload: &'a str,
}

impl Name<'_> {
    fn is(&self, workload: &Workload) -> bool {
        self.workload == &*workload.name
            && self
                .namespace
                .is_none_or(|name| name == &*workload.namespace)
    }

    fn is_one(&self, end: &Option<Workload>) -> bool {
        end.as_ref().is_some_and(|end| self.is(end))
    }

    fn is_end_of(&self, scope: &Scope, topology: &Topology) -> bool {
        let is_known = || {
            let mut known = topology.workloads.iter();
            known.any(|one| self.is(one) && scope.is_end(one))
        };
        let namespace = match (&scope.namespace, self.namespace) {
            (Some(wanted), Some(namespace)) => wanted == namespace,
            (Some(_), None) => scope.workload.is_some() || is_known(),
            (None, _) => true,
        };
        namespace
            && scope
                .workload
                .as_deref()
                .is_none_or(|one| one == self.workload)
    }

    fn is_peer_of(&self, scope: &Scope) -> bool {
        let wanted = (
            scope.peer_namespace.as_deref(),
            scope.peer_workload.as_deref(),
        );
        wanted.1.is_none_or(|one| one == self.workload)
            && wanted
                .0
                .zip(self.namespace)
                .is_none_or(|(one, other)| one == other)
    }
}

/// What the labels of a series tell.
struct Told<'a> {
    src: Option<Name<'a>>,
    dst: Option<Name<'a>>,
    /// Whose series it is. Beside a pair, who sees it, as the router that drops.
    own: Option<Name<'a>>,
    node: Option<&'a str>,
    device: Option<&'a str>,
}

impl<'a> Told<'a> {
    fn of(series: &'a Series) -> Self {
        let label = |name: &str| series.labels.get(name).map(String::as_str);
        let named = |prefix: &str| {
            Some(Name {
                namespace: label(&format!("{prefix}namespace")),
                workload: label(&format!("{prefix}workload"))?,
            })
        };
        let (src, dst) = (named("src_"), named("dst_"));
        Self {
            own: named("").filter(|_| src.is_none() && dst.is_none()),
            src,
            dst,
            node: series.position.node.as_deref(),
            device: label("device").or_else(|| label("interface")),
        }
    }

    fn workloads(&self) -> impl Iterator<Item = Name<'a>> {
        [self.src, self.dst, self.own].into_iter().flatten()
    }

    fn at_place(&self, place: &Place, topology: &Topology) -> Fit {
        let fit = match &place.node {
            Some(node) if place.is_machine() => self.on_node(node, topology, place.to_string()),
            _ => self.at_ends(place, topology),
        };
        match (&place.device, self.device, fit) {
            (Some(device), Some(other), _) if **device != *other => Fit::Others,
            (Some(_), Some(_), Fit::Its(_)) => Fit::Its(place.to_string()),
            (_, _, fit) => fit,
        }
    }

    fn at_ends(&self, place: &Place, topology: &Topology) -> Fit {
        let own =
            |end: &Option<Workload>| end.as_ref().map(Workload::to_string).unwrap_or_default();
        let one = |name: Name<'_>, role: &Option<Workload>, other: &Option<Workload>| {
            if name.is_one(role) {
                Fit::Its(own(role))
            } else if name.is_one(other) {
                Fit::Reversed(own(other))
            } else if role.is_none() {
                Fit::Untold
            } else {
                Fit::Others
            }
        };
        match (self.src, self.dst) {
            (Some(src), Some(dst)) => {
                let fits =
                    |name: Name<'_>, end: &Option<Workload>| end.is_none() || name.is_one(end);
                let both = place.src.is_some() && place.dst.is_some();
                let forward = fits(src, &place.src) && fits(dst, &place.dst);
                let backward = fits(src, &place.dst) && fits(dst, &place.src);
                match (forward, backward) {
                    // Answers, repeats and drops are seen on the way back too.
                    (true, _) => Fit::Its(place.to_string()),
                    (false, true) if both => Fit::Its(place.to_string()),
                    (false, true) => Fit::Reversed(place.to_string()),
                    (false, false) => Fit::Others,
                }
            }
            (Some(src), None) => one(src, &place.src, &place.dst),
            (None, Some(dst)) => one(dst, &place.dst, &place.src),
            (None, None) => match (self.own, self.node) {
                (Some(name), _) => match place.workloads().find(|end| name.is(end)) {
                    Some(end) => Fit::Its(end.to_string()),
                    None => Fit::Others,
                },
                (None, Some(node)) => {
                    let carries = place.workloads().any(|end| topology.is_on(end, node));
                    of_node(node, carries, topology)
                }
                (None, None) => Fit::Untold,
            },
        }
    }

    fn on_node(&self, node: &str, topology: &Topology, whose: String) -> Fit {
        let is_there = |name: Name<'_>| topology.on_node(node).any(|one| name.is(one));
        let has_ends = self.workloads().next().is_some();
        // What is scraped elsewhere may have another name for the node.
        let is_elsewhere = self.node.is_some_and(|other| topology.knows_node(other));
        if self.node == Some(node) || self.workloads().any(is_there) {
            Fit::Its(whose)
        } else if is_elsewhere || (has_ends && topology.knows_node(node)) {
            Fit::Others
        } else {
            Fit::Untold
        }
    }

    fn in_scope(&self, scope: &Scope, topology: &Topology) -> Fit {
        if let Some(node) = &scope.node {
            let at_node = self.on_node(node, topology, name(scope));
            if !scope.names_workloads() || !matches!(at_node, Fit::Its(_)) {
                return at_node;
            }
        }
        if !scope.names_workloads() {
            return Fit::Its(name(scope));
        }
        if self.workloads().next().is_none() {
            return self.node.map_or(Fit::Untold, |node| {
                let carries = topology.on_node(node).any(|one| scope.is_end(one));
                of_node(node, carries, topology)
            });
        }
        let ends = [(self.src, self.dst), (self.dst, self.src), (self.own, None)];
        let is_its = ends.into_iter().any(|(end, other)| {
            end.is_some_and(|end| end.is_end_of(scope, topology))
                && other.is_none_or(|other| other.is_peer_of(scope))
        });
        // Where nobody says who runs in a namespace, a name alone tells nothing of it.
        let is_open = |name: Name<'_>| {
            scope.workload.is_none() && name.namespace.is_none() && topology.workloads.is_empty()
        };
        if is_its {
            Fit::Its(name(scope))
        } else if self.workloads().all(is_open) {
            Fit::Untold
        } else {
            Fit::Others
        }
    }
}

/// A series of a node as a whole, where the subject is workloads.
fn of_node(node: &str, carries: bool, topology: &Topology) -> Fit {
    if carries {
        Fit::Its(format!("node {node}"))
    } else if topology.knows_node(node) {
        Fit::Others
    } else {
        // Somebody else's name for it, or nobody says who runs there.
        Fit::Untold
    }
}

fn name(scope: &Scope) -> String {
    let peer = Scope {
        namespace: scope.peer_namespace.clone(),
        workload: scope.peer_workload.clone(),
        ..Scope::default()
    };
    match scope.peer_workload {
        Some(_) => format!("{} and {}", scope.describe(), peer.describe()),
        None => scope.describe(),
    }
}

/// Whether an expression chooses among all series, so that a part of its answer is none for a part of the cluster.
pub(super) fn ranks(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(paren) => ranks(&paren.expr),
        Expr::Binary(binary) if number(&binary.rhs).is_some() => ranks(&binary.lhs),
        Expr::Binary(binary) if number(&binary.lhs).is_some() => ranks(&binary.rhs),
        Expr::Call(call) => call.args.args.iter().any(|argument| ranks(argument)),
        Expr::Aggregate(aggregate) if matches!(aggregate.op.id(), T_TOPK | T_BOTTOMK) => {
            match &aggregate.modifier {
                None => true,
                Some(LabelModifier::Include(labels)) => labels.labels.is_empty(),
                Some(LabelModifier::Exclude(_)) => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use promql_parser::parser;

    use super::*;
    use crate::diagnosis::place::Position;

    fn workload(name: &str) -> Workload {
        Workload {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    /// `src_workload=a,dst_workload=b`
    fn series(text: &str) -> Series {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let labels: BTreeMap<String, String> =
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Series {
            position: Position::of(&labels),
            labels,
            value: 1.0,
            earlier: None,
        }
    }

    fn topology() -> Topology {
        let mut topology = Topology::default();
        for (node, name) in [("n1", "a"), ("n2", "b"), ("n3", "c")] {
            topology.add_to_node(&node.into(), &workload(name));
            topology.workloads.insert(workload(name));
        }
        topology
    }

    /// Which of an answer's series are told, by their place in it, and as whose.
    fn check(subject: Subject<'_>, answer: &[&str], expected: &str) {
        let all: Vec<Series> = answer.iter().map(|text| series(text)).collect();
        let chosen = subject.choose(&all, false, &topology());
        let told: Vec<usize> = (0..all.len())
            .filter(|index| chosen.series.contains(&&all[*index]))
            .collect();
        let told = format!("{told:?} of {}", chosen.about);
        assert_eq!(told, expected, "{answer:?} for {subject:?}");
    }

    #[test]
    fn a_pair_has_the_series_that_name_its_ends() {
        let place = Place::between(Some(workload("a")), Some(workload("b")));
        let check = |answer: &[&str], expected| check(Subject::Place(&place), answer, expected);
        check(
            &[
                "src_workload=a,dst_workload=b",
                "src_workload=b,dst_workload=a",
                "src_workload=a,dst_workload=c",
                "namespace=host,workload=~host,src_workload=a,dst_workload=b",
                "src_namespace=other,src_workload=a,dst_workload=b",
            ],
            "[0, 1, 3] of shop/a → shop/b",
        );
        // What goes to b is not what goes to a.
        check(&["dst_workload=a", "dst_workload=b"], "[1] of shop/b");
        check(&["src_workload=b", "src_workload=c"], "[0] of shop/b");
        check(
            &["workload=a", "workload=b", "workload=c"],
            "[0, 1] of shop/a, shop/b",
        );
        check(&["workload=c"], "[] of shop/a → shop/b");
        check(&["node=n1", "node=n3"], "[0] of node n1");
        check(
            &["pod=coredns-1", "pod=coredns-2"],
            "[0, 1] of all workloads",
        );
        // Nobody's name for a node that we know.
        check(&["node=ip-10-0-0-1"], "[0] of all workloads");
    }

    #[test]
    fn a_listener_has_what_is_sent_to_it_whoever_sends() {
        let place = Place::between(None, Some(workload("b")));
        let check = |answer: &[&str], expected| check(Subject::Place(&place), answer, expected);
        check(
            &["dst_namespace=shop,dst_workload=b", "dst_workload=a"],
            "[0] of shop/b",
        );
        check(
            &[
                "src_workload=a,dst_workload=b",
                "src_workload=b,dst_workload=a",
            ],
            "[0] of shop/b",
        );
        // Who its clients are these labels do not tell.
        check(
            &["src_workload=a", "src_workload=c"],
            "[0, 1] of all workloads",
        );
    }

    #[test]
    fn a_node_has_its_own_series_and_those_of_what_runs_there() {
        let place = Place {
            node: Some("n1".into()),
            ..Place::ANYWHERE
        };
        check(
            Subject::Place(&place),
            &[
                "node=n1",
                "node=n2",
                "instance=n1:9100",
                "workload=a",
                "workload=b",
                "x=y",
            ],
            "[0, 2, 3] of node n1",
        );
        check(
            Subject::Place(&place),
            &["instance=10.0.0.1:9100", "node=n2"],
            "[0] of all workloads",
        );
        let link = Place {
            node: Some("n1".into()),
            device: Some("eth0".into()),
            ..Place::between(None, Some(workload("a")))
        };
        check(
            Subject::Place(&link),
            &[
                "workload=a,interface=eth0",
                "workload=a,interface=lo",
                "workload=b,interface=eth0",
            ],
            "[0] of eth0 of shop/a",
        );
    }

    #[test]
    fn a_scope_may_name_a_namespace_a_workload_or_a_pair() {
        let alone = Scope {
            workload: Some("a".into()),
            ..Scope::default()
        };
        let namespace = Scope {
            namespace: Some("shop".into()),
            ..Scope::default()
        };
        let pair = Scope {
            peer_workload: Some("b".into()),
            ..alone.clone()
        };
        let answer = [
            "src_workload=a,dst_workload=c",
            "src_workload=b,dst_workload=a",
            "src_workload=x,dst_workload=y",
            "node=n1",
        ];
        for (scope, expected) in [
            (&alone, "[0, 1, 3] of a, node n1"),
            (&namespace, "[0, 1, 3] of namespace shop, node n1"),
            (&pair, "[1, 3] of a and b, node n1"),
            (&Scope::default(), "[0, 1, 2, 3] of all workloads"),
        ] {
            check(Subject::Scope(scope), &answer, expected);
        }
        check(Subject::Scope(&alone), &["src_workload=b"], "[] of a");
        check(Subject::Scope(&alone), &["x=y"], "[0] of all workloads");
    }

    #[test]
    fn who_is_first_of_all_is_told_of_all() {
        for (text, expected) in [
            ("topk(5, sum by (src_workload) (x)) > 1", true),
            ("sort_desc(bottomk(5, x))", true),
            ("topk by (node) (5, x)", false),
            ("sum by (a) (topk(5, x))", false),
            ("x > 1", false),
        ] {
            assert_eq!(ranks(&parser::parse(text).unwrap()), expected, "{text}");
        }
        let all = ["src_workload=a", "src_workload=c"].map(series);
        let place = Place::between(Some(workload("a")), Some(workload("b")));
        let chosen = Subject::Place(&place).choose(&all, true, &topology());
        assert_eq!((chosen.series.len(), chosen.about.as_str()), (2, EVERYBODY));
    }
}
