//! What somebody pasted into the box: a sentence, an alert as Alertmanager's JSON, or an alert as a chat shows it; pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Labels and annotations of an alert; without any, it is a question in words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pasted {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) starts_at: Option<String>,
}

/// Labels by which a chat message tells what it is about.
const KNOWN: [&str; 24] = [
    "alertname",
    "namespace",
    "workload",
    "pod",
    "deployment",
    "statefulset",
    "daemonset",
    "service",
    "app",
    "container",
    "job",
    "instance",
    "node",
    "severity",
    "src_namespace",
    "src_workload",
    "dst_namespace",
    "dst_workload",
    "cluster",
    "netns",
    "job_name",
    "service_name",
    "exported_namespace",
    "exported_pod",
];
const NOTES: [&str; 4] = ["summary", "description", "message", "runbook_url"];

impl Pasted {
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with(['{', '[']) {
            return from_json(text).or_else(|| from_chat(text));
        }
        from_chat(text)
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.labels.get("alertname").map(String::as_str)
    }

    pub(super) fn runbook_url(&self) -> Option<&str> {
        ["runbook_url", "runbook", "runbookURL"]
            .iter()
            .find_map(|name| self.annotations.get(*name))
            .map(String::as_str)
    }
}

/// A webhook's payload, a list as the API gives it, or one alert.
fn from_json(text: &str) -> Option<Pasted> {
    let value: Value = serde_json::from_str(text).ok()?;
    let alerts = match &value {
        Value::Array(alerts) => alerts.clone(),
        Value::Object(object) => match object
            .get("alerts")
            .or_else(|| object.get("data")?.get("alerts"))
        {
            Some(Value::Array(alerts)) => alerts.clone(),
            _ => vec![value.clone()],
        },
        _ => return None,
    };
    let is_firing = |alert: &&Value| {
        alert
            .get("status")
            .is_none_or(|status| *status != "resolved")
    };
    let alert = alerts.iter().find(is_firing).or(alerts.first())?;
    let pairs = |key: &str| -> BTreeMap<String, String> {
        let object = alert.get(key).and_then(Value::as_object);
        object
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    let pasted = Pasted {
        labels: pairs("labels"),
        annotations: pairs("annotations"),
        starts_at: alert
            .get("startsAt")
            .and_then(Value::as_str)
            .map(str::to_owned),
    };
    (!pasted.labels.is_empty()).then_some(pasted)
}

/// `[FIRING:2] TcpConnectTimeouts (shop cart)`, then lines such as `• namespace: shop` or `namespace = "shop"`.
fn from_chat(text: &str) -> Option<Pasted> {
    let mut pasted = Pasted::default();
    for line in text.lines() {
        let line = line.trim_matches(|c: char| c.is_whitespace() || "•-*>|`".contains(c));
        if let Some(rest) = line.strip_prefix('[')
            && let Some((state, rest)) = rest.split_once(']')
            && ["FIRING", "RESOLVED", "Alerting"]
                .iter()
                .any(|word| state.starts_with(word))
        {
            let name = rest.split_whitespace().next().unwrap_or_default();
            insert(&mut pasted.labels, "alertname", name);
        }
        for part in line.split([',', '{', '}']) {
            let Some((key, value)) = part.split_once(['=', ':']) else {
                continue;
            };
            let key = key.trim_matches(|c: char| !c.is_alphanumeric() && c != '_');
            let key = match key.to_lowercase().as_str() {
                "alert" => "alertname".to_owned(),
                "runbook" => "runbook_url".to_owned(),
                other => other.to_owned(),
            };
            let value = value.trim_matches(|c: char| c.is_whitespace() || "\"'`*<>".contains(c));
            // `<address|words>` is a link.
            let value = value.split('|').next().unwrap_or_default();
            if KNOWN.contains(&key.as_str()) {
                insert(&mut pasted.labels, &key, value);
            }
        }
        if let Some((key, value)) = line.split_once([':', '=']) {
            let key = key
                .trim_matches(|c: char| !c.is_alphanumeric() && c != '_')
                .to_lowercase();
            let key = if key == "runbook" {
                "runbook_url".to_owned()
            } else {
                key
            };
            if NOTES.contains(&key.as_str()) {
                let value =
                    value.trim_matches(|c: char| c.is_whitespace() || "\"'`*<>".contains(c));
                let value = match key.as_str() {
                    "runbook_url" => value.split('|').next().unwrap_or_default(),
                    _ => value,
                };
                insert(&mut pasted.annotations, &key, value);
            }
        }
    }
    pasted.labels.contains_key("alertname").then_some(pasted)
}

/// The first one counts: what follows is another alert of the group.
fn insert(pairs: &mut BTreeMap<String, String>, key: &str, value: &str) {
    if !value.is_empty() && !pairs.contains_key(key) {
        pairs.insert(key.to_owned(), value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let told = match Pasted::read(text) {
            None => "words".to_owned(),
            Some(pasted) => format!(
                "{:?} {:?} {}",
                pasted.labels.values().collect::<Vec<_>>(),
                pasted.runbook_url(),
                pasted.starts_at.as_deref().unwrap_or_default()
            ),
        };
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn alerts_are_read_as_they_are_pasted() {
        check("checkout hangs: why?", "words");
        check("{not json", "words");
        check("{\"a\": 1}", "words");
        check(
            r#"{"version":"4","status":"firing","alerts":[{"status":"resolved","labels":{"alertname":"Old"}},
                {"status":"firing","labels":{"alertname":"X","namespace":"shop"},"annotations":{"runbook_url":"https://a/b"},"startsAt":"2026-01-01T00:00:00Z"}]}"#,
            r#"["X", "shop"] Some("https://a/b") 2026-01-01T00:00:00Z"#,
        );
        check(
            r#"[{"labels":{"alertname":"X"},"status":{"state":"active"}}]"#,
            r#"["X"] None "#,
        );
        check(r#"{"labels":{"alertname":"X"}}"#, r#"["X"] None "#);
        check(
            "[FIRING:2] CoreDNSErrorsHigh (kube-system)\n*Runbook:* <https://runbooks.prometheus-operator.dev/runbooks/x/|Open>\n • *namespace:* `shop`\n • *workload:* `cart`\n[FIRING:1] Other",
            r#"["CoreDNSErrorsHigh", "shop", "cart"] Some("https://runbooks.prometheus-operator.dev/runbooks/x/") "#,
        );
        check(
            "alertname = \"X\", namespace=\"shop\"",
            r#"["X", "shop"] None "#,
        );
    }
}
