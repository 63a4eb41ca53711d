//! Addresses that leave the page: the same query in Prometheus and in Grafana Explore; and query strings; pure.

use serde_json::json;

use crate::config::Config;

/// Where a person goes on with a query.
pub(super) struct Links<'a> {
    pub(super) config: &'a Config,
    pub(super) time_millis: i64,
}

impl Links<'_> {
    /// Prometheus' own page, the hour before the moment as a graph.
    pub(super) fn prometheus(&self, query: &str) -> String {
        let end = jiff::Timestamp::from_millisecond(self.time_millis)
            .map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
            .unwrap_or_default();
        let base = &self.config.prometheus_external_url;
        format!(
            "{base}/graph?g0.expr={}&g0.tab=0&g0.range_input=1h&g0.end_input={end}&g0.moment_input={end}",
            encode(query),
            end = encode(&end),
        )
    }

    /// Grafana Explore, where its address is configured.
    pub(super) fn grafana(&self, query: &str) -> Option<String> {
        let base = self.config.grafana_url.as_ref()?;
        let source = self.config.grafana_datasource.as_deref();
        let mut request = json!({"refId": "A", "expr": query});
        let mut pane = json!({"range": {
            "from": (self.time_millis - 3_600_000).to_string(), "to": self.time_millis.to_string()
        }});
        if let Some(uid) = source {
            request["datasource"] = json!({"type": "prometheus", "uid": uid});
            pane["datasource"] = json!(uid);
        }
        pane["queries"] = json!([request]);
        let panes = json!({"a": pane}).to_string();
        Some(format!(
            "{base}/explore?schemaVersion=1&panes={}",
            encode(&panes)
        ))
    }
}

/// As part of a query string.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `?a=b&c=d` of those that have a value; nothing of none.
pub(super) fn query_string(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

/// `/page#part` with a query between the two, where it belongs.
pub(super) fn with_query(address: &str, query: Option<&str>) -> String {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return address.to_owned();
    };
    match address.split_once('#') {
        Some((page, anchor)) => format!("{page}?{query}#{anchor}"),
        None => format!("{address}?{query}"),
    }
}
