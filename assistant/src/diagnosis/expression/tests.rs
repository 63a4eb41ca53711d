use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let outcome = match Expression::parse(text) {
        Ok(expression) => format!(
            "{}\n{}\n{}\n{:?}\n",
            expression.query(Duration::from_secs(30)),
            expression.query_before(Duration::from_secs(300), Duration::from_secs(3600)),
            expression.threshold(),
            expression.metrics(),
        ),
        Err(error) => format!("{error}\n"),
    };
    expected.assert_eq(&outcome);
}

#[test]
fn left_side_window_and_threshold_come_apart() {
    check(
        r#"sum by (src_workload) (rate(a_total{rcode="servfail"}[5m])) / (sum by (src_workload) (rate(b_total[5m])) > 0.02) > 0.01"#,
        expect![[r#"
            sum by (src_workload) (rate(a_total{rcode="servfail"}[30s])) / (sum by (src_workload) (rate(b_total[30s])) > 0.02)
            sum by (src_workload) (rate(a_total{rcode="servfail"}[5m] offset 1h)) / (sum by (src_workload) (rate(b_total[5m] offset 1h)) > 0.02)
            > 0.01
            {"a_total", "b_total"}
        "#]],
    );
    check(
        "(-1 <= (queue{job!~\"a|b\"} offset 5m))",
        expect![[r#"
            queue{job!~"a|b"} offset 5m
            queue{job!~"a|b"} offset 1h5m
            >= -1
            {"queue"}
        "#]],
    );
    check(
        "histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m]))) >= 1e-1",
        expect![[r#"
            histogram_quantile(0.95, sum by (le) (rate(x_bucket[30s])))
            histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m] offset 1h)))
            >= 0.1
            {"x_bucket"}
        "#]],
    );
}

#[test]
fn only_the_placeholder_is_the_window() {
    check(
        "max_over_time(rate(x_total[1m])[5m:10s]) + avg_over_time(y[10m]) > 0",
        expect![[r#"
            max_over_time(rate(x_total[1m])[30s:10s]) + avg_over_time(y[10m])
            max_over_time(rate(x_total[1m])[5m:10s] offset 1h) + avg_over_time(y[10m] offset 1h)
            > 0
            {"x_total", "y"}
        "#]],
    );
}

#[test]
fn the_latest_scrapes_are_as_long_as_they_take() {
    let expression = Expression::parse("rate(x[15s]) / rate(x[5m]) == 0").unwrap();
    let query = Arc::new(expression)
        .with_latest(Duration::from_secs(45))
        .query(Duration::from_secs(60));
    assert_eq!(query, "rate(x[45s]) / rate(x[1m])");
}

#[test]
fn what_cannot_be_evidence_is_refused() {
    check(
        "rate(x[5m])",
        expect![[r#"
        must be a comparison with a number at its top level, as in `rate(x[5m]) > 0.1`
    "#]],
    );
    check(
        "a > b",
        expect![[r#"
        must be a comparison with a number at its top level, as in `rate(x[5m]) > 0.1`
    "#]],
    );
    check(
        "a > 1 and b > 2",
        expect![[r#"
        must be a comparison with a number at its top level, as in `rate(x[5m]) > 0.1`
    "#]],
    );
    check(
        "a > bool 1",
        expect![[r#"
        must compare without `bool`, which would hide the series that are fine
    "#]],
    );
    check(
        "2 > bool 1",
        expect![[r#"
        must compare without `bool`, which would hide the series that are fine
    "#]],
    );
    check(
        "{job=\"x\"} > 1",
        expect![[r#"
        has a selector without a plain metric name: `{job="x"}`
    "#]],
    );
    check(
        &format!("{}a{} > 1", "(".repeat(500), ")".repeat(500)),
        expect![[r#"
        is too long or too deep: at most 8192 characters and 256 operators and brackets
    "#]],
    );
}

#[test]
fn floors_can_be_taken_off() {
    for (text, expected) in [
        ("(a >= 3) / b > 0.1", "(a) / ((b) != 0)"),
        ("((a >= 3) / b or c / 2) > 0.1", "(a) / ((b) != 0) or c / 2"),
        (
            "(rate(a[5m]) and increase(a[5m]) >= 3) > 0.1",
            "rate(a[30s])",
        ),
        ("((3 <= a) / (b > 0.5)) > 0.1", "(a) / (((b)) != 0)"),
        ("(a unless b > 2) > 0.1", "a unless b > 2"),
        (
            "sum by (x) ((a >= 2) and on (x) b) / c > 0.1",
            "sum by (x) ((a) and on (x) b) / ((c) != 0)",
        ),
        (
            "sum(label_join(sum by (x) (a) >= 2, \"y\", \"/\", \"x\")) > 0.1",
            "sum(label_join(sum by (x) (a), \"y\", \"/\", \"x\"))",
        ),
        ("count(a > 2) > 5", "count(a > 2)"),
        (
            "rate(a[5m]) / (rate(b[5m]) > 0.05) > 0.5",
            "rate(a[30s]) / (((clamp_min(rate(b[30s]), 0.05))) != 0)",
        ),
    ] {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(
            expression.query_without_floors(Duration::from_secs(30)),
            expected,
            "{text}"
        );
    }
}

#[test]
fn thresholds_are_applied_to_either_side() {
    let more = Expression::parse("x > 0.1").unwrap();
    assert!(more.holds(0.2) && !more.holds(0.1) && !more.holds(f64::NAN));
    assert!(more.strength(0.2) > more.strength(0.15));
    let less = Expression::parse("x <= 0.1").unwrap();
    assert!(less.holds(0.1) && !less.holds(0.2));
    assert!(less.strength(0.05) > less.strength(0.09));
}

proptest::proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z0-9_ \\[\\](){}<>=!~\"',.+*/%^@:-]{0,200}") {
        if let Ok(expression) = Expression::parse(&format!("x + {text} > 1")) {
            let query = expression.query(Duration::from_secs(60));
            // What is asked is PromQL again.
            proptest::prop_assert!(parser::parse(&query).is_ok(), "{query}");
            let earlier = expression.query_before(Duration::from_secs(60), Duration::from_secs(3600));
            proptest::prop_assert!(parser::parse(&earlier).is_ok(), "{earlier}");
        }
    }
}

#[test]
fn where_it_can_be_is_told_by_pairs() {
    let [window, recent] = [60, 20].map(Duration::from_secs);
    let pairs = |text: &str| {
        let expression = Expression::parse(text).unwrap();
        let floored = expression.query_floored_pairs(&[window, recent]);
        Some([expression.query_spine_pairs(window)?, floored?])
    };
    const BY: &str = "sum by (src_workload, dst_workload)";
    assert_eq!(
        pairs(&format!(
            "({BY} (increase(x[5m])) >= 3) / {BY} (increase(y[5m])) > 0.1"
        )),
        Some([
            "count by (src_workload, dst_workload) ((increase(x[1m])) > 0)".to_owned(),
            format!(
                "count by (src_workload, dst_workload) ((({BY} (increase(x[1m])) >= 3) > 0) or (({BY} (increase(x[20s])) >= 3) > 0))"
            )
        ])
    );
    for text in [
        // Whose clients suffer says nothing of who they are.
        &format!(
            "0 * {BY} (y) + on (dst_workload) group_left () (sum by (dst_workload) (x) >= 3) > 0.1"
        ),
        "sum by (dst_workload) (x) > 1",
        &format!("{BY} (label_replace(x, \"src_workload\", \"$1\", \"pod\", \"(.*)\")) > 1"),
        &format!("{BY} (x) < 1"),
    ] {
        assert_eq!(pairs(text), None, "{text}");
    }
    let near = Expression::parse(&format!("{BY} (x) > 1")).unwrap();
    assert_eq!(
        near.among(&Names::new("a|b").unwrap())
            .map(|near| near.query(Duration::from_secs(1))),
        Some(format!(
            "{BY} (x{{dst_workload=~\"a|b\",src_workload=~\"a|b\"}})"
        ))
    );
}

#[test]
fn labels_of_the_result_are_known_where_it_is_grouped() {
    let labels = |text| {
        Expression::parse(text)
            .unwrap()
            .labels()
            .map(|labels| labels.into_iter().collect::<Vec<_>>().join(","))
    };
    assert_eq!(
        labels("sum by (a, b) (x) / (sum by (a, b) (y) > 1) > 2").as_deref(),
        Some("a,b")
    );
    assert_eq!(
        labels("1 - histogram_quantile(0.9, sum by (le, a) (x)) > 2").as_deref(),
        Some("a")
    );
    assert_eq!(labels("x > 2"), None);
}

#[test]
fn a_level_is_what_no_change_goes_into() {
    let is_level = |text: &str| Expression::parse(text).unwrap().is_level();
    assert!(is_level(
        "max by (a) (avg_over_time(x[5m]) / max_over_time(y[5m])) > 1"
    ));
    for other in [
        "rate(x[5m]) > 1",
        "avg_over_time(x[5m]) / rate(y[5m]) > 1",
        "max_over_time(rate(x[5m])[5m:1m]) > 1",
        "x > 1",
    ] {
        assert!(!is_level(other), "{other}");
    }
}

#[test]
fn a_length_of_time_beyond_all_or_of_nothing_is_an_error() {
    for text in [
        "rate(x[1e30]) > 1",
        "x offset 99999999999999999999 > 1",
        "rate(x[0]) > 1",
        "rate(x[0.0001]) > 1",
    ] {
        assert!(
            matches!(Expression::parse(text), Err(ExpressionError::Syntax(_))),
            "{text}"
        );
    }
}
