//! `rules`: alerting rules from the runbooks, for Prometheus or for Grafana: one for each failure mode and symptom, each with
//! its `runbook_url` and the panel that shows its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::print;
use crate::config::{Config, ConfigError, Settings};
use crate::diagnosis::expression::Expression;
use crate::retrieval::url as address;
use crate::runbook::{
    Compare, End, EvidenceQuery, FailureMode, Library, Role, Runbook, Severity, Verdict, load,
};

pub mod dashboards;
pub mod grafana;

use dashboards::{Dashboards, Panel};

/// Where the repository and the packages have the dashboards.
const DASHBOARD_FOLDERS: [&str; 2] = ["dashboards", "/usr/share/runwire/dashboards"];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whose rules to write
    #[arg(long, value_name = "FORMAT", default_value = "prometheus")]
    format: Format,

    /// How long a condition must hold before its alert fires
    #[arg(long = "for", value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    hold: Duration,

    /// How often Prometheus scrapes the collectors: `[15s]`, the latest three scrapes, becomes as long as they take
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
    scrape_interval: Duration,

    /// Address of Grafana, for links to dashboards
    #[arg(
        long,
        env = "RUNWIRE_GRAFANA",
        value_name = "URL",
        default_value = "http://127.0.0.1:3000"
    )]
    grafana: String,

    /// Folder of the dashboards that rules link to [default: dashboards, then /usr/share/runwire/dashboards]
    #[arg(long, env = "RUNWIRE_DASHBOARDS", value_name = "DIR")]
    dashboards: Option<PathBuf>,

    /// For Grafana: the uid of the Prometheus that it evaluates rules with
    #[arg(long, value_name = "UID", default_value = "prometheus")]
    datasource: String,

    /// For Grafana: the folder that rules go into
    #[arg(long, value_name = "NAME", default_value = "Runwire")]
    folder: String,

    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A rule file of Prometheus
    Prometheus,
    /// A file for Grafana's provisioning/alerting folder
    Grafana,
}

/// Where links lead: both without a slash at the end.
#[derive(Debug)]
pub struct Links<'a> {
    pub assistant: &'a str,
    pub grafana: &'a str,
    pub dashboards: &'a Dashboards,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(arguments.settings, "error")?;
    let library = load(&config.runbooks);
    let latest = latest(arguments.scrape_interval);
    let hold = promql_parser::util::duration::display_duration(&arguments.hold);
    let folder = match arguments.dashboards {
        Some(folder) if !folder.is_dir() => {
            let reason = format!(
                "names {}, which is not a folder; give a folder of dashboards in JSON",
                folder.display()
            );
            return Err(ConfigError::value("dashboards", reason).into());
        }
        Some(folder) => Some(folder),
        None => DASHBOARD_FOLDERS
            .iter()
            .map(PathBuf::from)
            .find(|folder| folder.is_dir()),
    };
    let dashboards = match folder {
        Some(folder) => Dashboards::read(&folder)?,
        None => Dashboards::default(),
    };
    let rules = rules(
        &library,
        &Links {
            assistant: &config.external_url,
            grafana: arguments.grafana.trim_end_matches('/'),
            dashboards: &dashboards,
        },
        &hold,
        latest,
    );
    let yaml = match arguments.format {
        Format::Prometheus => serde_yaml_ng::to_string(&rules),
        Format::Grafana => {
            let provisioning =
                grafana::provisioning(&rules, &arguments.datasource, &arguments.folder);
            serde_yaml_ng::to_string(&provisioning)
        }
    };
    let yaml = yaml.context("cannot write the rules as YAML")?;
    print(&yaml)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
pub struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
struct Rule {
    alert: String,
    expr: String,
    r#for: String,
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    /// What the rule is about.
    #[serde(skip)]
    id: String,
    #[serde(skip)]
    panel: Option<Panel>,
}

/// How long three scrapes take, as a diagnosis reckons it.
pub fn latest(scrape_interval: Duration) -> Duration {
    let three = scrape_interval.saturating_mul(3);
    three.max(Duration::from_secs(5))
}

/// The rules of all pages. `hold` is how long a condition must be there, as Prometheus writes durations; `latest` is how long the
/// latest three scrapes take.
pub fn rules(library: &Library, links: &Links<'_>, hold: &str, latest: Duration) -> Rules {
    let base = links.assistant;
    let mut modes = Vec::new();
    let mut symptoms = Vec::new();
    let mut forecasts = Vec::new();
    for runbook in &library.runbooks {
        let url = |anchor: &str| match anchor {
            "" => format!("{base}{}", address(&runbook.id)),
            anchor => format!("{base}{}#{anchor}", address(&runbook.id)),
        };
        for mode in &runbook.failure_modes {
            let of_mode = of_mode(mode, latest).filter(|_| mode.verdict == Verdict::Fault);
            let Some((expr, place)) = of_mode else {
                continue;
            };
            let panel = links.dashboards.panel_for(&expr);
            let title = titled(&mode.title, &place);
            let annotations = annotations(title, &mode.summary, url(&mode.anchor));
            modes.push(Rule {
                alert: alert_name(&mode.id),
                expr,
                r#for: hold.to_owned(),
                labels: labels(runbook, severity(mode), &mode.id),
                annotations: with_dashboard(annotations, links.grafana, panel),
                id: mode.id.clone(),
                panel: panel.cloned(),
            });
        }
        for symptom in &runbook.symptoms {
            let Ok(expression) = Expression::parse(&symptom.expr) else {
                continue;
            };
            let panel = links.dashboards.panel_for(&symptom.expr);
            let title = titled(&symptom.title, &place(&expression));
            let annotations = annotations(title, "", url(""));
            let id = format!("symptom-{}", symptom.id);
            symptoms.push(Rule {
                alert: alert_name(&id),
                expr: as_written(&symptom.expr, latest),
                r#for: hold.to_owned(),
                labels: labels(runbook, "info", &symptom.id),
                annotations: with_dashboard(annotations, links.grafana, panel),
                id,
                panel: panel.cloned(),
            });
        }
        for forecast in &runbook.forecasts {
            let Ok(expression) = Expression::parse(&forecast.expr) else {
                continue;
            };
            let panel = links.dashboards.panel_for(&forecast.expr);
            let title = titled(&forecast.title, &place(&expression));
            let annotations = annotations(title, &forecast.summary, url(&forecast.anchor));
            forecasts.push(Rule {
                alert: alert_name(&forecast.id),
                expr: as_written(&forecast.expr, latest),
                r#for: hold.to_owned(),
                labels: labels(runbook, "warning", &forecast.id),
                annotations: with_dashboard(annotations, links.grafana, panel),
                id: forecast.id.clone(),
                panel: panel.cloned(),
            });
        }
    }
    Rules {
        groups: vec![
            Group {
                name: "runwire-failure-modes",
                rules: modes,
            },
            Group {
                name: "runwire-symptoms",
                rules: symptoms,
            },
            Group {
                name: "runwire-forecasts",
                rules: forecasts,
            },
        ],
    }
}

/// `dns-servfail` → `RunwireDnsServfail`
pub fn alert_name(id: &str) -> String {
    let words = id.split(|c: char| !c.is_ascii_alphanumeric());
    let capitalised = words.filter(|word| !word.is_empty()).map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    std::iter::once("Runwire".to_owned())
        .chain(capitalised)
        .collect()
}

fn labels(runbook: &Runbook, severity: &str, id: &str) -> BTreeMap<&'static str, String> {
    let severity = runbook
        .labels
        .get("severity")
        .map_or(severity, String::as_str);
    BTreeMap::from([
        ("severity", severity.to_owned()),
        ("failure_mode", id.to_owned()),
    ])
}

fn severity(mode: &FailureMode) -> &'static str {
    match mode.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// Where the alert is, as a template: by its workloads, or else by its machine. Empty: its labels do not say.
fn place(expression: &Expression) -> String {
    // Labels that are not there are nothing to Prometheus, but words to Grafana: only `with` is the same in both.
    const WORKLOADS: &str = "{{ with $labels.src_workload }}{{ . }} → {{ end }}{{ with $labels.dst_workload }}{{ . }}{{ end }}{{ with $labels.workload }}{{ . }}{{ end }}";
    // Without a grouping all labels are kept.
    let Some(labels) = expression.labels() else {
        return WORKLOADS.into();
    };
    if labels.iter().any(|label| label.ends_with("workload")) {
        return WORKLOADS.into();
    }
    let device = match labels.contains("device") {
        true => "{{ with $labels.device }}{{ . }} of {{ end }}",
        false => "",
    };
    let instance = "{{ with $labels.instance }}{{ . }}{{ end }}";
    match (labels.contains("node"), labels.contains("instance")) {
        (true, true) => format!(
            "{device}{{{{ with $labels.node }}}}{{{{ . }}}}{{{{ else }}}}{instance}{{{{ end }}}}"
        ),
        (true, false) => format!("{device}{{{{ with $labels.node }}}}{{{{ . }}}}{{{{ end }}}}"),
        (false, true) => format!("{device}{instance}"),
        (false, false) => String::new(),
    }
}

fn titled(title: &str, place: &str) -> String {
    match place {
        "" => literal(title),
        place => format!("{} ({place})", literal(title)),
    }
}

fn annotations(summary: String, description: &str, url: String) -> BTreeMap<&'static str, String> {
    let mut annotations = BTreeMap::from([("summary", summary), ("runbook_url", url)]);
    if !description.is_empty() {
        annotations.insert("description", literal(description));
    }
    annotations
}

fn with_dashboard(
    mut annotations: BTreeMap<&'static str, String>,
    grafana: &str,
    panel: Option<&Panel>,
) -> BTreeMap<&'static str, String> {
    if let Some(Panel { dashboard, id }) = panel {
        annotations.insert(
            "dashboard_url",
            format!("{grafana}/d/{dashboard}?viewPanel={id}"),
        );
    }
    annotations
}

/// Annotations are templates; a runbook's text is not.
fn literal(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

/// What a mode requires, as written, each joined to the others by the workloads it is about.
fn of_mode(mode: &FailureMode, latest: Duration) -> Option<(String, String)> {
    let required = |evidence: &&EvidenceQuery| evidence.role == Role::Requires;
    let certain = |evidence: &EvidenceQuery| required(&evidence) && !evidence.optional;
    let any_certain = mode.evidence.iter().any(certain);
    let mut slots: Vec<Vec<&EvidenceQuery>> = Vec::new();
    // What may not be measured would make the alert silent where it is not.
    for evidence in mode
        .evidence
        .iter()
        .filter(required)
        .filter(|evidence| !any_certain || !evidence.optional || evidence.group.is_some())
    {
        match slots
            .iter_mut()
            .find(|slot| evidence.group.is_some() && slot[0].group == evidence.group)
        {
            Some(slot) => slot.push(evidence),
            None => slots.push(vec![evidence]),
        }
    }
    let mut parts = slots
        .iter()
        .map(|slot| Part::of(slot, latest))
        .collect::<Option<Vec<_>>>()?;
    // A pair can be narrowed by what is known of one end, but not the other way round.
    parts.sort_by_key(|part| part.ends != Ends::Pair);
    let mut parts = parts.into_iter();
    let first = parts.next()?;
    let mut expr = first.expr.clone();
    let mut joined = false;
    for part in parts {
        let Some((on, right)) = first.join(&part) else {
            continue;
        };
        let left = if joined { expr } else { format!("({expr})") };
        expr = format!("{left}\nand on ({on})\n{right}");
        joined = true;
    }
    Some((expr, first.place))
}

/// Requirements of one slot as one expression.
struct Part {
    expr: String,
    /// See [`place`].
    place: String,
    ends: Ends,
    at: End,
    labels: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Pair,
    Owner,
    None,
}

impl Part {
    fn of(slot: &[&EvidenceQuery], latest: Duration) -> Option<Self> {
        let parsed = slot
            .iter()
            .map(|evidence| Expression::parse(&evidence.expr).ok())
            .collect::<Option<Vec<_>>>()?;
        let at = slot[0].at;
        let is_machine = matches!(at, End::Node | End::Link);
        let labels: BTreeSet<String> = parsed[0]
            .labels()
            .unwrap_or_default()
            .into_iter()
            .filter(|label| {
                let of_machine = matches!(label.as_str(), "node" | "instance" | "device");
                label.ends_with("namespace")
                    || label.ends_with("workload")
                    || (is_machine && of_machine)
            })
            .collect();
        let ends = if labels
            .iter()
            .any(|label| label.starts_with("src_") || label.starts_with("dst_"))
        {
            Ends::Pair
        } else if labels.contains("workload") {
            Ends::Owner
        } else {
            Ends::None
        };
        let alternatives: Vec<String> = slot
            .iter()
            .zip(&parsed)
            .map(|(evidence, expression)| as_alert(evidence, expression, latest))
            .collect();
        let expr = match alternatives.as_slice() {
            [one] => one.clone(),
            several => {
                let on = list(&labels);
                several
                    .iter()
                    .map(|one| format!("({one})"))
                    .collect::<Vec<_>>()
                    .join(&format!("\nor on ({on})\n"))
            }
        };
        Some(Self {
            expr,
            place: place(&parsed[0]),
            ends,
            at,
            labels,
        })
    }

    /// The labels to join on, and the right side with those labels.
    fn join(&self, other: &Self) -> Option<(String, String)> {
        let common: BTreeSet<String> = self.labels.intersection(&other.labels).cloned().collect();
        if !common.is_empty() && self.ends == other.ends {
            return Some((list(&common), format!("({})", other.expr)));
        }
        if self.ends != Ends::Pair || other.ends != Ends::Owner {
            return None;
        }
        let end = match other.at {
            End::Src => "src",
            End::Dst | End::Pair => "dst",
            // Prometheus does not know here who runs on which node.
            End::Node | End::Link => return None,
        };
        let renamed =
            ["namespace", "workload"]
                .iter()
                .fold(format!("({})", other.expr), |inner, label| {
                    format!(
                        "label_replace({inner}, \"{end}_{label}\", \"$1\", \"{label}\", \"(.*)\")"
                    )
                });
        Some((format!("{end}_namespace, {end}_workload"), renamed))
    }
}

/// The expression as written; of a change, with the nearest time to compare with.
fn as_alert(evidence: &EvidenceQuery, expression: &Expression, latest: Duration) -> String {
    const WINDOW: Duration = Duration::from_secs(300);
    let Some(baseline) = &evidence.baseline else {
        return as_written(&evidence.expr, latest);
    };
    let operator = match baseline.compare {
        Compare::Ratio => "/",
        Compare::Delta => "-",
    };
    let change = format!(
        "(({}) {operator} ({})) {}",
        expression.query(WINDOW),
        expression.query_before(WINDOW, baseline.offsets[0]),
        expression.threshold()
    );
    as_written(&change, latest)
}

/// With its lines as they are, and `[15s]` as long as the latest scrapes take: in Prometheus it would be fifteen seconds, in which
/// there may be one scrape, and of one no rate is told.
fn as_written(expr: &str, latest: Duration) -> String {
    let latest = promql_parser::util::duration::display_duration(&latest);
    expr.trim().replace("[15s]", &format!("[{latest}]"))
}

fn list(labels: &BTreeSet<String>) -> String {
    labels.iter().cloned().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_called_after_their_modes() {
        assert_eq!(alert_name("dns-servfail"), "RunwireDnsServfail");
        assert_eq!(alert_name("l2-mtu-mismatch"), "RunwireL2MtuMismatch");
    }

    #[test]
    fn links_lead_to_pages_whatever_their_files_are_called() {
        let source = "---\nsymptoms: [{id: x, expr: 'up < 1'}]\n---\n# A\n";
        let runbook = crate::runbook::parse("ops/50% full", "p", source.into()).0;
        let library = Library {
            runbooks: vec![std::sync::Arc::new(runbook)],
            warnings: Vec::new(),
        };
        let links = Links {
            assistant: "http://a",
            grafana: "",
            dashboards: &Dashboards::default(),
        };
        let rules = rules(&library, &links, "2m", latest(Duration::from_secs(15)));
        let url = &rules.groups[1].rules[0].annotations["runbook_url"];
        assert_eq!(url, "http://a/runbooks/ops/50%25%20full");
    }

    #[test]
    fn an_alert_names_the_machine_where_no_workload_is_told() {
        for (expr, words) in [
            (
                "sum by (src_workload, dst_workload) (x) > 1",
                "$labels.src_workload",
            ),
            ("x > 1", "$labels.workload"),
            (
                "max by (node, instance) (x) > 1",
                "{{ with $labels.node }}{{ . }}{{ else }}{{ with $labels.instance }}{{ . }}{{ end }}{{ end }}",
            ),
            (
                "max by (instance) (x) > 1",
                "{{ with $labels.instance }}{{ . }}{{ end }}",
            ),
            (
                "max by (node, device) (x) > 1",
                "{{ . }} of {{ end }}{{ with $labels.node }}{{ . }}{{ end }}",
            ),
        ] {
            let place = place(&Expression::parse(expr).unwrap());
            assert!(place.contains(words), "{expr}: {place}");
        }
        let nowhere = place(&Expression::parse("sum by (family) (x) > 1").unwrap());
        assert_eq!(titled("Full", &nowhere), "Full");
    }

    #[test]
    fn the_latest_scrapes_are_as_long_as_they_take() {
        let source = "---\nfailure_modes:\n  - id: a\n    title: A\n    evidence:\n      \
                      - {id: x, role: requires, expr: 'sum by (src_workload) (increase(x[15s])) > 1'}\n      \
                      - {id: y, role: requires, expr: 'sum by (src_workload) (rate(y[15s])) > 2', baseline: ratio}\n\
                      symptoms: [{id: s, expr: 'rate(z[15s]) + rate(z[5m]) > 1'}]\n---\n# A\n";
        let runbook = crate::runbook::parse("a", "p", source.into()).0;
        let library = Library {
            runbooks: vec![std::sync::Arc::new(runbook)],
            warnings: Vec::new(),
        };
        let links = Links {
            assistant: "",
            grafana: "",
            dashboards: &Dashboards::default(),
        };
        for (interval, range) in [(1, "[5s]"), (15, "[45s]"), (30, "[1m30s]")] {
            let latest = latest(Duration::from_secs(interval));
            let rules = rules(&library, &links, "2m", latest);
            let expressions: Vec<&str> = rules
                .groups
                .iter()
                .flat_map(|group| &group.rules)
                .map(|rule| rule.expr.as_str())
                .collect();
            let all = expressions.join("\n");
            assert_eq!(all.matches(range).count(), 4, "{all}");
            assert!(!all.contains("[15s]") && all.contains("[5m]"), "{all}");
        }
    }

    #[test]
    fn text_of_a_runbook_is_no_template() {
        assert_eq!(literal("a {{ b }}"), "a {{ \"{{\" }} b }}");
    }
}
