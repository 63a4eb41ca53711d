//! Tells others of diagnoses: a webhook, a channel that takes Slack's format, Grafana's annotations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::hmac;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use super::outbox::{CLAIM, Delivery};
use super::read::Page;
use super::{Incidents, now_millis};
use crate::prometheus::http_client;

mod grafana;
mod message;

/// For one attempt, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
const AT_A_TIME: i64 = 8;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longer waits than this are not taken from a `Retry-After`.
const LONGEST_WAIT_SECONDS: i64 = 3600;

/// Who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    pub webhook: Option<Webhook>,
    pub grafana: Option<Grafana>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: String,
    pub format: Format,
    /// Its content goes into `Authorization: Bearer`. Read at every attempt, so it may change.
    pub token_file: Option<PathBuf>,
    /// Its content is the key of the body's HMAC-SHA256 in `X-Runwire-Signature-256`.
    pub secret_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The incident and the diagnosis as JSON.
    #[default]
    Runwire,
    /// `{"text": …}` as Slack, Mattermost and many others take it.
    Slack,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grafana {
    /// Without a slash at the end.
    pub url: String,
    pub token_file: Option<PathBuf>,
}

const WEBHOOK: &str = "webhook";
const GRAFANA: &str = "grafana";

impl Targets {
    pub(super) fn names(&self) -> Vec<&'static str> {
        let webhook = self.webhook.as_ref().map(|_| WEBHOOK);
        let grafana = self.grafana.as_ref().map(|_| GRAFANA);
        webhook.into_iter().chain(grafana).collect()
    }
}

/// Why a delivery did not arrive.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Here(String),
    #[error("{0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("it answers status {status}")]
    Status {
        status: u16,
        retry_after_seconds: Option<i64>,
    },
}

/// Runs until the process ends.
pub(super) async fn run(external_url: &str, incidents: &Incidents) {
    if incidents.settings.targets.names().is_empty() {
        return;
    }
    let client = match http_client(TIMEOUT) {
        Ok(client) => client,
        Err(reason) => return error!(error = format!("{reason:#}"), "nobody is told of diagnoses"),
    };
    loop {
        let claimed = incidents.store.claim_deliveries(AT_A_TIME, now_millis());
        let due = incidents.store.in_time(claimed).await;
        // What the store refuses is logged where diagnoses are taken from it.
        let due = due.unwrap_or_default();
        if due.is_empty() {
            sleep(LOOK_EVERY).await;
            continue;
        }
        let mut tasks = JoinSet::new();
        for delivery in due {
            let (client, incidents) = (client.clone(), incidents.clone());
            let external_url = external_url.to_owned();
            tasks.spawn(async move {
                // A store that went silent must not hold up the others: what is not done is claimed again.
                let delivered = deliver(&client, &external_url, &incidents, &delivery);
                let _ = timeout(CLAIM, delivered).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn deliver(
    client: &reqwest::Client,
    external_url: &str,
    incidents: &Incidents,
    delivery: &Delivery,
) {
    let told = tell(client, external_url, incidents, delivery).await;
    let store = &incidents.store;
    let (outcome, stored) = match told {
        Ok(()) => ("told", store.finish_delivery(delivery).await),
        Err(failure) => {
            let pause = match &failure {
                Failure::Status {
                    retry_after_seconds,
                    ..
                } => retry_after_seconds.map(|seconds| seconds.min(LONGEST_WAIT_SECONDS) * 1000),
                Failure::Here(_) | Failure::Unreachable(_) => None,
            };
            // The address may hold a secret, as Slack's do.
            let reason = match failure {
                Failure::Unreachable(error) => error.without_url().to_string(),
                other => other.to_string(),
            };
            let postponed = store.postpone_delivery(delivery, pause, now_millis()).await;
            let outcome = match &postponed {
                Ok(false) => "given_up",
                Ok(true) | Err(_) => "postponed",
            };
            warn!(
                incident = delivery.incident,
                target = delivery.target,
                attempts = delivery.attempts + 1,
                outcome,
                reason,
                "a diagnosis was not told"
            );
            (outcome, postponed.map(|_| ()))
        }
    };
    if let Err(error) = stored {
        warn!(error = error.to_string(), "a delivery may be repeated");
    }
    incidents.metrics.add(
        "runwire_assistant_deliveries_total",
        "Attempts to tell others of a diagnosis",
        &[("target", target(&delivery.target)), ("outcome", outcome)],
        1.0,
    );
}

/// Label values come from a closed set, whatever is in the table.
fn target(name: &str) -> &'static str {
    if name == GRAFANA { GRAFANA } else { WEBHOOK }
}

async fn tell(
    client: &reqwest::Client,
    external_url: &str,
    incidents: &Incidents,
    delivery: &Delivery,
) -> Result<(), Failure> {
    let page = incidents.store.get(&delivery.incident).await;
    let page = page.map_err(|error| Failure::Here(error.to_string()))?;
    // Forgotten meanwhile: nothing is left to tell.
    let Some(page) = page else {
        return Ok(());
    };
    let targets = &incidents.settings.targets;
    match (delivery.target.as_str(), &targets.webhook, &targets.grafana) {
        (WEBHOOK, Some(webhook), _) => post(client, external_url, webhook, &page, delivery).await,
        (GRAFANA, _, Some(grafana)) => {
            let text = message::plain(&page, diagnosis(&page, delivery), external_url);
            grafana::annotate(client, grafana, incidents, &page, delivery, &text).await
        }
        // It is no longer configured.
        _ => Ok(()),
    }
}

/// The diagnosis that a delivery is about, or the latest where it is no longer kept.
fn diagnosis<'a>(page: &'a Page, delivery: &Delivery) -> &'a Value {
    let kept = page
        .diagnoses
        .iter()
        .find(|kept| kept.number == delivery.number)
        .or(page.diagnoses.first());
    kept.map_or(&Value::Null, |kept| &kept.diagnosis)
}

async fn post(
    client: &reqwest::Client,
    external_url: &str,
    webhook: &Webhook,
    page: &Page,
    delivery: &Delivery,
) -> Result<(), Failure> {
    let diagnosis = diagnosis(page, delivery);
    let body = match webhook.format {
        Format::Runwire => message::json(page, diagnosis, external_url, &delivery.event),
        Format::Slack => message::slack(page, diagnosis, external_url, &delivery.event),
    };
    let body = body.to_string();
    let mut request = client
        .post(&webhook.url)
        .header("content-type", "application/json")
        .header("idempotency-key", &delivery.key);
    if let Some(file) = &webhook.token_file {
        request = request.bearer_auth(secret(file)?);
    }
    if let Some(file) = &webhook.secret_file {
        let signature = sign(secret(file)?.as_bytes(), body.as_bytes());
        request = request.header("x-runwire-signature-256", signature);
    }
    check(&request.body(body).send().await?)
}

fn check(response: &reqwest::Response) -> Result<(), Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = response.headers().get("retry-after");
    Err(Failure::Status {
        status: status.as_u16(),
        retry_after_seconds: retry_after
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .filter(|seconds| *seconds > 0),
    })
}

fn secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Here(format!("cannot read {}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

fn sign(secret: &[u8], body: &[u8]) -> String {
    use std::fmt::Write;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body);
    let mut text = String::from("sha256=");
    for byte in tag.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_signature_is_what_others_compute() {
        // RFC 4231, test case 2.
        assert_eq!(
            super::sign(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
