//! Is the answer right? Pure: an answer, what was expected, a verdict.

use serde::{Deserialize, Serialize};

use crate::scenario::Status;

/// The confidence from which a hypothesis is an answer.
const LIKELY: f64 = 0.5;

/// The part of a `/diagnose` answer that is judged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) hypotheses: Vec<Hypothesis>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Hypothesis {
    pub(crate) failure_mode: String,
    pub(crate) confidence: f64,
    #[serde(default)]
    pub(crate) affected: Vec<Affected>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Affected {
    #[serde(default)]
    pub(crate) workload: Option<String>,
    #[serde(default)]
    pub(crate) peer_workload: Option<String>,
    /// Where it is a link.
    #[serde(default)]
    pub(crate) device: Option<String>,
}

impl Affected {
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &String> {
        [&self.workload, &self.peer_workload]
            .into_iter()
            .flatten()
            .filter(|name| !name.is_empty())
    }
}

/// What is right, with the names the programs see.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Expected {
    pub(crate) status: Status,
    pub(crate) failure_mode: Option<String>,
    /// Workloads: both ends, one end, or none if the place is not judged.
    pub(crate) affected: Vec<String>,
    /// The link, by the name of either of its devices; none if it is not judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) device: Vec<String>,
    /// Workloads between the ends that must be named too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) way: Vec<String>,
    pub(crate) top: usize,
    /// Further faults that were made at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<Fault>,
}

/// One fault and where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) failure_mode: String,
    /// As in [`Expected`].
    #[serde(default)]
    pub(crate) affected: Vec<String>,
}

impl Expected {
    /// Nothing is wrong.
    pub(crate) fn healthy() -> Self {
        Self {
            status: Status::NoNetworkFault,
            failure_mode: None,
            affected: Vec::new(),
            device: Vec::new(),
            way: Vec::new(),
            top: 1,
            also: Vec::new(),
        }
    }

    /// Whether any of the faults is likelier than not, wherever.
    pub(crate) fn is_told(&self, answer: &Answer) -> bool {
        let is_expected = |mode: &String| {
            self.failure_mode.as_ref() == Some(mode)
                || self.also.iter().any(|fault| fault.failure_mode == *mode)
        };
        (answer.hypotheses.iter())
            .any(|one| one.confidence >= LIKELY && is_expected(&one.failure_mode))
    }

    /// Whether a hypothesis names a fault that was made, not at a place where it is not.
    pub(crate) fn names(&self, hypothesis: &Hypothesis) -> bool {
        let is = |mode: &str, affected: &[String], device: &[String]| {
            hypothesis.failure_mode == mode
                && place(affected, device, &hypothesis.affected) != Place::Wrong
        };
        let first = self.failure_mode.as_deref();
        first.is_some_and(|mode| is(mode, &self.affected, &self.device))
            || self
                .also
                .iter()
                .any(|fault| is(&fault.failure_mode, &fault.affected, &[]))
    }
}

/// Where one expected fault stands in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// From 1.
    pub(crate) rank: Option<usize>,
    pub(crate) place: Place,
}

impl Found {
    fn of(mode: &str, affected: &[String], device: &[String], answer: &Answer) -> Self {
        let at = answer
            .hypotheses
            .iter()
            .position(|one| one.failure_mode == mode);
        Self {
            rank: at.map(|at| at + 1),
            place: at.map_or(Place::NotJudged, |at| {
                place(affected, device, &answer.hypotheses[at].affected)
            }),
        }
    }

    pub(crate) fn is_within(&self, top: usize) -> bool {
        self.rank.is_some_and(|rank| rank <= top) && self.place != Place::Wrong
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// All expected ends are named, and no other.
    Exact,
    /// One of them is, and the other is left open.
    Partial,
    Wrong,
    /// Nothing was expected, or the mode is not among the hypotheses.
    NotJudged,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Score {
    pub(crate) right: bool,
    /// Where the expected mode stands, from 1.
    pub(crate) rank: Option<usize>,
    pub(crate) place: Place,
    /// Where the further faults stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<Found>,
    /// Confidence of the first hypothesis.
    pub(crate) confidence: Option<f64>,
    /// What the answer says first: a failure mode, or its status.
    pub(crate) got: String,
    /// A fault was reported where there was none.
    pub(crate) false_alarm: bool,
    /// Workloads of the first hypothesis that are not of this lab: something else on this machine is
    /// broken, and the answer may well be right about that.
    pub(crate) elsewhere: Vec<String>,
}

impl Score {
    /// `got` is then a failure mode and no status.
    pub(crate) fn says_fault(&self) -> bool {
        [Status::NoNetworkFault, Status::Unknown]
            .iter()
            .all(|status| self.got != status.to_string())
    }
}

/// `lab` holds the names of all workloads of the lab.
pub(crate) fn score(expected: &Expected, answer: &Answer, lab: &[&str]) -> Score {
    let found = expected.failure_mode.as_ref().map_or(
        Found {
            rank: None,
            place: Place::NotJudged,
        },
        |mode| Found::of(mode, &expected.affected, &expected.device, answer),
    );
    let Found { rank, mut place } = found;
    if place != Place::NotJudged
        && let Some(rank) = rank
        && !is_named(&expected.way, &answer.hypotheses[rank - 1].affected)
    {
        place = Place::Wrong;
    }
    let also: Vec<Found> = expected
        .also
        .iter()
        .map(|fault| Found::of(&fault.failure_mode, &fault.affected, &[], answer))
        .collect();
    let mode_is_right = match &expected.failure_mode {
        // `not-network` may be listed or not: the status says it.
        Some(_) if expected.status != Status::Fault => true,
        Some(_) => rank.is_some_and(|rank| rank <= expected.top),
        None => true,
    };
    let first = answer.hypotheses.first();
    let got = match (answer.status, first) {
        (Status::Fault, Some(first)) => first.failure_mode.clone(),
        (status, _) => status.to_string(),
    };
    let places = first.map_or(&[][..], |first| first.affected.as_slice());
    let elsewhere = places
        .iter()
        .flat_map(Affected::workloads)
        .filter(|name| !name.starts_with('~') && !lab.contains(&name.as_str()))
        .cloned()
        .collect();
    Score {
        right: answer.status == expected.status
            && mode_is_right
            && place != Place::Wrong
            && also.iter().all(|found| found.is_within(expected.top)),
        rank,
        place,
        also,
        confidence: first.map(|first| first.confidence),
        got,
        false_alarm: expected.status == Status::NoNetworkFault && answer.status == Status::Fault,
        elsewhere,
    }
}

fn is_named(way: &[String], affected: &[Affected]) -> bool {
    let named: Vec<&String> = affected.iter().flat_map(Affected::workloads).collect();
    way.iter().all(|end| named.contains(&end))
}

/// Judges the best of the places a hypothesis names.
fn place(expected: &[String], device: &[String], affected: &[Affected]) -> Place {
    if expected.is_empty() && device.is_empty() {
        return Place::NotJudged;
    }
    let judge = |one: &Affected| {
        let link = match &one.device {
            _ if device.is_empty() => Place::Exact,
            None => Place::Partial,
            Some(named) if device.contains(named) => Place::Exact,
            Some(_) => Place::Wrong,
        };
        let ends = ends(expected, one);
        if [link, ends].contains(&Place::Wrong) {
            Place::Wrong
        } else if ends == Place::Exact {
            link
        } else {
            ends
        }
    };
    let all: Vec<Place> = affected.iter().map(judge).collect();
    [Place::Exact, Place::Partial]
        .into_iter()
        .find(|place| all.contains(place))
        .unwrap_or(Place::Wrong)
}

fn ends(expected: &[String], one: &Affected) -> Place {
    let named: Vec<&String> = one.workloads().collect();
    let hits = expected.iter().filter(|end| named.contains(end)).count();
    if hits == expected.len() {
        Place::Exact
    } else if hits > 0 && hits == named.len() {
        Place::Partial
    } else {
        Place::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Status, hypotheses: &[(&str, &str, &str)]) -> Answer {
        let hypothesis = |&(mode, workload, peer): &(&str, &str, &str)| Hypothesis {
            failure_mode: mode.to_owned(),
            confidence: 0.9,
            affected: vec![Affected {
                workload: Some(workload.to_owned()),
                peer_workload: (!peer.is_empty()).then(|| peer.to_owned()),
                device: None,
            }],
        };
        Answer {
            status,
            hypotheses: hypotheses.iter().map(hypothesis).collect(),
        }
    }

    fn fault(top: usize) -> Expected {
        Expected {
            status: Status::Fault,
            failure_mode: Some("policy-drop".to_owned()),
            affected: vec!["fern".to_owned(), "iris".to_owned()],
            device: Vec::new(),
            way: Vec::new(),
            top,
            also: Vec::new(),
        }
    }

    const LAB: &[&str] = &["fern", "iris", "a", "b"];

    fn check(expected: &Expected, answer: &Answer, right: bool, rank: Option<usize>, place: Place) {
        let score = score(expected, answer, LAB);
        assert_eq!(
            (score.right, score.rank, score.place),
            (right, rank, place),
            "{score:?}"
        );
    }

    #[test]
    fn a_fault_is_told_while_it_is_likelier_than_not_wherever() {
        let mut told = answer(Status::Fault, &[("policy-drop", "a", "b")]);
        assert!(fault(1).is_told(&told));
        told.hypotheses[0].confidence = 0.45;
        assert!(!fault(1).is_told(&told));
        assert!(!fault(1).is_told(&answer(Status::Fault, &[("no-route", "fern", "iris")])));
    }

    #[test]
    fn the_expected_mode_first_at_the_right_place_is_right_in_either_direction() {
        let there = answer(Status::Fault, &[("policy-drop", "fern", "iris")]);
        let back = answer(Status::Fault, &[("policy-drop", "iris", "fern")]);
        check(&fault(1), &there, true, Some(1), Place::Exact);
        check(&fault(1), &back, true, Some(1), Place::Exact);
    }

    #[test]
    fn who_drops_on_the_way_must_be_named_where_it_is_expected() {
        let behind = Expected {
            way: vec!["a".to_owned()],
            ..fault(1)
        };
        let mut told = answer(Status::Fault, &[("policy-drop", "fern", "iris")]);
        check(&behind, &told, false, Some(1), Place::Wrong);
        told.hypotheses[0].affected.push(Affected {
            workload: Some("a".to_owned()),
            ..Affected::default()
        });
        check(&behind, &told, true, Some(1), Place::Exact);
        check(&fault(1), &told, true, Some(1), Place::Exact);
    }

    #[test]
    fn second_is_right_only_if_the_scenario_says_so() {
        let second = answer(
            Status::Fault,
            &[
                ("no-listener", "fern", "iris"),
                ("policy-drop", "fern", "iris"),
            ],
        );
        check(&fault(1), &second, false, Some(2), Place::Exact);
        check(&fault(3), &second, true, Some(2), Place::Exact);
    }

    #[test]
    fn the_right_mode_elsewhere_is_wrong_and_an_open_end_is_partial() {
        check(
            &fault(1),
            &answer(Status::Fault, &[("policy-drop", "moss", "iris")]),
            false,
            Some(1),
            Place::Wrong,
        );
        check(
            &fault(1),
            &answer(Status::Fault, &[("policy-drop", "iris", "")]),
            true,
            Some(1),
            Place::Partial,
        );
    }

    #[test]
    fn a_listed_mode_without_the_status_is_not_right() {
        let unsure = answer(Status::Unknown, &[("policy-drop", "fern", "iris")]);
        check(&fault(1), &unsure, false, Some(1), Place::Exact);
    }

    #[test]
    fn a_fault_on_a_healthy_system_is_a_false_alarm() {
        let healthy = Expected::healthy();
        let alarm = score(
            &healthy,
            &answer(Status::Fault, &[("local-loss", "a", "b")]),
            LAB,
        );
        assert!(alarm.false_alarm && !alarm.right);
        let quiet = score(&healthy, &answer(Status::NoNetworkFault, &[]), LAB);
        assert!(!quiet.false_alarm && quiet.right);
        assert_eq!(quiet.got, "no_network_fault");
    }

    #[test]
    fn a_link_is_right_by_the_name_of_either_device() {
        let mut expected = fault(1);
        expected.affected = vec!["fern".to_owned()];
        expected.device = vec!["eth0".to_owned(), "a-fern".to_owned()];
        for (device, place) in [
            (Some("a-fern"), Place::Exact),
            (None, Place::Partial),
            (Some("b-iris"), Place::Wrong),
        ] {
            let mut answer = answer(Status::Fault, &[("policy-drop", "fern", "")]);
            answer.hypotheses[0].affected[0].device = device.map(str::to_owned);
            check(&expected, &answer, place != Place::Wrong, Some(1), place);
        }
    }

    #[test]
    fn of_two_faults_both_must_be_found_in_their_places() {
        let both = Expected {
            also: vec![Fault {
                failure_mode: "dns-servfail".to_owned(),
                affected: vec!["a".to_owned()],
            }],
            ..fault(3)
        };
        let drop = ("policy-drop", "fern", "iris");
        for (second, right) in [
            (("dns-servfail", "a", "b"), true),
            (("dns-servfail", "fern", "b"), false),
            (("dns-slow", "a", "b"), false),
        ] {
            let answer = answer(Status::Fault, &[drop, second]);
            let score = score(&both, &answer, LAB);
            assert_eq!(score.right, right, "{score:?}");
            assert_eq!(both.names(&answer.hypotheses[1]), right, "{second:?}");
        }
    }
}
