//! `runwire-collector status`: what the running collector measures, as tables.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;

use super::http::get;
use super::table::{Cell, Colour, cell, coloured, colours, render};
use crate::config::Config;
use crate::export::PREFIX;

/// Over how long rates are measured.
const BETWEEN: Duration = Duration::from_secs(1);

/// What `/readyz` says, as far as it is shown.
#[derive(Deserialize)]
struct Health {
    status: String,
    signals: Vec<Signal>,
}

#[derive(Deserialize)]
struct Signal {
    name: String,
    state: String,
    reason: Option<String>,
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
struct Hook {
    hook: String,
    attached: bool,
    detail: Option<String>,
}

/// A metric family in an exposition.
#[derive(Clone, Copy, Default)]
struct Totals {
    series: f64,
    /// Over all series: of the counters themselves, of the counts of histograms.
    sum: Option<f64>,
}

#[expect(clippy::print_stdout, reason = "what the user asked for")]
pub fn status(config: &Config) -> anyhow::Result<ExitCode> {
    let health = get(config.listen, "/readyz")?;
    let health: Health = serde_json::from_str(&health).with_context(|| {
        format!(
            "what {} answers is not a collector's /readyz",
            config.listen
        )
    })?;
    let before = families(&get(config.listen, "/metrics")?);
    let start = Instant::now();
    sleep(BETWEEN);
    let after = families(&get(config.listen, "/metrics")?);
    let seconds = start.elapsed().as_secs_f64();

    let colours = colours();
    println!("collector on {}: {}\n", config.listen, health.status);
    println!("{}", render(&signal_rows(&health.signals), colours));
    println!(
        "{}",
        render(&family_rows(&before, &after, seconds), colours).trim_end()
    );
    Ok(match health.status.as_str() {
        "ready" | "degraded" => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn signal_rows(signals: &[Signal]) -> Vec<Vec<Cell>> {
    let mut rows = vec![["SIGNAL", "STATE", "HOOKS", "WHY"].map(cell).into()];
    for signal in signals {
        let attached = signal.hooks.iter().filter(|hook| hook.attached).count();
        let refused = signal.hooks.iter().find(|hook| !hook.attached);
        let of_hook = |hook: &Hook| {
            let detail = hook.detail.as_deref().unwrap_or("not attached");
            format!("{}: {detail}", hook.hook)
        };
        let colour = match signal.state.as_str() {
            "on" if refused.is_none() => Colour::Good,
            "on" | "off" => Colour::Warn,
            _ => Colour::Bad,
        };
        let why = refused.map(of_hook).or_else(|| signal.reason.clone());
        rows.push(vec![
            cell(&signal.name),
            coloured(&signal.state, colour),
            cell(match signal.hooks.len() {
                0 => "-".to_owned(),
                all => format!("{attached}/{all}"),
            }),
            cell(why.unwrap_or_default()),
        ]);
    }
    rows
}

fn family_rows(
    before: &BTreeMap<String, Totals>,
    after: &BTreeMap<String, Totals>,
    seconds: f64,
) -> Vec<Vec<Cell>> {
    let mut rows = vec![["METRIC", "SERIES", "PER SECOND"].map(cell).into()];
    for (name, now) in after {
        let then = before.get(name).copied().unwrap_or_default();
        let rate = now.sum.map(|sum| (sum - then.sum.unwrap_or(0.0)) / seconds);
        let rate = match rate {
            None => String::new(),
            Some(0.0) => "0".to_owned(),
            Some(rate) => format!("{rate:.1}"),
        };
        rows.push(vec![cell(name), cell(now.series.to_string()), cell(rate)]);
    }
    rows
}

/// Families that are measured, from our own exposition.
fn families(exposition: &str) -> BTreeMap<String, Totals> {
    let mut families: BTreeMap<String, Totals> = BTreeMap::new();
    for line in exposition.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or_default();
        let Ok(value) = value.parse::<f64>() else {
            continue;
        };
        if name == "runwire_series" {
            let family = series.split('"').nth(1).unwrap_or_default();
            families.entry(family.to_owned()).or_default().series = value;
            continue;
        }
        let Some(name) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if let Some(family) = (name.strip_suffix("_total")).or_else(|| name.strip_suffix("_count"))
        {
            let sum = &mut families.entry(family.to_owned()).or_default().sum;
            *sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    families
}

#[test]
fn totals_are_read_from_an_exposition() {
    let families = families(
        "# TYPE runwire_a_total counter\nrunwire_a_total{x=\"1\"} 2\nrunwire_a_total{x=\"2\"} 3\n\
         runwire_b_bucket{le=\"1.0\"} 9\nrunwire_b_count 4\nrunwire_c 5\n\
         runwire_series{metric=\"a\"} 2\nrunwire_series{metric=\"c\"} 1\n",
    );
    let shown: Vec<_> = (families.iter())
        .map(|(name, totals)| (name.as_str(), totals.series, totals.sum))
        .collect();
    assert_eq!(
        shown,
        [
            ("a", 2.0, Some(5.0)),
            ("b", 0.0, Some(4.0)),
            ("c", 1.0, None)
        ]
    );
}
