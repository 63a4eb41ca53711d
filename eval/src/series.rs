//! Raw samples, as Prometheus holds them, and how they are kept in a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::http;

pub(crate) type Labels = BTreeMap<String, String>;

/// One series: milliseconds and values, in order of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// With `__name__`.
    pub(crate) labels: Labels,
    pub(crate) samples: Vec<(i64, f64)>,
}

impl Series {
    pub(crate) fn name(&self) -> &str {
        self.labels.get("__name__").map_or("", String::as_str)
    }

    /// Series of one target are sampled together.
    fn target(&self) -> &str {
        self.labels.get("instance").map_or("", String::as_str)
    }

    fn workloads(&self) -> impl Iterator<Item = &String> {
        ["workload", "src_workload", "dst_workload"]
            .iter()
            .filter_map(|label| self.labels.get(*label))
            .filter(|name| !name.is_empty())
    }

    pub(crate) fn names_workloads(&self) -> bool {
        self.workloads().next().is_some()
    }

    /// Whether it is about the workloads: it names one of them and no other, or none at all. `~host` and its like are not
    /// enough: what else the machine does is not theirs.
    pub(crate) fn is_about(&self, workloads: &[String]) -> bool {
        let mut named = self.workloads().peekable();
        if named.peek().is_none() {
            return true;
        }
        let (others, ours): (Vec<&String>, Vec<&String>) =
            named.partition(|name| !workloads.contains(name));
        !ours.is_empty() && others.iter().all(|name| name.starts_with('~'))
    }
}

#[derive(Deserialize)]
struct Response {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Matrix>,
}

#[derive(Deserialize)]
struct Matrix {
    metric: Labels,
    values: Vec<(f64, String)>,
}

/// All that a collector measured in the `seconds` before `millis`.
pub(crate) fn read(prometheus: &str, millis: i64, seconds: u64) -> Result<Vec<Series>> {
    let query =
        format!("{{__name__=~\"runwire_.*\",__name__!~\"runwire_assistant_.*\"}}[{seconds}s]");
    let time = millis as f64 / 1000.0;
    let (status, body) = http::get(&format!(
        "{prometheus}/api/v1/query?query={}&time={time}",
        http::encoded(&query)
    ))?;
    ensure!(status == 200, "Prometheus answered {status}: {body}");
    let response: Response = serde_json::from_str(&body).context("not an answer of Prometheus")?;
    let series = response.data.result.into_iter().map(|matrix| {
        let samples = matrix
            .values
            .into_iter()
            .filter_map(|(seconds, value)| {
                Some(((seconds * 1000.0).round() as i64, value.parse().ok()?))
            })
            .collect();
        Series {
            labels: matrix.metric,
            samples,
        }
    });
    Ok(series.collect())
}

/// A line for the clock of each target, `[target, first, [differences]]`, then one for each series: labels, the number of its
/// first scrape, and its values as runs. `d` is the difference to the value before, `=v` a value, `_` no sample, `…*n` n times.
pub(crate) fn write(series: &[Series]) -> String {
    let mut clocks: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for one in series {
        let clock = clocks.entry(one.target()).or_default();
        clock.extend(one.samples.iter().map(|(millis, _)| millis));
    }
    let mut text = String::new();
    for (target, clock) in &mut clocks {
        clock.sort_unstable();
        clock.dedup();
        let differences: Vec<i64> = clock.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let _ = writeln!(text, "{}", json!([target, clock[0], differences]));
    }
    let mut lines: Vec<String> = series
        .iter()
        .filter(|one| !one.samples.is_empty())
        .map(|one| {
            let (start, values) = runs(&one.samples, &clocks[one.target()]);
            json!([one.labels, start, values]).to_string()
        })
        .collect();
    lines.sort();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn runs(samples: &[(i64, f64)], clock: &[i64]) -> (usize, String) {
    let index = |millis: i64| clock.binary_search(&millis).unwrap_or_default();
    let start = index(samples[0].0);
    let mut tokens: Vec<(String, usize)> = Vec::new();
    let mut push = |token: String, count: usize| match tokens.last_mut() {
        Some((last, times)) if *last == token => *times += count,
        _ => tokens.push((token, count)),
    };
    let mut before = 0.0;
    let mut next = start;
    for &(millis, value) in samples {
        let at = index(millis);
        if at > next {
            push("_".to_owned(), at - next);
        }
        next = at + 1;
        let difference = value - before;
        // Whole numbers below 2^53 are exact, so that they come back as they were.
        let is_whole = |number: f64| number.fract() == 0.0 && number.abs() < 9e15;
        if is_whole(value) && is_whole(before) {
            push(format!("{difference}"), 1);
        } else if difference == 0.0 {
            push("0".to_owned(), 1);
        } else {
            push(format!("={value}"), 1);
        }
        before = value;
    }
    let shown: Vec<String> = tokens
        .into_iter()
        .map(|(token, times)| {
            if times == 1 {
                token
            } else {
                format!("{token}*{times}")
            }
        })
        .collect();
    (start, shown.join(" "))
}

/// What [`write()`] wrote.
pub(crate) fn parse(text: &str) -> Result<Vec<Series>> {
    let mut clocks: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut series = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = || format!("line {} of a recording", number + 1);
        if line.starts_with("[\"") {
            let (target, first, differences): (String, i64, Vec<i64>) =
                serde_json::from_str(line).with_context(wrong)?;
            let mut clock = vec![first];
            clock.extend(differences.iter().scan(first, |now, step| {
                *now += step;
                Some(*now)
            }));
            clocks.insert(target, clock);
        } else {
            let (labels, start, values): (Labels, usize, String) =
                serde_json::from_str(line).with_context(wrong)?;
            let target = labels.get("instance").map_or("", String::as_str);
            let clock = clocks.get(target).context("no clock").with_context(wrong)?;
            let samples = samples(start, &values, clock).with_context(wrong)?;
            series.push(Series { labels, samples });
        }
    }
    Ok(series)
}

fn samples(start: usize, values: &str, clock: &[i64]) -> Result<Vec<(i64, f64)>> {
    let mut samples = Vec::new();
    let mut now = start;
    let mut value = 0.0;
    for run in values.split_whitespace() {
        let (token, times) = run.split_once('*').unwrap_or((run, "1"));
        for _ in 0..times.parse::<usize>()? {
            if token != "_" {
                value = match token.strip_prefix('=') {
                    Some(absolute) => absolute.parse()?,
                    None => value + token.parse::<f64>()?,
                };
                let millis = clock.get(now).context("more values than scrapes")?;
                samples.push((*millis, value));
            }
            now += 1;
        }
    }
    Ok(samples)
}

/// For `promtool tsdb create-blocks-from openmetrics`, without the end mark.
pub(crate) fn open_metrics(series: &[Series]) -> String {
    let mut text = String::new();
    for one in series {
        let labels: Vec<String> = one
            .labels
            .iter()
            .filter(|(name, _)| *name != "__name__")
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let head = format!("{}{{{}}}", one.name(), labels.join(","));
        for (millis, value) in &one.samples {
            let _ = writeln!(
                text,
                "{head} {value} {}.{:03}",
                millis.div_euclid(1000),
                millis.rem_euclid(1000)
            );
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, samples: &[(i64, f64)]) -> Series {
        Series {
            labels: [
                ("__name__", name),
                ("instance", "a:1"),
                ("workload", "fern"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = [
            series(
                "counter",
                &[(1000, 0.0), (2001, 5.0), (3000, 10.0), (4000, 10.0)],
            ),
            series("gap", &[(2001, 7.0), (4000, -7.5)]),
            series(
                "ratio",
                &[(1000, 0.1), (2001, 0.1), (3000, 3.0), (4000, 1e-9)],
            ),
        ];
        let text = write(&all);
        assert!(text.contains("\"0 5*2 0\""), "{text}");
        assert!(text.contains(",1,\"7 _ =-7.5\""), "{text}");
        assert_eq!(parse(&text).unwrap(), all);
    }

    #[test]
    fn the_text_for_promtool_has_seconds_and_escapes() {
        let mut one = series("up", &[(1500, 1.0)]);
        one.labels.insert("x".to_owned(), "a\"b\\".to_owned());
        assert_eq!(
            open_metrics(&[one]),
            "up{instance=\"a:1\",workload=\"fern\",x=\"a\\\"b\\\\\"} 1 1.500\n"
        );
    }

    #[test]
    fn a_series_of_somebody_else_is_known() {
        let check = |pairs: &[(&str, &str)], expected: bool| {
            let one = Series {
                labels: (pairs.iter())
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                samples: Vec::new(),
            };
            assert_eq!(one.is_about(&["fern".to_owned()]), expected, "{pairs:?}");
        };
        check(&[("workload", "fern")], true);
        check(&[("workload", "moss")], false);
        check(
            &[("src_workload", "fern"), ("dst_workload", "~external")],
            true,
        );
        check(&[("src_workload", "fern"), ("dst_workload", "moss")], false);
        check(
            &[("src_workload", "~host"), ("dst_workload", "~external")],
            false,
        );
        check(&[("cpu", "0")], true);
    }
}
