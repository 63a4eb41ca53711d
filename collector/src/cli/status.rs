//! `runwire-collector status`: what the running collector measures, as tables.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ArgMatches;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::exposition::samples;
use super::http::get;
use super::listeners::{busy_listeners, listener_rows};
use super::print;
use super::table::{Cell, Colour, cell, coloured, colours, render};
use crate::config::Config;
use crate::export::PREFIX;

/// Over how long rates are measured.
const BETWEEN: Duration = Duration::from_secs(1);

/// What `/readyz` says, as far as it is shown.
#[derive(Deserialize, Serialize)]
struct Health {
    status: String,
    signals: Vec<Signal>,
}

#[derive(Deserialize, Serialize)]
struct Signal {
    name: String,
    state: String,
    reason: Option<String>,
    hooks: Vec<Hook>,
}

#[derive(Deserialize, Serialize)]
struct Hook {
    hook: String,
    attached: bool,
    detail: Option<String>,
}

/// A metric family in an exposition.
#[derive(Clone, Copy, Default, Serialize)]
struct Totals {
    series: f64,
    /// Over all series: of the counters themselves, of the counts of histograms.
    total: Option<f64>,
    per_second: Option<f64>,
}

pub fn status(config: &Config, arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
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
    let exposition = get(config.listen, "/metrics")?;
    let mut after = families(&exposition);
    let seconds = start.elapsed().as_secs_f64();
    for (name, now) in &mut after {
        let then = before.get(name).and_then(|then| then.total).unwrap_or(0.0);
        now.per_second = now.total.map(|total| (total - then) / seconds);
    }
    let (sources, destinations) = ends(&exposition);
    let listeners = busy_listeners(config);

    if arguments.get_flag("json") {
        let status = json!({
            "status": health.status,
            "sources": sources,
            "destinations": destinations,
            "signals": health.signals,
            "listeners": listeners,
            "metrics": after,
        });
        print(status);
    } else {
        let colours = colours();
        print(format_args!(
            "collector on {}: {}; {sources} workloads seen as source, {destinations} as destination\n",
            config.listen, health.status
        ));
        print(format_args!(
            "{}",
            render(&signal_rows(&health.signals), colours)
        ));
        if !listeners.is_empty() {
            print(format_args!(
                "{}",
                render(&listener_rows(&listeners), colours)
            ));
        }
        print(format_args!(
            "{}",
            render(&family_rows(&after), colours).trim_end()
        ));
    }
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

fn family_rows(families: &BTreeMap<String, Totals>) -> Vec<Vec<Cell>> {
    let mut rows = vec![["METRIC", "SERIES", "TOTAL", "PER SECOND"].map(cell).into()];
    for (name, family) in families {
        let rate = match family.per_second {
            None => String::new(),
            Some(0.0) => "0".to_owned(),
            Some(rate) => format!("{rate:.1}"),
        };
        let total = family.total.map(|total| total.to_string());
        rows.push(vec![
            cell(name),
            cell(family.series.to_string()),
            cell(total.unwrap_or_default()),
            cell(rate),
        ]);
    }
    rows
}

/// Families that are measured, from our own exposition.
fn families(exposition: &str) -> BTreeMap<String, Totals> {
    let mut families: BTreeMap<String, Totals> = BTreeMap::new();
    for sample in samples(exposition) {
        if sample.name == "runwire_series" {
            let family = sample.label("metric").unwrap_or_default();
            families.entry(family.to_owned()).or_default().series = sample.value;
            continue;
        }
        let Some(name) = sample.name.strip_prefix(PREFIX) else {
            continue;
        };
        if let Some(family) = (name.strip_suffix("_total")).or_else(|| name.strip_suffix("_count"))
        {
            let total = &mut families.entry(family.to_owned()).or_default().total;
            *total = Some(total.unwrap_or(0.0) + sample.value);
        }
    }
    families
}

/// How many workloads are the source, and how many the destination, of anything.
fn ends(exposition: &str) -> (usize, usize) {
    let (mut sources, mut destinations) = (BTreeSet::new(), BTreeSet::new());
    for sample in samples(exposition) {
        let end = |namespace, workload| Some((sample.label(namespace)?, sample.label(workload)?));
        sources.extend(end("src_namespace", "src_workload"));
        destinations.extend(end("dst_namespace", "dst_workload"));
    }
    (sources.len(), destinations.len())
}

#[test]
fn totals_are_read_from_an_exposition() {
    let families = families(
        "# TYPE runwire_a_total counter\nrunwire_a_total{x=\"1\"} 2\nrunwire_a_total{x=\"2\"} 3\n\
         runwire_b_bucket{le=\"1.0\"} 9\nrunwire_b_count 4\nrunwire_c 5\n\
         runwire_series{metric=\"a\"} 2\nrunwire_series{metric=\"c\"} 1\n",
    );
    let shown: Vec<_> = (families.iter())
        .map(|(name, totals)| (name.as_str(), totals.series, totals.total))
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
