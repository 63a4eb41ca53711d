//! The state as kube-proxy shows it: Prometheus' text format.

use std::fmt::Write;

use super::state::{Histogram, State};

pub(super) fn text(state: &State) -> String {
    let mut out = String::new();
    histogram(
        &mut out,
        "network_programming_duration_seconds",
        "In Cluster Network Programming Latency in seconds",
        &state.programming,
    );
    histogram(
        &mut out,
        "sync_proxy_rules_duration_seconds",
        "SyncProxyRules latency in seconds",
        &state.writes,
    );
    for (name, kind, help, value) in [
        (
            "endpoint_changes_pending",
            "gauge",
            "Pending proxy rules Endpoint changes",
            state.pending.len().to_string(),
        ),
        (
            "endpoint_changes_total",
            "counter",
            "Cumulative proxy rules Endpoint changes",
            state.changes.to_string(),
        ),
        (
            "last_queued_timestamp_seconds",
            "gauge",
            "The last time a sync of proxy rules was queued",
            state.last_queued.to_string(),
        ),
        (
            "last_timestamp_seconds",
            "gauge",
            "The last time proxy rules were successfully synced",
            state.last_written.to_string(),
        ),
    ] {
        let name = format!("sync_proxy_rules_{name}");
        head(&mut out, &name, kind, help);
        line(&mut out, &name, "", &value);
    }
    out
}

fn histogram(out: &mut String, name: &str, help: &str, histogram: &Histogram) {
    head(out, name, "histogram", help);
    let all = (f64::INFINITY, histogram.count);
    for (bound, count) in histogram.buckets.iter().chain([&all]) {
        let bound = if bound.is_finite() {
            bound.to_string()
        } else {
            "+Inf".to_owned()
        };
        let labels = format!("_bucket{{le=\"{bound}\"}}");
        line(out, name, &labels, &count.to_string());
    }
    line(out, name, "_sum", &histogram.sum.to_string());
    line(out, name, "_count", &histogram.count.to_string());
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "# HELP kubeproxy_{name} [ALPHA] {help}\n# TYPE kubeproxy_{name} {kind}"
    );
}

fn line(out: &mut String, name: &str, rest: &str, value: &str) {
    let _ = writeln!(out, "kubeproxy_{name}{rest} {value}");
}
