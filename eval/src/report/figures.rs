//! Cases → how well the diagnosis is, in numbers; pure. Printed by `sheets`, written as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::calibration::Calibration;
use super::opinion::Opinion;
use super::share::Share;
use super::times::{Asking, Times};
use crate::case::{Case, Kind};
use crate::catalogue::Catalogue;
use crate::score::{Affected, Answer, Place};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) cases: usize,
    /// Faults that no client felt: not scored.
    pub(crate) without_impact: usize,
    /// Cases with another first answer than the right one that names workloads outside their lab.
    pub(crate) disturbed: usize,
    /// Cases with one fault: all, by the family of the mode, by the mode.
    pub(crate) all: Ranks,
    pub(crate) families: BTreeMap<String, Ranks>,
    pub(crate) modes: BTreeMap<String, Ranks>,
    /// Expected family → family that was first → cases.
    pub(crate) confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// Expected mode, what was first instead, and in how many cases.
    pub(crate) confused: Vec<(String, String, usize)>,
    /// The modes of faults that have been made.
    pub(crate) modes_seen: usize,
    pub(crate) modes_declared: usize,
    pub(crate) places: Places,
    pub(crate) two_faults: TwoFaults,
    pub(crate) alarms: Alarms,
    pub(crate) seconds: Times,
    pub(crate) asking: Asking,
    /// How long faults were told after they had been undone.
    pub(crate) told: Times,
    pub(crate) first_hypothesis: Calibration,
    pub(crate) all_hypotheses: Calibration,
    pub(crate) repeatable: Share,
    pub(crate) methods: BTreeMap<String, Method>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Ranks {
    /// The answer says `fault`, and the expected mode is first.
    pub(crate) first: Share,
    pub(crate) among_three: Share,
    /// Right in everything: the mode, its place, nothing said before the fault, the same bytes when asked again.
    pub(crate) right: Share,
}

/// Where the expected mode was among the hypotheses: is its place right?
#[derive(Debug, Default, Serialize)]
pub(crate) struct Places {
    /// All expected ends are named.
    pub(crate) exact: Share,
    /// One end is, and the other is left open.
    pub(crate) partial: Share,
    pub(crate) wrong: Share,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct TwoFaults {
    /// One of the two is first, in its place.
    pub(crate) one_first: Share,
    pub(crate) both_among_three: Share,
    pub(crate) both_among_two: Share,
}

/// A fault was reported, with a confidence of .5 or more.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Alarms {
    pub(crate) before_the_fault: Share,
    /// Healthy systems, one question each, at the end.
    pub(crate) healthy: Share,
    /// Every question that healthy systems were asked.
    pub(crate) healthy_questions: Share,
    /// Faults that are not the network's or not the catalogue's, rightly answered with «no network fault» or «unknown».
    pub(crate) abstained: Share,
}

/// Another way to the answer, on the same data.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Method {
    pub(crate) first: Share,
    pub(crate) among_three: Share,
    /// The family of what it puts first.
    pub(crate) family: Share,
    /// Of questions about systems without a fault of the network: `None` where it never decides.
    pub(crate) false_alarms: Option<Share>,
}

impl Figures {
    pub(crate) fn of(cases: &[Case], catalogue: &Catalogue) -> Self {
        let mut figures = Self {
            cases: cases.len(),
            modes_declared: catalogue.faults().count(),
            ..Self::default()
        };
        let mut confused: BTreeMap<(String, String), usize> = BTreeMap::new();
        let (mut first, mut all) = (Vec::new(), Vec::new());
        let mut seconds = Vec::new();
        let mut told = Vec::new();
        for case in cases {
            figures
                .alarms
                .before_the_fault
                .add(credit(case.before.false_alarm));
            figures.repeatable.add(credit(case.repeatable));
            figures.disturbed += usize::from(!case.after.right && !case.after.elsewhere.is_empty());
            if !case.counts() {
                figures.without_impact += 1;
                continue;
            }
            // What was never told cannot be told too long.
            let mended = case.mended.as_ref().filter(|_| case.after.rank.is_some());
            told.extend(mended.map(|mended| mended.seconds_told));
            let judged = judged(case, catalogue);
            first.extend(judged.first().copied());
            all.extend(judged);
            match case.kind() {
                Kind::Healthy => figures.add_healthy(case),
                Kind::Foreign => {
                    let abstained = !case.after.says_fault();
                    figures.alarms.abstained.add(credit(abstained));
                }
                Kind::Fault if case.expected.also.is_empty() => {
                    seconds.push(case.seconds_to_answer);
                    figures.add_fault(case, catalogue, &mut confused);
                }
                Kind::Fault => figures.add_two(case),
            }
            figures.add_methods(case, catalogue);
        }
        figures.modes_seen = figures.modes.len();
        figures.seconds = Times::of(&seconds);
        figures.told = Times::of(&told);
        figures.asking = Asking::of(cases.iter().flat_map(|case| &case.seconds_asked));
        figures.first_hypothesis = Calibration::of(&first);
        figures.all_hypotheses = Calibration::of(&all);
        figures.confused = confused
            .into_iter()
            .map(|((expected, got), count)| (expected, got, count))
            .collect();
        figures
            .confused
            .sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.cmp(b)));
        figures
    }

    fn add_healthy(&mut self, case: &Case) {
        let alarms = &mut self.alarms;
        alarms.healthy.add(credit(case.after.false_alarm));
        alarms.healthy_questions.part += case.false_alarms as f64;
        alarms.healthy_questions.whole += case.questions;
    }

    fn add_fault(
        &mut self,
        case: &Case,
        catalogue: &Catalogue,
        confused: &mut BTreeMap<(String, String), usize>,
    ) {
        let Some(mode) = &case.expected.failure_mode else {
            return;
        };
        let family = catalogue.family(mode).to_owned();
        for ranks in [
            self.families.entry(family.clone()).or_default(),
            self.modes.entry(mode.clone()).or_default(),
            &mut self.all,
        ] {
            ranks.first.add(credit(is_within(case, 1)));
            ranks.among_three.add(credit(is_within(case, 3)));
            ranks.right.add(credit(case.is_right()));
        }
        let got = case.after.got.as_str();
        let got_family = catalogue.family(got).to_owned();
        let row = self.confusion.entry(family).or_default();
        *row.entry(got_family).or_default() += 1;
        if got != mode {
            *confused.entry((mode.clone(), got.to_owned())).or_default() += 1;
        }
        if case.after.place != Place::NotJudged {
            let is = |place| credit(case.after.place == place);
            self.places.exact.add(is(Place::Exact));
            self.places.partial.add(is(Place::Partial));
            self.places.wrong.add(is(Place::Wrong));
        }
    }

    fn add_two(&mut self, case: &Case) {
        let after = &case.after;
        let own = |top| after.rank.is_some_and(|rank| rank <= top) && after.place != Place::Wrong;
        let both = |top| own(top) && after.also.iter().all(|found| found.is_within(top));
        let one = own(1) || after.also.iter().any(|found| found.is_within(1));
        self.two_faults.one_first.add(credit(one));
        self.two_faults.both_among_two.add(credit(both(2)));
        self.two_faults.both_among_three.add(credit(both(3)));
    }

    fn add_methods(&mut self, case: &Case, catalogue: &Catalogue) {
        if case.baselines.is_empty() {
            return;
        }
        let single = case.kind() == Kind::Fault && case.expected.also.is_empty();
        if let (true, Some(mode)) = (single, &case.expected.failure_mode) {
            let family = catalogue.family(mode);
            let of_family = case.after.says_fault() && catalogue.family(&case.after.got) == family;
            let ours = self.method(OURS);
            ours.first.add(credit(is_within(case, 1)));
            ours.among_three.add(credit(is_within(case, 3)));
            ours.family.add(credit(of_family));
            let random = Opinion::random(catalogue);
            let named = case.baselines.iter();
            let named = named.map(|(name, opinions)| (name.as_str(), &opinions.after));
            for (name, opinion) in named.chain([(RANDOM, &random)]) {
                let method = self.method(name);
                method.first.add(opinion.credit(mode, 1));
                method.among_three.add(opinion.credit(mode, 3));
                method.family.add(opinion.family_credit(family, catalogue));
            }
        }
        let named = case.baselines.iter();
        let named = named
            .map(|(name, opinions)| (name.as_str(), opinions.before.alarm, opinions.after.alarm));
        let ours = (OURS, case.before.false_alarm, case.after.says_fault());
        for (name, before, after) in named.chain([ours]) {
            let alarms = self.method(name).false_alarms.get_or_insert_default();
            alarms.add(credit(before));
            if case.kind() != Kind::Fault {
                alarms.add(credit(after));
            }
        }
    }

    fn method(&mut self, name: &str) -> &mut Method {
        self.methods.entry(name.to_owned()).or_default()
    }
}

/// The names of methods that are not in the cases themselves.
pub(crate) const OURS: &str = "runwire";
const RANDOM: &str = "random";

fn credit(right: bool) -> f64 {
    f64::from(u8::from(right))
}

fn is_within(case: &Case, top: usize) -> bool {
    case.after.says_fault() && case.after.rank.is_some_and(|rank| rank <= top)
}

/// Every hypothesis of the last answer about the lab: its confidence, and whether it is true. «Not the network» is, where it is
/// not. Whether anything is true of others on the machine, nobody knows.
fn judged(case: &Case, catalogue: &Catalogue) -> Vec<(f64, bool)> {
    let Ok(answer) = serde_json::from_value::<Answer>(case.answer.clone()) else {
        return Vec::new();
    };
    let is_calm = |mode: &str| catalogue.modes.get(mode).is_some_and(|mode| !mode.is_fault);
    let is_ours = |name: &String| case.workloads.contains(name);
    answer
        .hypotheses
        .iter()
        .filter(|hypothesis| {
            let mut named = hypothesis.affected.iter().flat_map(Affected::workloads);
            case.workloads.is_empty() || hypothesis.affected.is_empty() || named.any(is_ours)
        })
        .map(|hypothesis| {
            let right = if is_calm(&hypothesis.failure_mode) {
                case.kind() != Kind::Fault
            } else {
                case.expected.names(hypothesis)
            };
            (hypothesis.confidence, right)
        })
        .collect()
}

#[cfg(test)]
mod tests;
