//! The same rules in the form of Grafana's file provisioning:
//! <https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning/>

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Rule, Rules};

/// Grafana takes no longer ones.
const MAX_UID: usize = 40;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    api_version: u8,
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    org_id: u8,
    name: &'static str,
    folder: String,
    interval: &'static str,
    rules: Vec<Provisioned>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Provisioned {
    uid: String,
    title: String,
    condition: &'static str,
    data: Vec<Query>,
    no_data_state: &'static str,
    exec_err_state: &'static str,
    r#for: String,
    annotations: BTreeMap<&'static str, String>,
    labels: BTreeMap<&'static str, String>,
    is_paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboard_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    panel_id: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    ref_id: &'static str,
    relative_time_range: Value,
    datasource_uid: String,
    model: Value,
}

/// Rules for Grafana's first organisation, evaluated every 30 s with the data source of that uid.
pub fn provisioning(rules: &Rules, datasource: &str, folder: &str) -> Provisioning {
    let groups = rules.groups.iter().filter(|group| !group.rules.is_empty());
    Provisioning {
        api_version: 1,
        groups: groups
            .map(|group| Group {
                org_id: 1,
                name: group.name,
                folder: folder.to_owned(),
                interval: "30s",
                rules: group
                    .rules
                    .iter()
                    .map(|rule| provisioned(rule, datasource))
                    .collect(),
            })
            .collect(),
    }
}

fn provisioned(rule: &Rule, datasource: &str) -> Provisioned {
    let mut annotations = rule.annotations.clone();
    if let Some(panel) = &rule.panel {
        annotations.insert("__dashboardUid__", panel.dashboard.clone());
        annotations.insert("__panelId__", panel.id.to_string());
    }
    Provisioned {
        uid: uid(&rule.id),
        title: rule.alert.clone(),
        condition: "C",
        data: vec![
            Query {
                ref_id: "A",
                relative_time_range: json!({"from": 600, "to": 0}),
                datasource_uid: datasource.to_owned(),
                model: json!({
                    "refId": "A", "expr": rule.expr, "instant": true, "range": false,
                    "editorMode": "code", "intervalMs": 1000, "maxDataPoints": 43_200,
                }),
            },
            // As for Prometheus, what the expression returns fires, whatever its value: also 0 and «not a number».
            Query {
                ref_id: "C",
                relative_time_range: json!({"from": 600, "to": 0}),
                datasource_uid: "__expr__".into(),
                model: json!({
                    "refId": "C", "type": "math",
                    "expression": "is_number($A) || is_nan($A) || is_inf($A)",
                    "datasource": {"type": "__expr__", "uid": "__expr__"},
                }),
            },
        ],
        // The expression returns nothing where all is well.
        no_data_state: "OK",
        exec_err_state: "Error",
        r#for: rule.r#for.clone(),
        annotations,
        labels: rule.labels.clone(),
        is_paused: false,
        dashboard_uid: rule.panel.as_ref().map(|panel| panel.dashboard.clone()),
        panel_id: rule.panel.as_ref().map(|panel| panel.id),
    }
}

/// Letters, digits, `-` and `_`, the same at every run, so that a new file replaces the old rules.
fn uid(id: &str) -> String {
    let plain: String = id
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let uid = format!("runwire-{plain}");
    if uid.len() <= MAX_UID {
        return uid;
    }
    let hash = format!("{:032x}", crate::hash::fnv(&[id.as_bytes()]));
    format!("{}-{}", &uid[..MAX_UID - 9], &hash[hash.len() - 8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_fit_and_stay_apart() {
        assert_eq!(uid("dns-servfail"), "runwire-dns-servfail");
        let (a, b) = (
            uid(&format!("{}a", "x".repeat(60))),
            uid(&format!("{}b", "x".repeat(60))),
        );
        assert!(
            a.len() == MAX_UID && b.len() == MAX_UID && a != b,
            "{a} {b}"
        );
    }
}
