//! Ranking tables: evidence by hand in, order and confidence out.

use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::diagnosis::evidence::{Gap, Look};
use crate::diagnosis::expression::Expression;
use crate::diagnosis::snapshot::Series;
use crate::runbook::{End, EvidenceQuery};

/// Series as `a>b 0.5` (a pair) or `a 0.5` (an owner), separated by commas.
fn series(text: &str) -> Arc<[Series]> {
    text.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            let (place, value) = text.rsplit_once(' ').unwrap();
            let names: Vec<(&str, &str)> = match place.split_once('>') {
                Some((src, dst)) => vec![("src_workload", src), ("dst_workload", dst)],
                None => vec![("workload", place)],
            };
            let labels: BTreeMap<String, String> = names
                .into_iter()
                .filter(|(_, name)| *name != "_")
                .map(|(label, name)| (label.to_owned(), name.to_owned()))
                .collect();
            Series {
                position: Position::of(&labels),
                labels,
                value: value.parse().unwrap(),
                earlier: None,
            }
        })
        .collect()
}

fn evidence(role: Role, window: &str, recent: &str) -> Evidence {
    let look = |text, seconds| Look {
        query: format!("x[{seconds}s]"),
        length: Duration::from_secs(seconds),
        series: series(text),
        failed: false,
    };
    Evidence {
        query: EvidenceQuery {
            id: "e".into(),
            role,
            title: String::new(),
            expr: "x > 0.1".into(),
            unit: None,
            weight: None,
            at: End::Pair,
            group: None,
            optional: false,
            baseline: None,
        },
        reading: Ok(Reading {
            expression: Arc::new(Expression::parse("x > 0.1").unwrap()),
            at: End::Pair,
            window: look(window, 300),
            recent: look(recent, 30),
            unfloored: Vec::new(),
            gap: None,
            compare: None,
            topology: Arc::default(),
        }),
    }
}

fn workload(name: &str) -> Workload {
    Workload {
        namespace: "".into(),
        name: name.into(),
    }
}

fn scope(name: &str) -> Scope {
    Scope {
        workload: Some(name.into()),
        ..Scope::default()
    }
}

fn requires(window: &str, recent: &str) -> Evidence {
    evidence(Role::Requires, window, recent)
}

fn supports(both: &str) -> Evidence {
    evidence(Role::Supports, both, both)
}

fn contradicts(window: &str, recent: &str) -> Evidence {
    evidence(Role::Contradicts, window, recent)
}

fn unavailable(mut evidence: Evidence) -> Evidence {
    evidence.reading.as_mut().unwrap().gap = Some(Gap::Unmeasured("not measured".into()));
    evidence
}

fn failed(mut evidence: Evidence) -> Evidence {
    evidence.reading.as_mut().unwrap().gap = Some(Gap::Failed("no time".into()));
    evidence
}

fn at(mut evidence: Evidence, end: End) -> Evidence {
    evidence.reading.as_mut().unwrap().at = end;
    evidence
}

fn group(mut evidence: Evidence, name: &str) -> Evidence {
    evidence.query.group = Some(name.into());
    evidence
}

fn mode(id: &str, evidence: Vec<Evidence>) -> Mode {
    Mode {
        id: id.into(),
        verdict: Verdict::Fault,
        prior: 0.05,
        severity: Severity::Warning,
        explains: Vec::new(),
        separates_from: Vec::new(),
        evidence,
        relevance: 0.0,
    }
}

fn explaining(mut mode: Mode, others: &[&str]) -> Mode {
    mode.explains = others.iter().map(|id| (*id).to_owned()).collect();
    mode
}

fn calm(id: &str, evidence: Vec<Evidence>) -> Mode {
    Mode {
        verdict: Verdict::NoNetworkFault,
        ..mode(id, evidence)
    }
}

fn check(modes: &[Mode], expected: Expect) {
    check_in(modes, &Scope::default(), expected);
}

fn check_in(modes: &[Mode], scope: &Scope, expected: Expect) {
    check_with(modes, scope, &Topology::default(), expected);
}

fn check_with(modes: &[Mode], scope: &Scope, topology: &Topology, expected: Expect) {
    let table: String = rank(modes, scope, topology, true)
        .iter()
        .map(|hypothesis| {
            let places: Vec<String> = hypothesis
                .places
                .iter()
                .map(|candidate| candidate.place.to_string())
                .collect();
            format!(
                "{} {} at {}{}\n",
                modes[hypothesis.mode].id,
                hypothesis.confidence,
                places.join(", "),
                if hypothesis.places[0].active {
                    ""
                } else {
                    " (over)"
                }
            )
        })
        .collect();
    expected.assert_eq(&table);
}

#[test]
fn a_mode_needs_all_it_requires_at_one_place() {
    check(
        &[
            mode(
                "both",
                vec![requires("a>b 0.5", "a>b 0.5"), requires("a>b 1", "a>b 1")],
            ),
            mode("one", vec![requires("a>b 0.5", "a>b 0.5")]),
            mode(
                "elsewhere",
                vec![requires("a>b 0.5", "a>b 0.5"), requires("a>c 1", "a>c 1")],
            ),
            mode(
                "backwards",
                vec![requires("a>b 0.5", "a>b 0.5"), requires("b>a 1", "b>a 1")],
            ),
        ],
        expect![[r#"
            backwards 0.937 at a → b
            both 0.937 at a → b
            one 0.9 at a → b
        "#]],
    );
}

#[test]
fn alternatives_need_one_of_the_group() {
    let one = || group(requires("a>b 0.5", "a>b 0.5"), "g");
    let none = || group(requires("a>b 0.01", "a>b 0.01"), "g");
    check(
        &[
            mode("one-of-two", vec![one(), none()]),
            mode("none-of-two", vec![none(), none()]),
        ],
        expect![[r#"
            one-of-two 0.9 at a → b
        "#]],
    );
}

#[test]
fn support_and_contradiction_move_the_confidence() {
    let required = || requires("a>b 0.5", "a>b 0.5");
    check(
        &[
            mode("plain", vec![required()]),
            mode("supported", vec![required(), supports("b>a 1")]),
            mode("support-absent", vec![required(), supports("a>b 0")]),
            mode(
                "contradicted",
                vec![required(), supports("a>b 1"), contradicts("a>b 1", "a>b 1")],
            ),
            mode(
                "contradicted-once",
                vec![required(), contradicts("a>b 1", "a>b 0")],
            ),
            mode(
                "contradicted-elsewhere",
                vec![required(), contradicts("c>d 1", "c>d 1")],
            ),
        ],
        expect![[r#"
            supported 0.961 at a → b
            contradicted-elsewhere 0.9 at a → b
            plain 0.9 at a → b
            support-absent 0.881 at a → b
            contradicted-once 0.852 at a → b
            contradicted 0.4 at a → b
        "#]],
    );
}

#[test]
fn what_is_not_measured_caps_and_never_excludes() {
    check(
        &[
            mode(
                "unknown-half",
                vec![requires("a>b 9", "a>b 9"), unavailable(requires("", ""))],
            ),
            mode("unknown-all", vec![unavailable(requires("", ""))]),
            mode(
                "present-all-the-same",
                vec![unavailable(requires("a>b 9", "a>b 9"))],
            ),
        ],
        expect![[r#"
            present-all-the-same 0.928 at a → b
            unknown-half 0.45 at a → b
        "#]],
    );
}

#[test]
fn what_is_over_ranks_below_what_goes_on() {
    check(
        &[
            mode("over", vec![requires("a>b 9", "a>b 0"), supports("a>b 1")]),
            mode("silent", vec![requires("a>b 9", "")]),
            mode("now", vec![requires("a>b 0.2", "a>b 0.2")]),
            mode("begun", vec![requires("a>b 0.01", "a>b 0.2")]),
            mode(
                "half-over",
                vec![requires("a>b 9", "a>b 9"), requires("a>b 9", "a>b 0")],
            ),
            mode(
                "half-silent",
                vec![requires("a>b 9", "a>b 9"), requires("a>b 9", "")],
            ),
        ],
        expect![[r#"
            begun 0.862 at a → b
            now 0.862 at a → b
            over 0.45 at a → b (over)
            half-over 0.45 at a → b (over)
            half-silent 0.45 at a → b (over)
            silent 0.45 at a → b (over)
        "#]],
    );
}

/// With no traffic of late, and as much as that in the last longer part.
fn rare(longer: &str) -> Evidence {
    let mut evidence = requires("a>b 9", "");
    let reading = evidence.reading.as_mut().unwrap();
    for series_of in ["", longer] {
        let mut look = reading.recent.clone();
        look.series = series(series_of);
        reading.unfloored.push(look);
    }
    evidence
}

#[test]
fn what_contradicts_counts_less_only_where_it_is_older_than_the_fault() {
    let past = || {
        let mut evidence = rare("a>b 1");
        evidence.query.role = Role::Contradicts;
        evidence
    };
    check(
        &[
            mode("now", vec![requires("a>b 9", "a>b 9"), past()]),
            mode("lately", vec![rare("a>b 1"), past()]),
        ],
        expect![[r#"
            now 0.891 at a → b
            lately 0.391 at a → b
        "#]],
    );
}

#[test]
fn rare_traffic_is_judged_by_its_last_occasion() {
    let level = |longer: &str| {
        let mut evidence = rare(longer);
        let expression = Expression::parse("avg_over_time(x[5m]) > 0.1").unwrap();
        evidence.reading.as_mut().unwrap().expression = Arc::new(expression);
        evidence
    };
    let modes = [
        mode("lately", vec![rare("a>b 1")]),
        mode("not-any-more", vec![rare("a>b 0")]),
        mode("no-traffic", vec![rare("")]),
        mode("level-is-gone", vec![level("a>b 1")]),
        mode(
            "its-alternative-ended",
            vec![
                group(rare("a>b 1"), "g"),
                group(requires("a>b 9", "a>b 0"), "g"),
            ],
        ),
    ];
    check(
        &modes,
        expect![[r#"
        lately 0.928 at a → b
        its-alternative-ended 0.45 at a → b (over)
        level-is-gone 0.45 at a → b (over)
        no-traffic 0.45 at a → b (over)
        not-any-more 0.45 at a → b (over)
    "#]],
    );
    let mut topology = Topology::default();
    topology.gone.insert(workload("b"));
    let of_gone = rank(&modes, &Scope::default(), &topology, true);
    assert!(
        of_gone
            .iter()
            .all(|hypothesis| !hypothesis.places[0].active)
    );
}

#[test]
fn a_listener_is_the_place_of_its_clients_trouble() {
    let queue = explaining(
        mode(
            "queue",
            vec![
                at(requires("b 3", "b 3"), End::Dst),
                supports("a>b 1, c>b 1"),
            ],
        ),
        &["slow"],
    );
    let slow = mode(
        "slow",
        vec![requires("a>b 5, c>d 5", "a>b 5, c>d 5"), supports("a>b 1")],
    );
    let client = Scope {
        workload: Some("a".into()),
        ..Scope::default()
    };
    let stranger = Scope {
        workload: Some("z".into()),
        ..Scope::default()
    };
    check(
        &[queue.clone(), slow.clone()],
        expect![[r#"
        queue 0.972 at b
        slow 0.913 at c → d
    "#]],
    );
    check_in(
        &[queue.clone(), slow.clone()],
        &client,
        expect![[r#"
        queue 0.972 at b
        slow 0.45 at a → b
    "#]],
    );
    check_in(&[queue, slow], &stranger, expect![[r#""#]]);
}

#[test]
fn the_more_specific_place_is_told() {
    check(
        &[mode(
            "pair-and-owner",
            vec![
                at(requires("b 3", "b 3"), End::Dst),
                requires("a>b 1, a>c 1", "a>b 1, a>c 1"),
            ],
        )],
        expect![[r#"
            pair-and-owner 0.952 at a → b
        "#]],
    );
}

#[test]
fn health_is_said_of_the_whole_scope() {
    let traffic = "a>b 9, c>d 9";
    let calm = || {
        calm(
            "not-network",
            vec![requires(traffic, traffic), contradicts("a>b 1", "a>b 1")],
        )
    };
    let fault = mode("fault", vec![requires("a>b 9", "a>b 9")]);
    let healthy = Scope {
        workload: Some("c".into()),
        ..Scope::default()
    };
    check(
        &[calm(), fault.clone()],
        expect![[r#"
            fault 0.928 at a → b
        "#]],
    );
    check_in(
        &[calm(), fault],
        &healthy,
        expect![[r#"
        not-network 0.928 at the network as a whole
    "#]],
    );
}

#[test]
fn ends_without_a_name_are_nobody_s_fault() {
    let places = "~unknown>~external 9, ~unknown>b 9, ~host>~external 9";
    check(
        &[
            mode("fault", vec![requires(places, places)]),
            mode(
                "noise",
                vec![requires("~unknown>~unknown 9", "~unknown>~unknown 9")],
            ),
        ],
        expect![[r#"
            fault 0.928 at ~host → ~external, ~unknown → b
            noise 0.45 at ~unknown → ~unknown
        "#]],
    );
    check(
        &[calm(
            "not-network",
            vec![
                requires("a>b 9", "a>b 9"),
                contradicts("~unknown>~other 1", "~unknown>~other 1"),
            ],
        )],
        expect![[r#"
            not-network 0.928 at the network as a whole
        "#]],
    );
}

#[test]
fn two_faults_are_both_told() {
    check(
        &[
            mode("first", vec![requires("a>b 9", "a>b 9")]),
            mode(
                "second",
                vec![requires("c>d 0.3, e>f 0.4", "c>d 0.3, e>f 0.4")],
            ),
        ],
        expect![[r#"
            first 0.928 at a → b
            second 0.892 at e → f, c → d
        "#]],
    );
}

#[test]
fn words_only_order_what_is_equal() {
    let named = |id: &str, value: &str, relevance| Mode {
        relevance,
        ..mode(id, vec![requires(value, value)])
    };
    check(
        &[
            named("a-first-by-name", "a>b 0.5", 0.0),
            named("b-fits-the-question", "a>b 0.5", 0.3),
            named("c-not-there", "a>b 0", 0.5),
        ],
        expect![[r#"
            b-fits-the-question 0.924 at a → b
            a-first-by-name 0.9 at a → b
        "#]],
    );
}

#[test]
fn what_others_measure_is_missed_only_where_nothing_else_was_looked_at() {
    let here = || requires("a>b 0.5", "a>b 0.5");
    let foreign = || unavailable(requires("", ""));
    let optional = |mut evidence: Evidence| {
        evidence.query.optional = true;
        evidence
    };
    let either = |evidence| group(evidence, "g");
    check(
        &[
            mode("plain", vec![here()]),
            mode("foreign", vec![here(), foreign()]),
            mode("optional", vec![here(), optional(foreign())]),
            mode("optional-alone", vec![optional(foreign())]),
            mode("either", vec![either(here()), either(foreign())]),
            mode(
                "neither",
                vec![
                    here(),
                    either(requires("a>b 0", "a>b 0")),
                    either(foreign()),
                ],
            ),
        ],
        expect![[r#"
            either 0.9 at a → b
            optional 0.9 at a → b
            plain 0.9 at a → b
            foreign 0.45 at a → b
        "#]],
    );
}

#[test]
fn a_tie_breaker_decides_between_two_that_are_both_possible() {
    let named = |id: &str, mut evidence: Evidence| {
        evidence.query.id = id.into();
        evidence
    };
    let separating = |mut mode: Mode, from: &str| {
        mode.separates_from = vec![Separation {
            mode: from.into(),
            by: "sign".into(),
        }];
        mode
    };
    let here = || requires("a>b 9", "a>b 9");
    let plain = mode("plain", vec![here(), supports("a>b 1")]);
    let with = |evidence| {
        separating(
            mode("special", vec![here(), named("sign", evidence)]),
            "plain",
        )
    };
    check(
        &[with(supports("a>b 1")), plain.clone()],
        expect![[r#"
        special 0.972 at a → b
        plain 0.4 at a → b
    "#]],
    );
    check(
        &[with(supports("a>b 0")), plain.clone()],
        expect![[r#"
        plain 0.972 at a → b
        special 0.4 at a → b
    "#]],
    );
    check(
        &[with(contradicts("a>b 0", "a>b 0")), plain.clone()],
        expect![[r#"
            special 0.928 at a → b
            plain 0.4 at a → b
        "#]],
    );
    check(
        &[with(unavailable(supports(""))), plain.clone()],
        expect![[r#"
            plain 0.972 at a → b
            special 0.928 at a → b
        "#]],
    );
    // Elsewhere is another fault.
    let elsewhere = mode("plain", vec![requires("c>d 9", "c>d 9")]);
    check(
        &[with(supports("a>b 1")), elsewhere],
        expect![[r#"
        special 0.972 at a → b
        plain 0.928 at c → d
    "#]],
    );
}

#[test]
fn causes_explain_what_their_effects_explain() {
    let here = || vec![requires("a>b 9", "a>b 9")];
    check(
        &[
            explaining(mode("cause", here()), &["effect"]),
            explaining(mode("effect", here()), &["symptom"]),
            mode("symptom", here()),
        ],
        expect![[r#"
            cause 0.928 at a → b
            effect 0.45 at a → b
            symptom 0.45 at a → b
        "#]],
    );
}

#[test]
fn the_origin_is_told_to_those_who_call_through_others() {
    let mut topology = Topology::default();
    for name in ["a", "b", "c", "d", "x"] {
        topology.workloads.insert(workload(name));
    }
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "d"), ("x", "c")] {
        topology.add_call(&workload(from), &workload(to));
    }
    let queue = mode("queue", vec![at(requires("c 9", "c 9"), End::Dst)]);
    let loss = mode("loss", vec![requires("x>c 9, c>b 9", "x>c 9, c>b 9")]);
    let farther = mode("farther", vec![requires("c>d 9", "c>d 9")]);
    let modes = [queue, loss, farther];
    check_with(
        &modes,
        &scope("a"),
        &topology,
        expect![[r#"
        queue 0.826 at c
        loss 0.826 at c → b
    "#]],
    );
    check_with(
        &modes,
        &scope("b"),
        &topology,
        expect![[r#"
        loss 0.928 at c → b
        queue 0.887 at c
        farther 0.826 at c → d
    "#]],
    );
    check_with(
        &modes,
        &scope("d"),
        &topology,
        expect![[r#"
        farther 0.928 at c → d
    "#]],
    );
}

#[test]
fn a_change_is_judged_and_not_the_value() {
    let since = |text: &str, earlier: Option<f64>| {
        let mut evidence = requires(text, text);
        let reading = evidence.reading.as_mut().unwrap();
        reading.compare = Some(crate::runbook::Compare::Ratio);
        reading.expression = Arc::new(Expression::parse("x > 3").unwrap());
        for look in [&mut reading.window, &mut reading.recent] {
            look.series = look
                .series
                .iter()
                .map(|series| Series {
                    earlier: earlier.map(|value| (Duration::from_secs(3600), value)),
                    ..series.clone()
                })
                .collect();
        }
        evidence
    };
    let here = || requires("a>b 9", "a>b 9");
    check(
        &[
            mode("risen", vec![since("a>b 8", Some(1.0))]),
            mode("as-ever", vec![since("a>b 8", Some(7.0))]),
            mode("from-nothing", vec![since("a>b 8", Some(0.0))]),
            mode("nothing-known", vec![here(), since("a>b 8", None)]),
        ],
        expect![[r#"
            risen 0.875 at a → b
            from-nothing 0.826 at a → b
            nothing-known 0.45 at a → b
        "#]],
    );
}

#[test]
fn what_hurts_more_comes_first_where_nothing_else_decides() {
    let mut grave = mode("grave", vec![requires("a>b 9", "a>b 9")]);
    grave.severity = Severity::Critical;
    let light = mode("a-light-one", vec![requires("a>b 9", "a>b 9")]);
    check(
        &[light, grave],
        expect![[r#"
        grave 0.928 at a → b
        a-light-one 0.928 at a → b
    "#]],
    );
}

/// Loss between `a` and an end that cannot be told is what is known of `a` and `b`; between others it is another loss.
#[test]
fn what_cannot_be_placed_is_accounted_for() {
    let jumble = explaining(mode("jumble", vec![requires("a>b 5", "a>b 5")]), &["loss"]);
    let lossy = |pairs: &str| mode("loss", vec![requires(pairs, pairs)]);
    check(
        &[jumble.clone(), lossy("a>~unknown 5")],
        expect![[r#"
        jumble 0.928 at a → b
        loss 0.45 at a → ~unknown
    "#]],
    );
    for elsewhere in ["c>~unknown 5", "a>~external 5"] {
        let ranked = rank(
            &[jumble.clone(), lossy(elsewhere)],
            &Scope::default(),
            &Topology::default(),
            true,
        );
        assert!(ranked[1].confidence > LIKELY, "{elsewhere}");
    }
}

#[test]
fn a_node_is_the_place_of_what_is_measured_at_it() {
    let mut topology = Topology::default();
    topology.add_to_node(&"n1".into(), &workload("a"));
    let topology = Arc::new(topology);
    let mut saturated = at(requires("", ""), End::Node);
    let reading = saturated.reading.as_mut().unwrap();
    reading.topology = topology.clone();
    let labels = BTreeMap::from([("node".to_owned(), "n1".to_owned())]);
    for look in [&mut reading.window, &mut reading.recent] {
        look.series = Arc::new([Series {
            position: Position::of(&labels),
            labels: labels.clone(),
            value: 9.0,
            earlier: None,
        }]);
    }
    let node = explaining(mode("node", vec![saturated]), &["loss"]);
    let loss = mode("loss", vec![requires("a>b 5, c>d 5", "a>b 5, c>d 5")]);
    let modes = [node, loss];
    check_with(
        &modes,
        &Scope::default(),
        &topology,
        expect![[r#"
        node 0.928 at node n1
        loss 0.928 at c → d
    "#]],
    );
    check_with(
        &modes,
        &scope("a"),
        &topology,
        expect![[r#"
        node 0.928 at node n1
        loss 0.45 at a → b
    "#]],
    );
    check_with(
        &modes,
        &scope("c"),
        &topology,
        expect![[r#"
        loss 0.928 at c → d
    "#]],
    );
}

/// A fault that was measured is one; that none was measured lately is no health.
#[test]
fn old_measurements_accuse_and_do_not_acquit() {
    let calm = [calm("none", vec![requires("a->b 1", "a->b 1")])];
    let fault = [mode("m", vec![requires("a->b 1", "a->b 1")])];
    let confidence = |modes: &[Mode], fresh| {
        rank(modes, &Scope::default(), &Topology::default(), fresh)[0].confidence
    };
    assert!(confidence(&calm, true) > CAP_UNAVAILABLE);
    assert_eq!(confidence(&calm, false), CAP_UNAVAILABLE);
    assert_eq!(confidence(&fault, false), confidence(&fault, true));
}

#[test]
fn what_would_speak_against_it_and_did_not_come_leaves_little_more_than_one_half() {
    let here = || requires("a>b 0.5", "a>b 0.5");
    let against = || contradicts("", "");
    let hint = |mut evidence: Evidence| {
        evidence.query.weight = Some(0.5);
        evidence
    };
    check(
        &[
            mode("checked", vec![here(), against()]),
            mode("unchecked", vec![here(), failed(against())]),
            mode("unchecked-hint", vec![here(), failed(hint(against()))]),
            mode("nothing-to-check-by", vec![here(), unavailable(against())]),
        ],
        expect![[r#"
            checked 0.9 at a → b
            nothing-to-check-by 0.881 at a → b
            unchecked-hint 0.881 at a → b
            unchecked 0.6 at a → b
        "#]],
    );
}

#[test]
fn that_nothing_is_wrong_is_not_said_before_all_was_looked_at() {
    let calm = |id: &str, contradiction: Evidence| Mode {
        verdict: Verdict::NoNetworkFault,
        ..mode(id, vec![requires("a>b 9", "a>b 9"), contradiction])
    };
    let hint = || {
        let mut evidence = contradicts("", "");
        evidence.query.weight = Some(0.5);
        evidence
    };
    check(
        &[calm("looked", hint()), calm("did-not-come", failed(hint()))],
        expect![[r#"
            looked 0.928 at the network as a whole
            did-not-come 0.45 at the network as a whole
        "#]],
    );
}
