//! Grafana's annotations: a region from the start of an incident to its end.

use serde_json::{Value, json};

use super::{Failure, Grafana, check, secret};
use crate::incidents::Incidents;
use crate::incidents::outbox::Delivery;
use crate::incidents::read::Page;

pub(super) async fn annotate(
    client: &reqwest::Client,
    grafana: &Grafana,
    incidents: &Incidents,
    page: &Page,
    delivery: &Delivery,
    text: &str,
) -> Result<(), Failure> {
    let incident = &page.incident;
    let tag = format!("incident:{}", incident.id);
    let address = format!("{}/api/annotations", grafana.url);
    let token = grafana.token_file.as_deref().map(secret).transpose()?;
    let ask = |request: reqwest::RequestBuilder| match &token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let mut id = incident.annotation_id;
    if id == 0 && delivery.attempts > 0 {
        // An earlier attempt may have arrived, and its answer got lost.
        let query = [("tags", "runwire"), ("tags", tag.as_str()), ("limit", "1")];
        let url = reqwest::Url::parse_with_params(&address, query)
            .map_err(|error| Failure::Here(error.to_string()))?;
        let found = ask(client.get(url)).send().await?;
        check(&found)?;
        let found: Value = found.json().await?;
        id = found[0]["id"].as_i64().unwrap_or(0);
    }
    let end = match incident.resolved_millis {
        0 => incident.started_millis,
        resolved => resolved,
    };
    if id == 0 {
        let mut body = json!({
            "time": incident.started_millis,
            "tags": ["runwire", tag, incident.alertname],
            "text": escape(text),
        });
        if incident.resolved_millis != 0 {
            body["timeEnd"] = end.into();
        }
        let made = ask(client.post(&address)).json(&body).send().await?;
        check(&made)?;
        let made: Value = made.json().await?;
        id = made["id"].as_i64().unwrap_or(0);
    } else {
        let body = json!({"text": escape(text), "timeEnd": end});
        let changed = ask(client.patch(format!("{address}/{id}")))
            .json(&body)
            .send()
            .await?;
        // Somebody removed it: that is theirs to decide.
        if changed.status() != reqwest::StatusCode::NOT_FOUND {
            check(&changed)?;
        }
    }
    if id != 0 && id != incident.annotation_id {
        let kept = incidents.store.set_annotation(&incident.id, id).await;
        kept.map_err(|error| Failure::Here(error.to_string()))?;
    }
    Ok(())
}

/// Grafana shows an annotation's text as HTML, sanitised by itself; ours has none.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
