//! `GET /metrics`: collects, and shows everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem;
use crate::agent::Agent;
use crate::export::{Format, Scraper};

pub(super) async fn metrics(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    let format = accepted(request.headers());
    let scraper = scraper(&request);
    let encode = move || agent.scrape(format, scraper);
    match tokio::task::spawn_blocking(encode).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written; the collector's log says why",
        ),
    }
}

/// Every Prometheus says how long it waits; people and scripts do not.
fn scraper(request: &Request) -> Option<(Scraper, Duration)> {
    let headers = request.headers();
    let patience = headers.get("x-prometheus-scrape-timeout-seconds")?;
    let patience = (patience.to_str().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.parse().ok()?).ok())
        .unwrap_or(Duration::MAX);
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let user_agent = headers.get(header::USER_AGENT);
    let scraper = Scraper {
        address: peer.ip(),
        user_agent: user_agent
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
    };
    Some((scraper, patience))
}

/// The older format, unless the other is asked for and liked at least as much.
fn accepted(headers: &HeaderMap) -> Format {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    let weight = |name: &str| {
        accept
            .split(',')
            .filter(|range| {
                range
                    .split(';')
                    .next()
                    .is_some_and(|kind| kind.trim() == name)
            })
            .map(quality)
            .max()
    };
    match (weight("application/openmetrics-text"), weight("text/plain")) {
        (Some(open), text) if open > 0 && Some(open) >= text => Format::OpenMetrics,
        _ => Format::Text,
    }
}

/// `q` of a media range, in thousandths.
fn quality(range: &str) -> u16 {
    let q = range
        .split(';')
        .find_map(|part| part.trim().strip_prefix("q="));
    let q: f32 = q.and_then(|q| q.trim().parse().ok()).unwrap_or(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1000"
    )]
    let thousandths = (q.clamp(0.0, 1.0) * 1000.0) as u16;
    thousandths
}

#[test]
fn the_format_is_the_one_asked_for() {
    let check = |accept: &'static str, expected| {
        let headers =
            HeaderMap::from_iter([(header::ACCEPT, header::HeaderValue::from_static(accept))]);
        assert_eq!(accepted(&headers), expected, "{accept}");
    };
    check("*/*", Format::Text);
    check("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format::Text);
    check("application/openmetrics-text", Format::OpenMetrics);
    check(
        "application/openmetrics-text;q=0.2,text/plain;q=0.5",
        Format::Text,
    );
    // What Prometheus 3 sends.
    check(
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        Format::OpenMetrics,
    );
}
