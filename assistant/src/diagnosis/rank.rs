//! Evidence to ranked hypotheses; pure. Log-odds: the prior, the weights of what is there, caps in code for what is missing
//! or contradicts, and specific causes that absorb the symptoms they produce.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Activity, Evidence, Outcome, Reading, Seen};
use super::place::{Place, Position, Workload};
use super::scope::Scope;
use crate::runbook::{Role, Verdict};

/// Log-odds when all that a mode requires is there.
const REQUIREMENTS_MET: f64 = 4.0;
/// Most that a large effect adds over one that just passes its threshold.
const MOST_FOR_STRENGTH: f64 = 1.0;
/// What support that was measured and is not there takes away, as a part of its weight.
const ABSENT_SUPPORT: f64 = 0.2;
/// What contradicts and is over counts by this part, while the fault itself goes on.
const PAST_CONTRADICTION: f64 = 0.15;
/// A contradiction that could not be looked for.
const UNKNOWN_CONTRADICTION: f64 = 0.2;
/// A weight from which a contradiction is one that caps, rather than a hint.
const CAPPING_WEIGHT: f64 = 2.0;
const QUIET: f64 = 1.5;
const EXPLAINED: f64 = 2.5;

const CAP_UNAVAILABLE: f64 = 0.60;
const CAP_CONTRADICTED: f64 = 0.40;
/// Below one half: what is over is told, but it is not what is wrong now. Restarts end here.
const CAP_QUIET: f64 = 0.45;
const CAP_EXPLAINED: f64 = 0.45;
/// Between two ends that nobody can name: noise of what comes and goes, or nothing anyone could act on.
const CAP_ANONYMOUS: f64 = 0.45;
const CAP: f64 = 0.99;

/// A hypothesis that is likelier than not is the answer.
pub const LIKELY: f64 = 0.5;
/// Below this a hypothesis is noise beside the others.
const WORTH_TELLING: f64 = 0.05;
/// Places of one mode that are worth looking at; a mode with more of them is not about places.
const MAX_PLACES: usize = 256;

/// A failure mode with what was measured for it.
#[derive(Debug, Clone)]
pub struct Mode {
    pub id: String,
    pub verdict: Verdict,
    pub prior: f64,
    pub explains: Vec<String>,
    pub evidence: Vec<Evidence>,
    /// Log-odds from the question's words and the alert's name: enough to order what is equal otherwise.
    pub relevance: f64,
}

/// A mode at a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Index of the mode.
    pub mode: usize,
    pub place: Place,
    pub log_odds: f64,
    pub confidence: f64,
    pub active: bool,
    /// Indices of modes that this one accounts for at its place.
    pub explains: Vec<usize>,
    pub explained: bool,
}

/// A mode that may be, with its places, the strongest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    pub mode: usize,
    pub confidence: f64,
    pub places: Vec<Candidate>,
}

/// Ranks `modes` for `scope`. A mode that is not in the result was checked and is not there.
///
/// `gone` are workloads that were there in the window and are not any more: of them silence says that it is over.
pub fn rank(modes: &[Mode], scope: &Scope, gone: &BTreeSet<Workload>) -> Vec<Hypothesis> {
    let mut candidates = Vec::new();
    for (index, mode) in modes.iter().enumerate() {
        match mode.verdict {
            Verdict::Fault => candidates.extend(at_places(index, mode, gone)),
            Verdict::NoNetworkFault => candidates.extend(over_scope(index, mode, scope)),
        }
    }
    explain_away(modes, &mut candidates);
    candidates.retain(|candidate| in_scope(&modes[candidate.mode], &candidate.place, scope));
    calm_verdicts_yield(modes, &mut candidates);

    let mut by_mode: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_mode.entry(candidate.mode).or_default().push(candidate);
    }
    let mut hypotheses: Vec<Hypothesis> = by_mode
        .into_iter()
        .map(|(mode, mut places)| {
            places.sort_by(stronger);
            let confidence = places[0].confidence;
            places.retain(|place| place.confidence >= confidence / 2.0);
            Hypothesis {
                mode,
                confidence,
                places,
            }
        })
        .collect();
    hypotheses.retain(|hypothesis| hypothesis.confidence >= WORTH_TELLING);
    hypotheses.sort_by(|a, b| {
        stronger(&a.places[0], &b.places[0]).then_with(|| modes[a.mode].id.cmp(&modes[b.mode].id))
    });
    hypotheses
}

/// Whether a mode without a hypothesis could be looked for at all.
pub fn could_be_checked(mode: &Mode) -> bool {
    let measured = |slot: &Vec<&Evidence>| {
        slot.iter()
            .all(|evidence| matches!(&evidence.reading, Ok(reading) if reading.gap.is_none()))
    };
    let slots = slots(mode);
    let missing = |slot: &&Vec<&Evidence>| {
        measured(slot)
            && slot
                .iter()
                .all(|evidence| matches!(&evidence.reading, Ok(reading) if reading.beyond().next().is_none()))
    };
    // One requirement that was measured and is not there is enough to exclude the mode.
    slots.iter().any(|slot| missing(&slot)) || (!slots.is_empty() && slots.iter().all(measured))
}

fn stronger(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.confidence
        .total_cmp(&a.confidence)
        .then_with(|| b.log_odds.total_cmp(&a.log_odds))
        .then_with(|| a.place.cmp(&b.place))
}

/// What a mode requires: each slot by at least one of its members.
fn slots(mode: &Mode) -> Vec<Vec<&Evidence>> {
    let mut slots: Vec<Vec<&Evidence>> = Vec::new();
    for evidence in &mode.evidence {
        if evidence.query.role != Role::Requires {
            continue;
        }
        let group = &evidence.query.group;
        let same = slots
            .iter_mut()
            .find(|slot| group.is_some() && slot[0].query.group == *group);
        match same {
            Some(slot) => slot.push(evidence),
            None => slots.push(vec![evidence]),
        }
    }
    slots
}

fn at_places(index: usize, mode: &Mode, gone: &BTreeSet<Workload>) -> Vec<Candidate> {
    let slots = slots(mode);
    let mut places: Vec<Place> = Vec::new();
    for reading in slots
        .iter()
        .flatten()
        .filter_map(|evidence| evidence.reading.as_ref().ok())
    {
        let mut series: Vec<_> = reading.beyond().collect();
        series.sort_by(|a, b| reading.order(a, b));
        for series in series.into_iter().take(MAX_PLACES) {
            let place = Place::suggested_by(&series.position, reading.at);
            // The direction of the requirement that is named first is the one that is told.
            if !places.contains(&place) && !places.contains(&place.reversed()) {
                places.push(place);
            }
        }
    }
    let candidates: Vec<Candidate> = places
        .into_iter()
        .filter_map(|place| {
            let gone = place.workloads().any(|end| gone.contains(end));
            let mut score = weigh(mode, &slots, gone, |reading| reading.seen_at(&place))?;
            if place.is_anonymous() {
                score.cap = f64::min(score.cap, CAP_ANONYMOUS);
            }
            Some(score.candidate(index, place))
        })
        .collect();
    let refined = |candidate: &Candidate| {
        candidates.iter().any(|other| {
            other.place.refines(&candidate.place)
                || other.place.reversed().refines(&candidate.place)
        })
    };
    candidates
        .iter()
        .filter(|candidate| !refined(candidate))
        .cloned()
        .collect()
}

/// «It is not the network» is said of the whole scope: any symptom in it speaks against.
fn over_scope(index: usize, mode: &Mode, scope: &Scope) -> Option<Candidate> {
    let score = weigh(mode, &slots(mode), false, |reading| {
        reading.seen(|position| position_in_scope(position, reading, scope))
    })?;
    Some(score.candidate(index, Place::ANYWHERE))
}

/// Whether a series is about the scope as a whole. What happens between ends that nobody can name is about nobody's.
pub fn position_in_scope(position: &Position, reading: &Reading, scope: &Scope) -> bool {
    let place = Place::suggested_by(position, reading.at);
    !place.is_anonymous() && scope.contains(&place)
}

struct Score {
    log_odds: f64,
    cap: f64,
    active: bool,
}

impl Score {
    fn candidate(&self, mode: usize, place: Place) -> Candidate {
        Candidate {
            mode,
            place,
            log_odds: self.log_odds,
            confidence: confidence(self.log_odds, self.cap),
            active: self.active,
            explains: Vec::new(),
            explained: false,
        }
    }
}

fn weigh<'a>(
    mode: &'a Mode,
    slots: &[Vec<&'a Evidence>],
    gone: bool,
    look: impl Fn(&'a Reading) -> Seen<'a>,
) -> Option<Score> {
    let observe = |evidence: &'a Evidence| match &evidence.reading {
        Ok(reading) => {
            let seen = look(reading);
            (reading.outcome(&seen), strength(reading, &seen))
        }
        Err(_) => (Outcome::Unavailable, 0.0),
    };

    let mut log_odds = logit(mode.prior) + mode.relevance;
    let mut cap = CAP;
    let mut weakest = f64::INFINITY;
    let (mut now, mut over) = (false, false);
    for slot in slots {
        let best = slot
            .iter()
            .map(|evidence| (observe(evidence), evidence.weight()))
            .max_by(|((a, _), _), ((b, _), _)| preference(*a).cmp(&preference(*b)))?;
        let ((outcome, strength), weight) = best;
        match outcome {
            Outcome::Present(activity) => {
                log_odds += weight;
                weakest = weakest.min(strength);
                now |= activity == Activity::Now || (activity == Activity::Lately && !gone);
                over |= activity == Activity::Over;
            }
            Outcome::Unavailable => cap = f64::min(cap, CAP_UNAVAILABLE),
            Outcome::Absent => return None,
        }
    }
    if weakest == f64::INFINITY {
        return None;
    }
    log_odds += REQUIREMENTS_MET + (0.4 * weakest).clamp(0.0, MOST_FOR_STRENGTH);

    // The requirements must hold together: one that is over while another has just begun is no coincidence to build on.
    let active = now && !over;
    if !active {
        log_odds -= QUIET;
        cap = f64::min(cap, CAP_QUIET);
    }
    for evidence in &mode.evidence {
        let weight = evidence.weight();
        let (outcome, _) = match evidence.query.role {
            Role::Requires => continue,
            Role::Supports | Role::Contradicts => observe(evidence),
        };
        match (evidence.query.role, outcome) {
            (Role::Supports, Outcome::Present(_)) => log_odds += weight,
            (Role::Supports, Outcome::Absent) => log_odds -= ABSENT_SUPPORT * weight,
            (Role::Contradicts, Outcome::Present(activity)) => {
                if active && activity != Activity::Now {
                    log_odds -= PAST_CONTRADICTION * weight;
                } else {
                    log_odds -= weight;
                    if weight >= CAPPING_WEIGHT {
                        cap = f64::min(cap, CAP_CONTRADICTED);
                    }
                }
            }
            (Role::Contradicts, Outcome::Unavailable) => log_odds -= UNKNOWN_CONTRADICTION,
            _ => {}
        }
    }
    Some(Score {
        log_odds,
        cap,
        active,
    })
}

fn strength(reading: &Reading, seen: &Seen<'_>) -> f64 {
    reading
        .shown(seen)
        .1
        .map_or(0.0, |series| reading.expression.strength(series.value))
}

/// Which of several alternatives speaks for the slot.
fn preference(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Present(Activity::Now) => 5,
        Outcome::Present(Activity::Lately) => 4,
        Outcome::Present(Activity::Silent) => 3,
        Outcome::Present(Activity::Over) => 2,
        Outcome::Unavailable => 1,
        Outcome::Absent => 0,
    }
}

/// A specific cause absorbs the modes whose symptoms it produces, where they overlap.
fn explain_away(modes: &[Mode], candidates: &mut [Candidate]) {
    let causes: Vec<Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.confidence >= LIKELY)
        .cloned()
        .collect();
    let explains = |cause: &Candidate, effect: &Candidate| {
        let named = |a: usize, b: usize| modes[a].explains.contains(&modes[b].id);
        // Two that claim each other: the stronger one is right.
        let mutual = named(effect.mode, cause.mode);
        named(cause.mode, effect.mode)
            && cause.mode != effect.mode
            && cause.place.overlaps(&effect.place)
            && !(mutual && stronger(effect, cause).is_lt())
    };
    for effect in candidates.iter_mut() {
        if causes.iter().any(|cause| explains(cause, effect)) {
            effect.explained = true;
        }
    }
    let effects: Vec<Candidate> = candidates.iter().filter(|c| c.explained).cloned().collect();
    for candidate in candidates.iter_mut() {
        if candidate.confidence >= LIKELY {
            let mut explained: Vec<usize> = effects
                .iter()
                .filter(|effect| explains(candidate, effect))
                .map(|effect| effect.mode)
                .collect();
            explained.sort_unstable();
            explained.dedup();
            candidate.explains = explained;
        }
    }
    for effect in candidates
        .iter_mut()
        .filter(|candidate| candidate.explained)
    {
        effect.log_odds -= EXPLAINED;
        effect.confidence = f64::min(
            effect.confidence,
            confidence(effect.log_odds, CAP_EXPLAINED),
        );
    }
}

/// Where a fault is likely, «nothing is wrong» is no hypothesis.
fn calm_verdicts_yield(modes: &[Mode], candidates: &mut Vec<Candidate>) {
    let fault = |candidate: &Candidate| modes[candidate.mode].verdict == Verdict::Fault;
    if candidates
        .iter()
        .any(|candidate| fault(candidate) && candidate.confidence >= LIKELY)
    {
        candidates.retain(fault);
    }
}

/// A place belongs to the scope with one of its ends. One that is a single workload belongs also to the scope of those who
/// are seen to suffer from it: if A times out because B's queue is full, B is the answer for A.
fn in_scope(mode: &Mode, place: &Place, scope: &Scope) -> bool {
    scope.contains(place)
        || sufferers(mode, place)
            .iter()
            .any(|pair| scope.contains(pair))
}

/// The pairs that evidence beyond its threshold names at a place with an open end.
pub fn sufferers(mode: &Mode, place: &Place) -> Vec<Place> {
    let open = place.src.is_none() != place.dst.is_none();
    let mut pairs: Vec<Place> = mode
        .evidence
        .iter()
        .filter(|evidence| open && evidence.query.role != Role::Contradicts)
        .filter_map(|evidence| evidence.reading.as_ref().ok())
        .flat_map(|reading| {
            reading
                .beyond()
                .filter(|series| place.admits(&series.position, reading.at))
                .map(|series| Place::suggested_by(&series.position, reading.at))
        })
        .filter(|pair| pair.src.is_some() && pair.dst.is_some())
        .collect();
    pairs.sort();
    pairs.dedup();
    pairs
}

fn logit(probability: f64) -> f64 {
    let probability = probability.clamp(0.001, 0.999);
    (probability / (1.0 - probability)).ln()
}

fn confidence(log_odds: f64, cap: f64) -> f64 {
    round(f64::min(1.0 / (1.0 + (-log_odds).exp()), cap))
}

fn round(confidence: f64) -> f64 {
    (confidence * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
