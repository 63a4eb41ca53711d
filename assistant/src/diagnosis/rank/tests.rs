//! Ranking tables: evidence by hand in, order and confidence out.

use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::diagnosis::evidence::Look;
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
            }
        })
        .collect()
}

fn evidence(role: Role, window: &str, recent: &str) -> Evidence {
    let look = |text, seconds| Look {
        query: format!("x[{seconds}s]"),
        length: Duration::from_secs(seconds),
        series: series(text),
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
        },
        reading: Ok(Reading {
            expression: Expression::parse("x > 0.1").unwrap(),
            at: End::Pair,
            window: look(window, 300),
            recent: look(recent, 30),
            unfloored: Vec::new(),
            gap: None,
        }),
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
    evidence.reading.as_mut().unwrap().gap = Some("not measured".into());
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
        explains: Vec::new(),
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
    let table: String = rank(modes, scope, &BTreeSet::new())
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
            unknown-half 0.6 at a → b
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
        ],
        expect![[r#"
            begun 0.862 at a → b
            now 0.862 at a → b
            over 0.45 at a → b (over)
            half-over 0.45 at a → b (over)
            silent 0.45 at a → b (over)
        "#]],
    );
}

#[test]
fn rare_traffic_is_judged_by_its_last_occasion() {
    let rare = |longer: &str| {
        let mut evidence = requires("a>b 9", "");
        let reading = evidence.reading.as_mut().unwrap();
        for series_of in ["", longer] {
            let mut look = reading.recent.clone();
            look.series = series(series_of);
            reading.unfloored.push(look);
        }
        evidence
    };
    let modes = [
        mode("lately", vec![rare("a>b 1")]),
        mode("not-any-more", vec![rare("a>b 0")]),
        mode("no-traffic", vec![rare("")]),
    ];
    check(
        &modes,
        expect![[r#"
        lately 0.928 at a → b
        no-traffic 0.45 at a → b (over)
        not-any-more 0.45 at a → b (over)
    "#]],
    );
    let gone = BTreeSet::from([Workload {
        namespace: "".into(),
        name: "b".into(),
    }]);
    let of_gone = rank(&modes, &Scope::default(), &gone);
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
