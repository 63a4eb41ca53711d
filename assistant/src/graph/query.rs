//! PromQL for the graph: one number for each pair of workloads.

use super::Asked;
use super::draw::Totals;
use crate::prometheus::escaped;

pub(super) struct Query {
    pub(super) text: String,
    /// The number that its samples are.
    pub(super) into: fn(&mut Totals) -> &mut f64,
}

const PAIR: &str = "src_namespace, src_workload, src_kind, dst_namespace, dst_workload, dst_kind";

/// What happened from `from` to `to`, to be asked at `to`.
pub(super) fn all(asked: &Asked) -> Vec<Query> {
    let seconds = ((asked.to - asked.from) / 1000).max(1);
    let selectors = selectors(asked);
    let increase = |metric: &str, labels: &str| {
        let of = |selector: &String| {
            format!("sum by ({labels}) (increase({metric}{{{selector}}}[{seconds}s]))")
        };
        selectors.iter().map(of).collect::<Vec<_>>().join(" or ")
    };
    let sum = |metric: &str| increase(metric, PAIR);
    // Both ends count it, where both have a collector.
    let of_a_role = |metric: &str| {
        format!(
            "max by ({PAIR}) ({})",
            increase(metric, &format!("{PAIR}, role"))
        )
    };
    let payload = |protocol: &str| {
        let at = |end: &str| {
            let metric = format!("runwire_{protocol}_bytes_{end}_total");
            format!(
                "label_replace({}, \"end\", \"{end}\", \"\", \"\")",
                sum(&metric)
            )
        };
        format!("max by ({PAIR}) ({} or {})", at("sent"), at("received"))
    };
    let query = |text: String, into: fn(&mut Totals) -> &mut f64| Query { text, into };
    vec![
        query(
            of_a_role("runwire_tcp_connections_opened_total"),
            |totals| totals.opened.get_or_insert_default(),
        ),
        query(sum("runwire_tcp_connect_failures_total"), |totals| {
            totals.failed.get_or_insert_default()
        }),
        query(payload("tcp"), |totals| &mut totals.tcp_payload),
        query(payload("udp"), |totals| &mut totals.udp_payload),
        query(
            of_a_role("runwire_tcp_connection_duration_seconds_sum"),
            |totals| &mut totals.lived.sum,
        ),
        query(
            of_a_role("runwire_tcp_connection_duration_seconds_count"),
            |totals| &mut totals.lived.count,
        ),
        query(sum("runwire_tcp_rtt_seconds_sum"), |totals| {
            &mut totals.round_trips.sum
        }),
        query(sum("runwire_tcp_rtt_seconds_count"), |totals| {
            &mut totals.round_trips.count
        }),
        query(sum("runwire_tcp_retransmitted_segments_total"), |totals| {
            &mut totals.repeated.sum
        }),
        query(sum("runwire_tcp_data_segments_sent_total"), |totals| {
            &mut totals.repeated.count
        }),
    ]
}

/// Series where either end is the one that is asked about.
fn selectors(asked: &Asked) -> Vec<String> {
    let of_end = |end: &str| {
        let labels = [
            ("namespace", &asked.namespace),
            ("workload", &asked.workload),
        ];
        let matchers = labels.iter().filter_map(|(label, value)| {
            let value = value.as_ref()?;
            Some(format!("{end}_{label}=\"{}\"", escaped(value)))
        });
        matchers.collect::<Vec<_>>().join(",")
    };
    match asked.namespace.is_none() && asked.workload.is_none() {
        true => vec![String::new()],
        false => vec![of_end("src"), of_end("dst")],
    }
}

#[cfg(test)]
mod tests {
    use promql_parser::parser;
    use proptest::prelude::*;

    use super::super::Statistic;
    use super::*;

    fn asked(namespace: Option<&str>, workload: Option<&str>) -> Asked {
        Asked {
            namespace: namespace.map(str::to_owned),
            workload: workload.map(str::to_owned),
            include: None,
            exclude: None,
            from: 0,
            to: 300_000,
            limit: 10,
            statistic: Statistic::default(),
        }
    }

    #[test]
    fn a_pair_counts_if_either_end_is_asked_about() {
        let queries = all(&asked(Some("shop"), Some("cart")));
        let opened = &queries[0].text;
        for selector in [
            "{src_namespace=\"shop\",src_workload=\"cart\"}[300s]",
            "{dst_namespace=\"shop\",dst_workload=\"cart\"}[300s]",
        ] {
            assert!(opened.contains(selector), "{opened}");
        }
        assert!(
            all(&asked(None, None))[1]
                .text
                .contains("_failures_total{}[300s]")
        );
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_quotes(name in "[ -~\n]{0,20}") {
            for query in all(&asked(Some(&name), None)) {
                prop_assert!(parser::parse(&query.text).is_ok(), "{}", query.text);
                let inside = query.text.matches("namespace=\"").count();
                prop_assert!(inside >= 2);
            }
        }
    }
}
