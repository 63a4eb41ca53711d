//! Where the series go: Prometheus, or VictoriaMetrics in its place; how it is started, and what it says of its own cost.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::nodes::Nodes;
use super::{Options, PATIENCE};
use crate::process::Program;
use crate::stack::Ports;
use crate::{command, http};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Database {
    Prometheus,
    VictoriaMetrics,
}

/// What it says about itself.
pub(super) struct Own {
    pub(super) version: String,
    pub(super) series: f64,
    pub(super) resident: f64,
    pub(super) cpu: f64,
    pub(super) samples: f64,
    pub(super) queries: f64,
    pub(super) at: Instant,
}

impl Database {
    pub(super) fn start(
        self,
        options: &Options,
        nodes: &Nodes,
        ports: Ports,
        work: &Path,
    ) -> Result<Program> {
        let config = scrape_config(self, options, nodes, work)?;
        let data = work.join("data");
        let port = ports.prometheus();
        let (name, file, ready, mut flags) = match self {
            Self::Prometheus => (
                "prometheus",
                options.programs.prometheus()?,
                "/-/ready",
                vec![
                    format!("--config.file={config}"),
                    format!("--storage.tsdb.path={}", data.display()),
                    format!("--web.listen-address=127.0.0.1:{port}"),
                    "--log.level=warn".to_owned(),
                ],
            ),
            Self::VictoriaMetrics => (
                "victoria-metrics",
                (options.victoria_metrics.clone())
                    .or_else(|| command::find("victoria-metrics"))
                    .context("there is no victoria-metrics in the path: apt-get install victoria-metrics, or pass --victoria-metrics FILE")?,
                "/health",
                vec![
                    format!("-promscrape.config={config}"),
                    format!("-storageDataPath={}", data.display()),
                    format!("-httpListenAddr=127.0.0.1:{port}"),
                    "-retentionPeriod=1d".to_owned(),
                    // Else a question about a moment is answered with what was there half a minute earlier.
                    "-search.latencyOffset=1s".to_owned(),
                    "-loggerLevel=WARN".to_owned(),
                ],
            ),
        };
        flags.extend(options.database_flags.iter().cloned());
        let mut program = Program::start(name, &file, &flags, &work.join(format!("{name}.log")))?;
        program.wait_for(&format!("http://127.0.0.1:{port}{ready}"), PATIENCE)?;
        Ok(program)
    }

    pub(super) fn own(self, ports: Ports) -> Result<Own> {
        // A scrape that is going on is not what is asked about.
        thread::sleep(Duration::from_millis(200));
        let (_, text) = http::get(&format!("http://127.0.0.1:{}/metrics", ports.prometheus()))?;
        let (version, series, samples, queries) = match self {
            Self::Prometheus => (
                ("prometheus_build_info", "version"),
                ("prometheus_tsdb_head_series", ""),
                ("prometheus_tsdb_head_samples_appended_total", ""),
                (
                    "prometheus_http_requests_total",
                    "handler=\"/api/v1/query\"",
                ),
            ),
            Self::VictoriaMetrics => (
                ("vm_app_version", "short_version"),
                ("vm_cache_entries", "type=\"storage/hour_metric_ids\""),
                ("vm_rows_inserted_total", "type=\"promscrape\""),
                ("vm_http_requests_total", "path=\"/api/v1/query\""),
            ),
        };
        let sum = |name, label| sum(&text, name, label);
        Ok(Own {
            version: label(&text, version.0, version.1).unwrap_or_default(),
            series: sum(series.0, series.1),
            resident: sum("process_resident_memory_bytes", ""),
            cpu: sum("process_cpu_seconds_total", ""),
            samples: sum(samples.0, samples.1),
            queries: sum(queries.0, queries.1),
            at: Instant::now(),
        })
    }
}

/// Both read the same file. Returns its path.
fn scrape_config(
    database: Database,
    options: &Options,
    nodes: &Nodes,
    work: &Path,
) -> Result<String> {
    let targets: Vec<Value> = (0..options.nodes)
        .map(|number| {
            json!({"targets": [nodes.address.to_string()],
                "labels": {"__metrics_path__": format!("/{number}"), "instance": format!("node-{number}"), "node": format!("node-{number}")}})
        })
        .collect();
    let list = work.join("targets.json");
    fs::write(&list, serde_json::to_vec(&targets)?)?;
    let query_log = match &options.query_log {
        Some(file) if database == Database::Prometheus => format!(
            ", query_log_file: '{}'",
            std::path::absolute(file)?.display()
        ),
        _ => String::new(),
    };
    let config = work.join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: {0}s, scrape_timeout: {0}s{query_log}}}\nscrape_configs:\n  - job_name: runwire-collector\n    file_sd_configs: [{{files: ['{1}']}}]\n",
            options.interval,
            list.display()
        ),
    )?;
    Ok(config.display().to_string())
}

/// Over the series of a name that carry `label`.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    lines(text, name)
        .filter(|line| line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn label(text: &str, name: &str, label: &str) -> Option<String> {
    let line = lines(text, name).next()?;
    let (_, rest) = line.split_once(&format!("{label}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

fn lines<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(move |line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    })
}
