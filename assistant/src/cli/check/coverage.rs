//! Alerts in files of Prometheus rules that lead to no page: whoever follows their link at night finds nothing.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::retrieval::Names;
use crate::runbook::Library;

const NEAREST: usize = 3;

/// A line for each alert of the file that no runbook answers to, and how many alerts there are.
///
/// # Errors
/// The file cannot be read, is not YAML, or holds no alert.
pub(super) fn uncovered(file: &Path, library: &Library) -> anyhow::Result<(Vec<String>, usize)> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut alerts = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let document = Value::deserialize(document)
            .with_context(|| format!("{} is not YAML", file.display()))?;
        collect(&document, &mut alerts);
    }
    anyhow::ensure!(
        !alerts.is_empty(),
        "{} holds no alert: give a file of Prometheus rules, or of PrometheusRule objects",
        file.display()
    );
    let names = Names::new(library.runbooks.iter().map(AsRef::as_ref));
    let lines = alerts
        .iter()
        .filter(|name| !answered(name, &names, library))
        .map(|name| {
            let line = line_of(&text, name);
            let nearest: Vec<&str> = (names.nearest(name, NEAREST).into_iter())
                .map(|(name, _)| name)
                .collect();
            let hint = match nearest.as_slice() {
                [] => String::new(),
                names => format!("; the nearest names are {}", names.join(", ")),
            };
            format!(
                "{}:{line}: alert `{name}` has no page: list it under `alerts` of the runbook that is about it{hint}",
                file.display()
            )
        })
        .collect();
    Ok((lines, alerts.len()))
}

/// As `/r/{alertname}` finds it: names in front matter and headings, else the name of a file.
fn answered(name: &str, names: &Names, library: &Library) -> bool {
    !names.exact(name).is_empty() || library.named(name).is_some()
}

/// Names under `rules`, however deep: a file of rules, a PrometheusRule, a list of them, Helm values.
fn collect(value: &Value, alerts: &mut Vec<String>) {
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                if key.as_str() == Some("rules")
                    && let Some(rules) = value.as_sequence()
                {
                    let of_rules = rules.iter().filter_map(|rule| rule.get("alert")?.as_str());
                    for name in of_rules {
                        if !alerts.iter().any(|known| known == name) {
                            alerts.push(name.to_owned());
                        }
                    }
                } else {
                    collect(value, alerts);
                }
            }
        }
        Value::Sequence(sequence) => sequence.iter().for_each(|value| collect(value, alerts)),
        _ => {}
    }
}

fn line_of(text: &str, name: &str) -> usize {
    let is_it = |line: &str| {
        line.split_once("alert:").is_some_and(|(_, rest)| {
            let written = rest.trim_start_matches([' ', '"', '\'']);
            let rest = written.strip_prefix(name);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    text.lines().position(is_it).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::load;

    #[test]
    fn an_alert_without_a_page_is_told_with_its_line_and_the_nearest_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        write(
            "runbooks/dns.md",
            "---\nalerts: [CoreDNSDown]\n---\n# DNS\n\n## NodeLinkLost\n\ntext\n",
        );
        write("runbooks/queue-full.md", "# Queues\n\ntext\n");
        let rules = write(
            "rules.yaml",
            "groups:\n  - name: a\n    rules:\n      - record: x\n        expr: y\n      - alert: CoreDNSDown\n        expr: up == 0\n      \
             - alert: 'QueueFull'\n        expr: z\n      - {alert: NodeLinkLost}\n      - alert: CoreDNSSlow # soon\n        expr: z\n---\n\
             kind: List\nitems:\n  - kind: PrometheusRule\n    spec: {groups: [{name: b, rules: [{alert: Disk, expr: x}]}]}\n",
        );
        let library = load(&[folder.path().join("runbooks")]);
        let (lines, count) = uncovered(&rules, &library).unwrap();
        assert_eq!(count, 5);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let path = rules.display();
        assert!(
            lines[0].starts_with(&format!("{path}:11: alert `CoreDNSSlow` has no page")),
            "{lines:?}"
        );
        assert!(
            lines[0].ends_with("the nearest names are CoreDNSDown"),
            "{lines:?}"
        );
        assert!(lines[1].contains("alert `Disk`"), "{lines:?}");

        let none = write("none.yaml", "groups: []\n");
        let error = uncovered(&none, &library).unwrap_err().to_string();
        assert!(error.contains("none.yaml holds no alert"), "{error}");
        let broken = write("broken.yaml", "groups: [\n");
        let error = uncovered(&broken, &library).unwrap_err().to_string();
        assert!(error.contains("broken.yaml is not YAML"), "{error}");
    }
}
