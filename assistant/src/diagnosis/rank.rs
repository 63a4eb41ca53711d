//! Evidence to ranked hypotheses; pure. Log-odds: the prior, the weights of what is there, caps in code for what is missing
//! or contradicts, and specific causes that absorb the symptoms they produce.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{self, Activity, Evidence, Outcome, Reading, Seen};
use super::place::{Place, Position, Workload};
use super::scope::Scope;
use super::topology::Topology;
use crate::runbook::{Role, Separation, Severity, Verdict};

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
/// What a tie-breaker takes from the one that it decides against.
const SEPARATED: f64 = 2.5;
/// What each call between the one who asks and the fault takes away: it may be the origin, and it may be a fault of its own.
const HOP: f64 = 0.5;

/// Below one half: what could not be looked for is not likelier than what was found, and explains nothing away.
const CAP_UNAVAILABLE: f64 = 0.45;
const CAP_CONTRADICTED: f64 = 0.40;
/// A little more than one half: a fault of which what would speak against it was asked for and did not come.
const CAP_UNCHECKED: f64 = 0.6;
/// Below one half: what is over is told, but it is not what is wrong now. Restarts end here.
const CAP_QUIET: f64 = 0.45;
const CAP_EXPLAINED: f64 = 0.45;
const CAP_SEPARATED: f64 = 0.40;
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
    pub severity: Severity,
    pub explains: Vec<String>,
    pub separates_from: Vec<Separation>,
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
    /// Calls between the scope and this place: 0 where it is in the scope, or those in the scope are seen to suffer from it.
    pub hops: usize,
}

/// A mode that may be, with its places, the strongest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    pub mode: usize,
    pub confidence: f64,
    pub places: Vec<Candidate>,
}

/// Ranks `modes` for `scope`. A mode that is not in the result was checked and is not there. What is measured is `fresh`, or tells
/// only of what was before: then it can show a fault, and never that there is none.
pub fn rank(modes: &[Mode], scope: &Scope, topology: &Topology, fresh: bool) -> Vec<Hypothesis> {
    let mut candidates = Vec::new();
    for (index, mode) in modes.iter().enumerate() {
        match mode.verdict {
            Verdict::Fault => candidates.extend(at_places(index, mode, &topology.gone)),
            Verdict::NoNetworkFault => candidates.extend(over_scope(index, mode, scope, fresh)),
        }
    }
    separate(modes, &mut candidates, topology);
    explain_away(modes, &mut candidates, topology);
    let mut candidates = keep_scope(modes, candidates, scope, topology);
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
        let severity = |hypothesis: &Hypothesis| modes[hypothesis.mode].severity;
        b.confidence
            .total_cmp(&a.confidence)
            .then_with(|| severity(b).cmp(&severity(a)))
            .then_with(|| stronger(&a.places[0], &b.places[0]))
            .then_with(|| modes[a.mode].id.cmp(&modes[b.mode].id))
    });
    hypotheses
}

/// Whether a mode without a hypothesis could be looked for at all.
pub fn could_be_checked(mode: &Mode) -> bool {
    // Alternatives that nobody measures are spoken for by those that somebody does.
    let judged = |slot: &Vec<&Evidence>| {
        slot.iter().any(|evidence| evidence.is_measured())
            && slot
                .iter()
                .all(|evidence| evidence.is_measured() || evidence.is_unmeasured())
    };
    let left_out = |slot: &Vec<&Evidence>| {
        slot.iter()
            .all(|evidence| evidence.query.optional && evidence.is_unmeasured())
    };
    let missing = |slot: &Vec<&Evidence>| {
        judged(slot)
            && slot.iter().all(|evidence| {
                matches!(&evidence.reading, Ok(reading) if reading.beyond().next().is_none())
            })
    };
    let slots = slots(mode);
    // One requirement that was measured and is not there is enough to exclude the mode.
    slots.iter().any(missing)
        || (slots.iter().any(judged) && slots.iter().all(|slot| judged(slot) || left_out(slot)))
}

/// Whether a mode needs what not every cluster measures, and this one does not: then nothing is to be said of it.
pub fn is_left_out(mode: &Mode) -> bool {
    let mut required = mode
        .evidence
        .iter()
        .filter(|evidence| evidence.query.role == Role::Requires)
        .peekable();
    required.peek().is_some()
        && required.all(|evidence| evidence.query.optional && evidence.is_unmeasured())
}

fn stronger(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.confidence
        .total_cmp(&a.confidence)
        .then_with(|| b.log_odds.total_cmp(&a.log_odds))
        .then_with(|| a.place.cmp(&b.place))
}

fn slots(mode: &Mode) -> Vec<Vec<&Evidence>> {
    evidence::slots(&mode.evidence, |evidence| &evidence.query)
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
fn over_scope(index: usize, mode: &Mode, scope: &Scope, fresh: bool) -> Option<Candidate> {
    let mut score = weigh(mode, &slots(mode), false, |reading| {
        reading.seen(|position| position_in_scope(position, reading, scope))
    })?;
    if !fresh {
        score.cap = f64::min(score.cap, CAP_UNAVAILABLE);
    }
    Some(score.candidate(index, Place::ANYWHERE))
}

/// Whether a series is about the scope as a whole. What happens between ends that nobody can name is about nobody's.
pub fn position_in_scope(position: &Position, reading: &Reading, scope: &Scope) -> bool {
    let place = Place::suggested_by(position, reading.at);
    !place.is_anonymous() && scope.contains(&place, &reading.topology)
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
            hops: 0,
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
    let (mut now, mut lately, mut ended) = (false, false, false);
    for slot in slots {
        let members: Vec<_> = slot
            .iter()
            .map(|evidence| (*evidence, observe(evidence)))
            .collect();
        let somebody_looked = members
            .iter()
            .any(|(_, (outcome, _))| *outcome != Outcome::Unavailable);
        let silent = |evidence: &Evidence, outcome: Outcome| {
            outcome == Outcome::Unavailable
                && !evidence.failed()
                && (evidence.query.optional || somebody_looked)
        };
        let best = members
            .iter()
            .filter(|(evidence, (outcome, _))| !silent(evidence, *outcome))
            .max_by_key(|(_, (outcome, _))| preference(*outcome));
        // Optional and not measured: the other requirements decide.
        let Some((evidence, (outcome, strength))) = best else {
            continue;
        };
        let (outcome, strength, weight) = (*outcome, *strength, evidence.weight());
        match outcome {
            Outcome::Present(activity) => {
                log_odds += weight;
                weakest = weakest.min(strength);
                now |= activity == Activity::Now;
                lately |= activity == Activity::Lately && !gone;
                ended |= matches!(activity, Activity::Over | Activity::Silent);
            }
            Outcome::Unavailable => cap = f64::min(cap, CAP_UNAVAILABLE),
            Outcome::Absent => return None,
        }
    }
    if weakest == f64::INFINITY {
        return None;
    }
    log_odds += REQUIREMENTS_MET + (0.4 * weakest).clamp(0.0, MOST_FOR_STRENGTH);

    // The requirements must hold together: one that is over, or of which nothing is seen any more, while another has just begun is
    // no coincidence to build on.
    let active = (now || lately) && !ended;
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
                // Of a fault of which a part was only seen lately, what contradicts may be as old.
                if active && !lately && activity != Activity::Now {
                    log_odds -= PAST_CONTRADICTION * weight;
                } else {
                    log_odds -= weight;
                    if weight >= CAPPING_WEIGHT {
                        cap = f64::min(cap, CAP_CONTRADICTED);
                    }
                }
            }
            (Role::Contradicts, Outcome::Unavailable) if !evidence.query.optional => {
                log_odds -= UNKNOWN_CONTRADICTION;
                if evidence.failed() {
                    cap = f64::min(cap, unchecked(mode.verdict, weight));
                }
            }
            _ => {}
        }
    }
    Some(Score {
        log_odds,
        cap,
        active,
    })
}

/// The most that can be said while something that would speak against it was asked for and did not come, as at a deadline:
/// that nothing is wrong cannot be said at all.
fn unchecked(verdict: Verdict, weight: f64) -> f64 {
    match verdict {
        Verdict::Fault if weight >= CAPPING_WEIGHT => CAP_UNCHECKED,
        Verdict::Fault => CAP,
        _ => CAP_UNAVAILABLE,
    }
}

fn strength(reading: &Reading, seen: &Seen<'_>) -> f64 {
    reading
        .shown(seen)
        .1
        .map_or(0.0, |series| reading.strength(series))
}

/// Which of several alternatives speaks for the slot. One that was seen to end knows more than one that has nothing new to judge by.
fn preference(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Present(Activity::Now) => 5,
        Outcome::Present(Activity::Over) => 4,
        Outcome::Present(Activity::Lately) => 3,
        Outcome::Present(Activity::Silent) => 2,
        Outcome::Unavailable => 1,
        Outcome::Absent => 0,
    }
}

/// Applies the tie-breakers of the modes: between two that are possible at one place, the evidence that tells them apart
/// decides, whatever their weights add up to.
fn separate(modes: &[Mode], candidates: &mut [Candidate], topology: &Topology) {
    // Pairs of indices: the one that is decided against, and the other.
    let mut decided: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (one, candidate) in candidates.iter().enumerate() {
        for separation in &modes[candidate.mode].separates_from {
            let Some(own) = speaks_for(&modes[candidate.mode], &separation.by, &candidate.place)
            else {
                continue;
            };
            for (other, rival) in candidates.iter().enumerate() {
                if modes[rival.mode].id == separation.mode
                    && rival.place.overlaps(&candidate.place, topology)
                {
                    decided.insert(if own { (other, one) } else { (one, other) });
                }
            }
        }
    }
    let is_likely: Vec<bool> = candidates
        .iter()
        .map(|candidate| candidate.confidence >= LIKELY)
        .collect();
    let losers: BTreeSet<usize> = decided
        .iter()
        // Runbooks that contradict each other decide nothing, and nothing is lost to what is itself unlikely.
        .filter(|(loser, winner)| !decided.contains(&(*winner, *loser)) && is_likely[*winner])
        .map(|(loser, _)| *loser)
        .collect();
    for loser in losers {
        let candidate = &mut candidates[loser];
        candidate.log_odds -= SEPARATED;
        candidate.confidence = f64::min(
            candidate.confidence,
            confidence(candidate.log_odds, CAP_SEPARATED),
        );
    }
}

/// Whether a piece of evidence speaks for its mode at that place or against it. `None`: nothing is known.
fn speaks_for(mode: &Mode, id: &str, place: &Place) -> Option<bool> {
    let evidence = mode
        .evidence
        .iter()
        .find(|evidence| evidence.query.id == id)?;
    let reading = evidence.reading.as_ref().ok()?;
    let present = match reading.outcome(&reading.seen_at(place)) {
        Outcome::Present(Activity::Now | Activity::Lately) => true,
        Outcome::Present(Activity::Silent | Activity::Over) | Outcome::Unavailable => return None,
        Outcome::Absent => false,
    };
    Some(present == (evidence.query.role != Role::Contradicts))
}

/// For each mode, the modes that it explains: those it names, and those that they explain.
fn explained_by(modes: &[Mode]) -> Vec<BTreeSet<usize>> {
    let index: BTreeMap<&str, usize> = modes
        .iter()
        .enumerate()
        .map(|(index, mode)| (mode.id.as_str(), index))
        .collect();
    let named = |mode: usize| {
        let names = modes[mode].explains.iter();
        names.filter_map(|id| index.get(id.as_str()).copied())
    };
    (0..modes.len())
        .map(|mode| {
            let mut found: BTreeSet<usize> = BTreeSet::new();
            let mut front: Vec<usize> = named(mode).collect();
            while let Some(next) = front.pop() {
                if next != mode && found.insert(next) {
                    front.extend(named(next));
                }
            }
            found
        })
        .collect()
}

/// A specific cause absorbs the modes whose symptoms it produces, where they overlap.
fn explain_away(modes: &[Mode], candidates: &mut [Candidate], topology: &Topology) {
    let explained_by = explained_by(modes);
    let causes: Vec<Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.confidence >= LIKELY)
        .cloned()
        .collect();
    let explains = |cause: &Candidate, effect: &Candidate| {
        let named = |a: usize, b: usize| explained_by[a].contains(&b);
        // Two that claim each other: the stronger one is right.
        let mutual = named(effect.mode, cause.mode);
        named(cause.mode, effect.mode)
            && cause.mode != effect.mode
            && cause.place.overlaps(&effect.place.opened(), topology)
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

/// Keeps what is about the scope. A place belongs to it with one of its ends. One that is a single workload belongs also to
/// the scope of those who are seen to suffer from it: if A times out because B's queue is full, B is the answer for A. And
/// what is likely and lies behind those in the scope, where they call, may be why they are slow: it counts a little less.
fn keep_scope(
    modes: &[Mode],
    candidates: Vec<Candidate>,
    scope: &Scope,
    topology: &Topology,
) -> Vec<Candidate> {
    let asked = scope.workloads(topology);
    let behind = topology.behind(&asked);
    let mut kept = Vec::new();
    for mut candidate in candidates {
        let place = &candidate.place;
        let suffers = |pair: &Place| scope.contains(pair, topology);
        if suffers(place) || sufferers(&modes[candidate.mode], place).iter().any(suffers) {
            kept.push(candidate);
        } else if candidate.confidence >= LIKELY
            && let Some(hops) = hops(place, &asked, &behind)
        {
            candidate.hops = hops;
            candidate.log_odds -= HOP * hops as f64;
            candidate.confidence =
                f64::min(candidate.confidence, confidence(candidate.log_odds, CAP));
            kept.push(candidate);
        }
    }
    kept
}

/// How many calls away a place is whose every end is one that the asked ones depend on. That somebody else cannot reach one
/// of those is not about them.
fn hops(
    place: &Place,
    asked: &BTreeSet<Workload>,
    behind: &BTreeMap<Workload, usize>,
) -> Option<usize> {
    let mut farthest = None;
    for end in place.workloads().filter(|end| !end.is_anonymous()) {
        match behind.get(end) {
            Some(hops) => farthest = farthest.max(Some(*hops)),
            None if asked.contains(end) => {}
            None => return None,
        }
    }
    farthest
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
                .filter(|series| reading.is_about(place, &series.position))
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
