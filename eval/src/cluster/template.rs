//! What a collector exported at two moments, as something that goes on; pure.

use std::collections::BTreeMap;
use std::fmt::Write;

pub(crate) struct Template {
    series: Vec<Series>,
    /// Comments of the exposition, by the family that they stand before.
    types: BTreeMap<String, String>,
}

struct Series {
    family: String,
    /// Name and labels, cut where the number of the node goes.
    parts: Vec<String>,
    value: f64,
    /// Of a counter, per second.
    slope: f64,
}

impl Template {
    /// `workloads` get the node's number behind their name.
    pub(crate) fn new(first: &str, second: &str, seconds: f64, workloads: &[String]) -> Self {
        let earlier: BTreeMap<&str, f64> = first.lines().filter_map(sample).collect();
        let mut types = BTreeMap::new();
        for line in second.lines() {
            if let Some((name, kind)) = line
                .strip_prefix("# TYPE ")
                .and_then(|rest| rest.split_once(' '))
            {
                types.insert(name.to_owned(), kind.to_owned());
            }
        }
        let series = second.lines().filter_map(sample).map(|(key, value)| {
            let name = key.split('{').next().unwrap_or(key);
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| types.contains_key(*family))
                .unwrap_or(name);
            let is_gauge = types.get(family).is_some_and(|kind| kind == "gauge");
            // A series that was not there yet grew from nothing.
            let before = earlier.get(key).copied().unwrap_or(0.0);
            Series {
                family: family.to_owned(),
                parts: cut(key, workloads),
                value,
                slope: if is_gauge {
                    0.0
                } else {
                    (value - before) / seconds
                },
            }
        });
        Self {
            series: series.collect(),
            types,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// The exposition of a node, `seconds` after the second moment.
    pub(crate) fn text(&self, node: usize, seconds: f64) -> String {
        let node = node.to_string();
        let mut text = String::with_capacity(self.series.len() * 160);
        let mut family = "";
        for series in &self.series {
            if series.family != family {
                family = &series.family;
                if let Some(kind) = self.types.get(family) {
                    let _ = writeln!(text, "# TYPE {family} {kind}");
                }
            }
            let value = series.value + (series.slope * seconds).floor();
            let _ = writeln!(text, "{} {value}", series.parts.join(&node));
        }
        text
    }
}

fn sample(line: &str) -> Option<(&str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (key, value) = line.rsplit_once(' ')?;
    Some((key, value.parse().ok()?))
}

/// Splits at the end of each label value that is the name of a workload.
fn cut(key: &str, workloads: &[String]) -> Vec<String> {
    let mut parts = vec![String::new()];
    for (index, piece) in key.split('"').enumerate() {
        let is_value = index % 2 == 1;
        let last = parts.last_mut().expect("never empty");
        if index > 0 {
            last.push('"');
        }
        last.push_str(piece);
        if is_value && workloads.iter().any(|name| name == piece) {
            last.push('-');
            parts.push(String::new());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str =
        "# TYPE a_total counter\na_total{src=\"web\",dst=\"~external\"} 5\n# TYPE up gauge\nup 3\n";
    const SECOND: &str = "# TYPE a_total counter\na_total{src=\"web\",dst=\"~external\"} 25\na_total{src=\"db\",dst=\"web\"} 10\n# TYPE up gauge\nup 7\n";

    #[test]
    fn counters_go_on_gauges_stay_and_workloads_have_the_nodes_number() {
        let template = Template::new(FIRST, SECOND, 10.0, &["web".to_owned(), "db".to_owned()]);
        let expected = "# TYPE a_total counter\na_total{src=\"web-4\",dst=\"~external\"} 65\na_total{src=\"db-4\",dst=\"web-4\"} 30\n# TYPE up gauge\nup 7\n";
        assert_eq!(template.text(4, 20.0), expected);
        assert_eq!(template.len(), 3);
    }
}
