//! The panel of a dashboard that shows what a rule is about: the one that has most of its metrics and label values, and little else.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::diagnosis::expression::selected;

/// One panel, as Grafana names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// The dashboard's uid.
    pub dashboard: String,
    pub id: i64,
}

#[derive(Debug, Default)]
pub struct Dashboards(Vec<(Panel, Shown)>);

/// What an expression is about.
#[derive(Debug, Clone, Default)]
struct Shown {
    metrics: BTreeSet<String>,
    /// What labels are compared with: one metric may hold hundreds of the kernel's counters.
    values: BTreeSet<String>,
}

impl Dashboards {
    /// Reads every `*.json` of the folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        let listing = std::fs::read_dir(folder).with_context(|| format!("cannot list {shown}"))?;
        let mut files = listing
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot list {shown}"))?;
        files.sort();
        let mut panels = Vec::new();
        for file in files
            .iter()
            .filter(|file| file.extension().is_some_and(|end| end == "json"))
        {
            let shown = file.display();
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
            let dashboard: Value =
                serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON"))?;
            let uid = dashboard["uid"]
                .as_str()
                .with_context(|| format!("{shown} has no `uid`"))?;
            collect(uid, &dashboard["panels"], &mut panels);
        }
        Ok(Self(panels))
    }

    /// Of panels that are equally near, the first. A rule whose metrics no panel shows has none.
    pub fn panel_for(&self, expression: &str) -> Option<&Panel> {
        let wanted = Shown::by([expression]);
        self.0
            .iter()
            .rev()
            .map(|(panel, shown)| {
                let metrics = wanted.metrics.intersection(&shown.metrics).count();
                let values = wanted.values.intersection(&shown.values).count();
                let others = shown.metrics.len() + shown.values.len() - metrics - values;
                (
                    panel,
                    metrics,
                    (metrics + values, std::cmp::Reverse(others)),
                )
            })
            .filter(|(_, metrics, _)| *metrics > 0)
            .max_by_key(|(.., nearness)| *nearness)
            .map(|(panel, ..)| panel)
    }
}

fn collect(uid: &str, panels: &Value, found: &mut Vec<(Panel, Shown)>) {
    for panel in panels.as_array().into_iter().flatten() {
        // Rows that are folded hold their panels.
        collect(uid, &panel["panels"], found);
        let targets = panel["targets"].as_array().into_iter().flatten();
        let shown = Shown::by(targets.filter_map(|target| target["expr"].as_str()));
        if let (Some(id), false) = (panel["id"].as_i64(), shown.metrics.is_empty()) {
            let dashboard = uid.to_owned();
            found.push((Panel { dashboard, id }, shown));
        }
    }
}

impl Shown {
    fn by<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for expression in expressions {
            all.metrics.extend(metrics(expression));
            // Every second piece stands between quotes.
            let quoted = expression.split('"').skip(1).step_by(2);
            let values = quoted.flat_map(|text| text.split('|'));
            all.values.extend(
                values
                    .filter(|value| !value.contains('$'))
                    .map(str::to_owned),
            );
        }
        all
    }
}

/// The metrics that an expression reads, a histogram's series as one. What does not parse reads none.
fn metrics(expression: &str) -> BTreeSet<String> {
    // Grafana's variables stand where PromQL has durations.
    let mut plain = expression.to_owned();
    for variable in ["$__rate_interval", "$__interval", "$__range", "$window"] {
        plain = plain.replace(variable, "5m");
    }
    let family = |name: String| {
        let of_histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        of_histogram.map(str::to_owned).unwrap_or(name)
    };
    selected(&plain)
        .unwrap_or_default()
        .into_iter()
        .map(family)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_panel_has_most_of_the_metrics_and_few_others() {
        let dashboards = Dashboards(
            [
                (1, "a + b + c"),
                (2, "a"),
                (3, "rate(a[$__rate_interval]) / b"),
                (4, "x{n=~\"$n\"}"),
                (5, "k{counter=\"one\"}"),
                (6, "k{counter=~\"two|three\"}"),
            ]
            .map(|(id, expr)| {
                let dashboard = "d".into();
                (Panel { dashboard, id }, Shown::by([expr]))
            })
            .to_vec(),
        );
        for (expr, id) in [
            ("a > 1", Some(2)),
            ("a / b > 1", Some(3)),
            ("sum(a) + b + c + d > 1", Some(1)),
            ("x > 0", Some(4)),
            ("rate(k{counter=\"three\"}[5m]) > 0", Some(6)),
            ("z > 1", None),
        ] {
            assert_eq!(
                dashboards.panel_for(expr).map(|panel| panel.id),
                id,
                "{expr}"
            );
        }
        assert_eq!(metrics("rate(h_bucket[5m])"), metrics("h_count"));
    }
}
