//! `query_metrics`: PromQL from an agent. The expression is parsed here first: it reads what it may read, over a time that is bounded.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::diagnose::{Time, now_millis, parse_time};
use crate::diagnosis::expression::{longest_range, selected};
use crate::error::ApiError;
use crate::prometheus::{Prometheus, QueryError};

const MOST_SERIES: usize = 100;
const MOST_POINTS: u64 = 500;
/// Points of a course whose step nobody gave.
const POINTS: u64 = 250;
const LEAST_STEP: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// Of `[…]` in the expression.
const LONGEST_WINDOW: Duration = Duration::from_secs(86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    query: String,
    #[serde(default)]
    time: Option<Time>,
    #[serde(default)]
    start: Option<Time>,
    #[serde(default)]
    end: Option<Time>,
    #[serde(default)]
    step: Option<String>,
}

/// `allowed` are names of metrics; one that ends in `_` stands for all that begin with it.
pub(super) async fn answer(
    prometheus: &Prometheus,
    request: Request,
    allowed: &[String],
) -> Result<Value, ApiError> {
    check(&request.query, allowed)?;
    let now = now_millis();
    let moment = |key: &str, time: &Option<Time>| match time {
        Some(time) => parse_time(time, now)
            .map_err(|reason| ApiError::BadRequest(reason.replace("`time`", &format!("`{key}`")))),
        None => Ok(now),
    };
    if request.start.is_none() {
        if request.end.is_some() || request.step.is_some() {
            return Err(ApiError::BadRequest(
                "`end` and `step` belong to a course: give `start` too, or `time` alone for one moment".into(),
            ));
        }
        let time = moment("time", &request.time)?;
        let vector = prometheus
            .instant(&request.query, time)
            .await
            .map_err(failed)?;
        let (told, left_out) = bounded(vector.samples);
        let series: Vec<Value> = told
            .into_iter()
            .map(|sample| json!({"labels": sample.labels, "value": number(sample.value)}))
            .collect();
        let mut answer = json!({"query": request.query, "time": written(time), "series": series, "series_left_out": left_out});
        if let Some(reason) = vector.partial {
            answer["partial"] = reason.into();
        }
        return Ok(answer);
    }
    if request.time.is_some() {
        return Err(ApiError::BadRequest(
            "`time` is for one moment and `start` for a course: give one of them".into(),
        ));
    }
    let start = moment("start", &request.start)? / 1000;
    let end = moment("end", &request.end)? / 1000;
    let length = u64::try_from(end - start).ok().filter(|length| *length > 0);
    let length = length
        .filter(|length| *length <= LONGEST.as_secs())
        .ok_or_else(|| {
            ApiError::BadRequest("`start` must be before `end`, by at most 7d".into())
        })?;
    let step = match &request.step {
        Some(text) => humantime::parse_duration(text).map_err(|error| {
            ApiError::BadRequest(format!(
                "`step` is \"{text}\": {error}; give a duration such as 30s"
            ))
        })?,
        None => Duration::from_secs(length.div_ceil(POINTS)),
    };
    if step < LEAST_STEP || length / step.as_secs().max(1) > MOST_POINTS {
        let least = length.div_ceil(MOST_POINTS).max(1);
        return Err(ApiError::BadRequest(format!(
            "`step` gives more than {MOST_POINTS} points; give {least}s or more, or a shorter time"
        )));
    }
    let matrix = prometheus
        .range(&request.query, start, end, step)
        .await
        .map_err(failed)?;
    let (told, left_out) = bounded(matrix.ranges);
    let series: Vec<Value> = told
        .into_iter()
        .map(|range| {
            let points = range
                .points
                .iter()
                .map(|(time, value)| json!([time, number(*value)]));
            json!({"labels": range.labels, "points": points.collect::<Vec<_>>()})
        })
        .collect();
    let mut answer = json!({
        "query": request.query, "start": written(start * 1000), "end": written(end * 1000),
        "step": humantime::format_duration(step).to_string(),
        "series": series, "series_left_out": left_out,
    });
    if let Some(reason) = matrix.partial {
        answer["partial"] = reason.into();
    }
    Ok(answer)
}

fn check(query: &str, allowed: &[String]) -> Result<(), ApiError> {
    let metrics = selected(query).map_err(|error| {
        ApiError::BadRequest(format!(
            "`query` {error}; write each metric's name in front of its braces"
        ))
    })?;
    let is_allowed = |name: &String| {
        allowed.iter().any(|entry| match entry.strip_suffix('_') {
            Some(_) => name.starts_with(entry),
            None => name == entry,
        })
    };
    if let Some(other) = metrics.iter().find(|name| !is_allowed(name)) {
        return Err(ApiError::BadRequest(format!(
            "`query` reads `{other}`, which is not for agents; these are: {}",
            allowed.join(", ")
        )));
    }
    match longest_range(query) {
        Some(longest) if longest <= LONGEST_WINDOW => Ok(()),
        Some(_) => Err(ApiError::BadRequest(
            "`query` looks back further than 1d in one bracket; use a shorter one".into(),
        )),
        None => Err(ApiError::BadRequest(
            "`query` has a subquery; ask for a course with `start` and `step` instead".into(),
        )),
    }
}

fn failed(error: QueryError) -> ApiError {
    match error {
        QueryError::Refused(reason) => {
            ApiError::BadRequest(format!("Prometheus refuses the query: {reason}"))
        }
        QueryError::TooLarge(_) => ApiError::BadRequest(format!(
            "{error}; aggregate, as in `sum by (src_workload) (…)`"
        )),
        other => ApiError::Unavailable(format!("{other}; ask again in a moment")),
    }
}

fn bounded<T>(mut series: Vec<T>) -> (Vec<T>, usize) {
    let left_out = series.len().saturating_sub(MOST_SERIES);
    series.truncate(MOST_SERIES);
    (series, left_out)
}

/// JSON has no infinities.
fn number(value: f64) -> Value {
    match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value if value > 0.0 => json!("+Inf"),
        _ => json!("-Inf"),
    }
}

fn written(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| millis.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> Option<String> {
        let allowed = ["runwire_".to_owned(), "up".to_owned()];
        match check(query, &allowed) {
            Ok(()) => None,
            Err(error) => Some(error.into_problem().detail),
        }
    }

    #[test]
    fn agents_read_what_they_may_over_a_bounded_time() {
        for query in [
            "up",
            "sum by (a) (rate(runwire_tcp_x_total{b=\"c\"}[5m])) / 2",
            "{__name__=\"runwire_x\"}",
            "vector(1)",
        ] {
            assert_eq!(refusal(query), None, "{query}");
        }
        for (query, words) in [
            ("node_cpu_seconds_total", "not for agents"),
            ("runwire_a + secret_b", "`secret_b`"),
            ("upx", "`upx`"),
            ("{__name__=~\".+\"}", "plain metric name"),
            ("{job=\"x\"}", "plain metric name"),
            ("runwire_a{b=\"c\" or d=\"e\"}", "plain metric name"),
            ("count(up or on() {x=\"y\"})", "plain metric name"),
            ("rate(runwire_a[30d])", "further than 1d"),
            ("max_over_time(rate(runwire_a[5m])[1h:1s])", "subquery"),
            ("up +", "is not PromQL"),
        ] {
            let told = refusal(query);
            assert!(
                told.as_ref().is_some_and(|told| told.contains(words)),
                "{query}: {told:?}"
            );
        }
    }
}
