//! `GET /api/graph/fields`, `/api/graph/data`, `/api/health`: what Grafana's Node Graph API data source asks for, over all nodes.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::AppState;
use super::asked::read_time;
use super::diagnose::{WINDOW, now_millis, settled};
use crate::error::{ApiError, ApiResult};
use crate::graph::{self, Asked, Graph, Statistic};

/// More are no picture.
const EDGES: usize = 1000;
const MOST_EDGES: usize = 10_000;
/// The end of the year 9999, in milliseconds.
const LAST: i64 = 253_402_300_799_999;
/// `increase` reads every sample of it.
const LONGEST: i64 = 31 * 24 * 3_600_000;
const MAX_PATTERN: usize = 1000;
/// What a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Parameters that there are not are left alone: data sources send some of their own. An empty one is a dashboard's variable
/// without a value.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct GraphRequest {
    /// Pairs with an end in this namespace.
    #[param(example = "shop")]
    namespace: String,
    /// Pairs with an end of this name.
    workload: String,
    /// A regular expression that matches a name, or `namespace/name`, of either end.
    include: String,
    /// One that matches none of them.
    exclude: String,
    /// RFC 3339, or seconds or milliseconds since 1970 [default: five minutes before `to`].
    from: String,
    /// The same [default: now].
    to: String,
    /// `connection`, `bytes` or `duration`: what the numbers shown are about.
    stats_type: String,
    /// 1 to 10000 edges, those with most of it first [default: 1000].
    limit: String,
}

impl GraphRequest {
    fn read(query: Result<Query<Self>, QueryRejection>) -> Result<Self, ApiError> {
        let Query(request) = query.map_err(|error| ApiError::BadRequest(error.body_text()))?;
        Ok(request)
    }

    fn statistic(&self) -> Result<Statistic, ApiError> {
        let name = self.stats_type.trim();
        if name.is_empty() {
            return Ok(Statistic::default());
        }
        let known = Statistic::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, statistic)| *statistic).ok_or_else(|| {
            let names = Statistic::ALL.map(|(known, _)| known).join(", ");
            ApiError::BadRequest(format!("`stats-type` is `{name}`; give one of {names}"))
        })
    }

    fn check(&self, now_millis: i64) -> Result<Asked, ApiError> {
        let wrong = |sentence: String| Err(ApiError::BadRequest(sentence));
        let given = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let time = |name: &str, text: &String| {
            // A browser's clock may be ahead of ours, and `to` is cut to now anyway.
            let time = given(text).map(|text| read_time(&text, LAST)).transpose();
            time.map_err(|reason| ApiError::BadRequest(format!("`{name}`: {reason}")))
        };
        let now = settled(now_millis);
        // What is still to come has no numbers.
        let to = time("to", &self.to)?.unwrap_or(now).min(now);
        let window = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
        let from = time("from", &self.from)?.unwrap_or(to.saturating_sub(window));
        if to - from < 1000 {
            return wrong("`from` is not before `to` and now; give an earlier one".into());
        }
        if to - from > LONGEST {
            return wrong("`from` is more than 31 days before `to`; ask for less".into());
        }
        let limit = match given(&self.limit) {
            None => EDGES,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=MOST_EDGES).contains(&limit) => limit,
                _ => return wrong(format!("`limit` is `{text}`; give 1 to {MOST_EDGES}")),
            },
        };
        let pattern = |name: &str, text: &String| given(text).map(|text| compiled(name, &text));
        Ok(Asked {
            namespace: given(&self.namespace),
            workload: given(&self.workload),
            include: pattern("include", &self.include).transpose()?,
            exclude: pattern("exclude", &self.exclude).transpose()?,
            from,
            to,
            limit,
            statistic: self.statistic()?,
        })
    }
}

fn compiled(name: &str, text: &str) -> Result<Regex, ApiError> {
    if text.len() > MAX_PATTERN {
        let sentence = format!("`{name}` is longer than {MAX_PATTERN} bytes");
        return Err(ApiError::BadRequest(sentence));
    }
    RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| {
            ApiError::BadRequest(format!("`{name}` is no regular expression: {error}"))
        })
}

/// What the members of `/api/graph/data` are called and how they are painted.
#[utoipa::path(get, path = "/api/graph/fields", tag = "graph", params(GraphRequest), responses((status = 200, body = Object), (status = 400, description = "A value makes no sense")))]
pub(super) async fn fields(query: Result<Query<GraphRequest>, QueryRejection>) -> ApiResult<Value> {
    let statistic = GraphRequest::read(query)?.statistic()?;
    Ok(Json(graph::fields(statistic)))
}

/// Who talked to whom from `from` to `to`, in the whole cluster: workloads and the connections between them.
#[utoipa::path(get, path = "/api/graph/data", tag = "graph", params(GraphRequest), responses((status = 200, body = Graph), (status = 400, description = "A value makes no sense"), (status = 503, description = "Prometheus does not give the numbers")))]
pub(super) async fn data(
    State(state): State<AppState>,
    query: Result<Query<GraphRequest>, QueryRejection>,
) -> ApiResult<Graph> {
    let asked = GraphRequest::read(query)?.check(now_millis())?;
    let graph = graph::ask(&state.engine.prometheus, &asked).await;
    Ok(Json(graph.map_err(|reason| {
        ApiError::Unavailable(format!("there is no graph: {reason}"))
    })?))
}

/// Whether there is a Prometheus to draw from: what the data source's «Save & test» asks.
#[utoipa::path(get, path = "/api/health", tag = "graph", responses((status = 200, body = Object), (status = 503, description = "Prometheus cannot be asked")))]
pub(super) async fn health(State(state): State<AppState>) -> ApiResult<Value> {
    match state.engine.prometheus.check().await {
        Ok(()) => Ok(Json(json!({"status": "ok"}))),
        Err(error) => Err(ApiError::Unavailable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn check(change: impl FnOnce(&mut GraphRequest)) -> Result<Asked, String> {
        let mut request = GraphRequest::default();
        change(&mut request);
        request.check(NOW).map_err(|error| error.describe().1)
    }

    #[test]
    fn without_parameters_it_is_about_the_last_five_minutes() {
        let asked = check(|_| ()).unwrap();
        assert_eq!((asked.to - asked.from, asked.limit), (300_000, 1000));
        assert!((NOW - 2000..NOW).contains(&asked.to));
    }

    #[test]
    fn a_dashboard_sends_milliseconds_and_empty_variables() {
        let asked = check(|request| {
            request.from = (NOW - 3_600_000).to_string();
            request.to = (NOW + 60_000).to_string();
            request.namespace = " ".into();
        })
        .unwrap();
        assert_eq!(asked.from, NOW - 3_600_000);
        assert!(asked.to < NOW && asked.namespace.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (change, words) in [
            (
                (|r| r.from = "now".into()) as fn(&mut GraphRequest),
                "`from`",
            ),
            (|r| r.from = (NOW + 1).to_string(), "not before `to`"),
            (|r| r.from = "2020-01-01T00:00:00Z".into(), "31 days"),
            (
                |r| r.include = "(".into(),
                "`include` is no regular expression",
            ),
            (|r| r.exclude = "a".repeat(1001), "`exclude` is longer"),
            (
                |r| r.stats_type = "flow".into(),
                "connection, bytes, duration",
            ),
            (|r| r.limit = "0".into(), "`limit` is `0`"),
        ] {
            let sentence = check(change).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
