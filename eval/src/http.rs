//! The few HTTP calls: readiness and questions.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(20)))
        // A status is an answer; we judge it.
        .http_status_as_error(false)
        // Everything here is on loopback, whatever the environment says.
        .proxy(None)
        .build()
        .into()
});

pub(crate) fn get(url: &str) -> Result<(u16, String)> {
    let mut response = AGENT
        .get(url)
        .call()
        .with_context(|| format!("cannot get {url}"))?;
    let body = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .with_context(|| format!("cannot read {url}"))?;
    Ok((response.status().as_u16(), body))
}

/// As a value in the query of a URL.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The body as it came: answers are compared byte by byte.
pub(crate) fn post(url: &str, body: &Value) -> Result<Vec<u8>> {
    let mut response = AGENT
        .post(url)
        .send_json(body)
        .with_context(|| format!("cannot post to {url}"))?;
    let bytes = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_vec()
        .with_context(|| format!("cannot read the answer of {url}"))?;
    if response.status() != 200 {
        bail!(
            "{url} answered {}: {}",
            response.status(),
            String::from_utf8_lossy(&bytes)
        );
    }
    Ok(bytes)
}
