//! The answer in a few sentences.

use promql_parser::util::duration::display_duration;

use super::{Findings, Sign, look, way};
use crate::diagnosis::evidence::Outcome;
use crate::diagnosis::place::Place;
use crate::diagnosis::rank::{self, Candidate, LIKELY, Mode};
use crate::diagnosis::response::Status;
use crate::diagnosis::words;
use crate::runbook::{Role, Verdict};

impl Findings<'_> {
    pub(super) fn summary(&self, status: Status, signs: &[Sign<'_>]) -> String {
        match status {
            Status::Fault => self.fault_summary(),
            Status::NoNetworkFault => self.calm_summary(),
            Status::Unknown => self.unknown_summary(signs),
        }
    }

    fn fault_summary(&self) -> String {
        let Some(hypothesis) = self
            .hypotheses
            .iter()
            .find(|hypothesis| self.modes[hypothesis.mode].verdict == Verdict::Fault)
        else {
            return String::new();
        };
        let mode = &self.modes[hypothesis.mode];
        let best = &hypothesis.places[0];
        let (_, page) = &self.pages[hypothesis.mode];
        let mut sentences = vec![format!("{}: {}.", best.place, words::inside(&page.title))];
        if best.hops > 0 {
            sentences.push(format!(
                "{} depends on it: nothing is wrong nearer by.",
                self.scope.describe()
            ));
        }
        let spots: Vec<String> = way::spots(mode, &best.place)
            .iter()
            .map(way::Spot::in_words)
            .collect();
        if !spots.is_empty() {
            sentences.push(format!("Where: {}.", spots.join(", ")));
        }
        let numbers = self.decisive_numbers(mode, best);
        if !numbers.is_empty() {
            sentences.push(format!("{}.", numbers.join("; ")));
        }
        let also: Vec<String> = self
            .hypotheses
            .iter()
            .filter(|other| other.mode != hypothesis.mode && other.confidence >= LIKELY)
            .filter(|other| self.modes[other.mode].verdict == Verdict::Fault)
            .map(|other| {
                let title = words::inside(&self.pages[other.mode].1.title);
                format!("{title} ({})", other.places[0].place)
            })
            .collect();
        if !also.is_empty() {
            sentences.push(format!("Also likely: {}.", also.join("; ")));
        }
        sentences.join(" ")
    }

    /// The values of what the mode requires, as a person would say them.
    fn decisive_numbers(&self, mode: &Mode, place: &Candidate) -> Vec<String> {
        mode.evidence
            .iter()
            .filter(|evidence| evidence.query.role == Role::Requires)
            .filter_map(|evidence| {
                let reading = evidence.reading.as_ref().ok()?;
                let seen = look(mode, reading, place, self.scope);
                if !matches!(reading.outcome(&seen), Outcome::Present(_)) {
                    return None;
                }
                let series = reading.shown(&seen).1?;
                Some(words::value_in_words(
                    &evidence.query,
                    reading,
                    series.value,
                ))
            })
            .take(3)
            .collect()
    }

    fn calm_summary(&self) -> String {
        let looked = self
            .modes
            .iter()
            .filter(|mode| mode.verdict == Verdict::Fault && rank::could_be_checked(mode))
            .count();
        let mut summary = format!(
            "No network fault found for {} over the last {}. {looked} of {} failure modes could be checked, and none of them is there now.",
            self.scope.describe(),
            display_duration(&self.question.window),
            self.modes
                .iter()
                .filter(|mode| mode.verdict == Verdict::Fault)
                .count(),
        );
        let past = self
            .hypotheses
            .iter()
            .find(|hypothesis| !hypothesis.places[0].active && hypothesis.confidence >= 0.2);
        if let Some(past) = past {
            summary += &format!(
                " It was there earlier in this time and is over: {} ({}).",
                words::inside(&self.pages[past.mode].1.title),
                past.places[0].place
            );
        }
        summary
    }

    fn unknown_summary(&self, signs: &[Sign<'_>]) -> String {
        if let Some(outage) = &self.facts.outage {
            return format!(
                "It cannot be told what is wrong, because no live numbers could be had: {outage}. The passages below are what the runbooks say about the question."
            );
        }
        if self.lost {
            return format!(
                "Nothing is known of {}: no series has that name, so nothing was checked.",
                self.scope.describe()
            );
        }
        if let Some(sign) = signs.first() {
            let place = Place::suggested_by(&sign.series.position, sign.reading.at);
            let number = words::quantity(sign.series.value, sign.symptom.unit.as_deref());
            return format!(
                "Something is wrong at {place}, and no failure mode explains it with confidence. The clearest sign: {}, {number}.",
                words::inside(&sign.symptom.title),
            );
        }
        format!(
            "It cannot be told: over the last {} too little was measured for {} to find a fault or to exclude one.",
            display_duration(&self.question.window),
            self.scope.describe()
        )
    }
}
