use serde_json::{Value, json};

use super::*;
use crate::score::{Expected, score};

/// What is made, whom it hurts, what is answered first with which confidence.
fn case(expected: Expected, answer: Value, felt: bool) -> Case {
    let judged = |expected: &Expected, answer: &Value| {
        score(
            expected,
            &serde_json::from_value(answer.clone()).unwrap(),
            &["a", "b"],
        )
    };
    let healthy = json!({"status": "no_network_fault"});
    Case {
        scenario: "test".to_owned(),
        seed: 1,
        family: "ipv4".to_owned(),
        before: judged(&Expected::healthy(), &healthy),
        after: judged(&expected, &answer),
        expected,
        false_alarms: 0,
        questions: 10,
        seconds_to_answer: Some(3.0),
        seconds_asked: vec![0.1, 0.2],
        mended: None,
        impact: felt.then(|| "errors".to_owned()),
        repeatable: true,
        workloads: vec!["a".to_owned(), "b".to_owned()],
        clients: BTreeMap::new(),
        answer,
        baselines: BTreeMap::new(),
    }
}

fn fault(mode: &str) -> Expected {
    serde_json::from_value(
        json!({"status": "fault", "failure_mode": mode, "affected": ["a", "b"], "top": 1}),
    )
    .unwrap()
}

fn says(hypotheses: &[(&str, f64)]) -> Value {
    let hypotheses: Vec<Value> = hypotheses
        .iter()
        .map(|(mode, confidence)| {
            json!({"failure_mode": mode, "confidence": confidence, "affected": [{"workload": "a", "peer_workload": "b"}]})
        })
        .collect();
    json!({"status": "fault", "hypotheses": hypotheses})
}

fn catalogue() -> Catalogue {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../runbooks");
    Catalogue::read(&folder).unwrap()
}

fn share(part: f64, whole: usize) -> Share {
    Share { part, whole }
}

#[test]
fn faults_count_in_their_family_and_confusions_are_told() {
    let cases = [
        case(fault("dns-slow"), says(&[("dns-slow", 0.9)]), true),
        case(
            fault("dns-slow"),
            says(&[("local-loss", 0.8), ("dns-slow", 0.4)]),
            true,
        ),
        case(fault("policy-drop"), says(&[("policy-drop", 0.9)]), false),
    ];
    let figures = Figures::of(&cases, &catalogue());
    assert_eq!(figures.without_impact, 1);
    assert_eq!(figures.all.first, share(1.0, 2));
    assert_eq!(figures.families["dns"].among_three, share(2.0, 2));
    assert_eq!(figures.confusion["dns"]["loss"], 1);
    assert_eq!(
        figures.confused,
        [("dns-slow".to_owned(), "local-loss".to_owned(), 1)]
    );
    assert_eq!(figures.places.exact, share(2.0, 2));
    assert_eq!(figures.first_hypothesis.hypotheses, 2);
    assert_eq!(figures.all_hypotheses.hypotheses, 3);
}

#[test]
fn an_answer_that_only_lists_the_mode_has_not_said_it() {
    let unsure = json!({"status": "unknown", "hypotheses": [{"failure_mode": "dns-slow", "confidence": 0.4}]});
    let figures = Figures::of(&[case(fault("dns-slow"), unsure, true)], &catalogue());
    assert_eq!(figures.all.among_three, share(0.0, 1));
    assert_eq!(figures.confusion["dns"]["unknown"], 1);
}

#[test]
fn healthy_systems_and_faults_of_others_are_kept_apart() {
    let calm = json!({"status": "no_network_fault", "hypotheses": [{"failure_mode": "not-network", "confidence": 0.9}]});
    let cases = [
        case(Expected::healthy(), calm.clone(), false),
        case(Expected::healthy(), says(&[("local-loss", 0.7)]), false),
        case(Expected::healthy(), calm, true),
    ];
    let figures = Figures::of(&cases, &catalogue());
    assert_eq!(figures.alarms.healthy, share(1.0, 2));
    assert_eq!(figures.alarms.abstained, share(1.0, 1));
    assert_eq!(figures.first_hypothesis.bins.len(), 2);
    assert_eq!(figures.first_hypothesis.bins[1].right, share(2.0, 2));
}

#[test]
fn what_is_said_of_others_on_the_machine_is_not_judged() {
    let mut answer = says(&[("dns-slow", 0.9), ("local-loss", 0.8)]);
    answer["hypotheses"][1]["affected"] =
        json!([{"workload": "~host", "peer_workload": "~external"}]);
    let figures = Figures::of(&[case(fault("dns-slow"), answer, true)], &catalogue());
    assert_eq!(figures.all_hypotheses.hypotheses, 1);
}

#[test]
fn of_two_faults_both_count() {
    let mut expected = fault("dns-slow");
    expected.top = 3;
    expected.also = serde_json::from_value(json!([{"failure_mode": "policy-drop"}])).unwrap();
    let cases = [
        case(
            expected.clone(),
            says(&[("policy-drop", 0.9), ("wire-loss", 0.8), ("dns-slow", 0.7)]),
            true,
        ),
        case(
            expected,
            says(&[("wire-loss", 0.9), ("policy-drop", 0.7)]),
            true,
        ),
    ];
    let figures = Figures::of(&cases, &catalogue());
    assert_eq!(figures.two_faults.one_first, share(1.0, 2));
    assert_eq!(figures.two_faults.both_among_two, share(0.0, 2));
    assert_eq!(figures.two_faults.both_among_three, share(1.0, 2));
    assert_eq!(figures.all.first.whole, 0);
}

#[test]
fn methods_are_compared_on_the_cases_that_hold_their_word() {
    let mut made = case(fault("dns-slow"), says(&[("dns-slow", 0.9)]), true);
    let opinion = Opinion {
        alarm: true,
        scores: [
            ("dns-slow".to_owned(), 1.0),
            ("dns-servfail".to_owned(), 1.0),
        ]
        .into(),
    };
    made.baselines.insert(
        "rules".to_owned(),
        super::super::opinion::Opinions {
            before: opinion.clone(),
            after: opinion,
        },
    );
    let figures = Figures::of(&[made], &catalogue());
    assert_eq!(figures.methods[OURS].first, share(1.0, 1));
    assert_eq!(figures.methods["rules"].first, share(0.5, 1));
    assert_eq!(figures.methods["rules"].family, share(1.0, 1));
    assert_eq!(figures.methods["rules"].false_alarms, Some(share(1.0, 1)));
    assert!(figures.methods["random"].false_alarms.is_none());
}

#[test]
fn what_is_told_after_it_was_mended_counts_where_it_was_told_at_all() {
    let mended = |expected, answer, seconds_told| Case {
        mended: Some(crate::case::Mended { seconds_told }),
        ..case(expected, answer, true)
    };
    let cases = [
        mended(fault("dns-slow"), says(&[("dns-slow", 0.9)]), Some(30.0)),
        mended(fault("dns-slow"), says(&[("dns-slow", 0.9)]), None),
        mended(fault("dns-slow"), says(&[("local-loss", 0.9)]), Some(1.0)),
        case(fault("dns-slow"), says(&[("dns-slow", 0.9)]), true),
    ];
    let told = Figures::of(&cases, &catalogue()).told;
    assert_eq!((told.longest, told.ever), (Some(30.0), share(1.0, 2)));
}
