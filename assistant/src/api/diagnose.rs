//! `POST /diagnose`: what is wrong at a moment, why we think so, and what to do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::AppState;
use super::events::Events;
use super::search::{object, whole_number};
use crate::access::Caller;
use crate::audit::Asked;
use crate::diagnosis::response::Part;
use crate::diagnosis::{Diagnosis, Hit, Question, Scope};
use crate::error::ApiError;
use crate::narrate::Narrator;
use crate::retrieval::Filters;

pub(super) const WINDOW: Duration = Duration::from_secs(300);
const SHORTEST_WINDOW: Duration = Duration::from_secs(15);
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);
const LIMIT: i64 = 5;
const MOST: usize = 100;
/// Passages are looked up for this many characters: a sentence, not a log.
const MAX_QUERY: usize = 2000;
const PASSAGES: usize = 5;
/// The part of the answer that a language model may add.
const NARRATION: &str = "narration";
/// Samples of the last scrape may be on their way into Prometheus for this long.
const SETTLE: Duration = Duration::from_millis(500);

/// Keys that are not here are refused (422), so that a misspelt one is not silently without effect.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiagnoseRequest {
    /// What is wrong, in a sentence.
    #[serde(default)]
    #[schema(max_length = 2000, example = "requests to the shop time out")]
    query: Option<String>,
    #[serde(default, deserialize_with = "object")]
    alert: Option<Alert>,
    #[serde(default, deserialize_with = "object")]
    scope: Option<Scope>,
    /// The moment to ask about; now if it is left out.
    #[serde(default)]
    time: Option<Time>,
    /// How far to look back from there, 15s to 24h; 5m if it is left out.
    #[serde(default)]
    #[schema(
        example = "5m",
        pattern = "^((1[5-9]|[2-9][0-9]|[1-9][0-9]{2,3})s|[1-9][0-9]{0,2}m|([1-9]|1[0-9]|2[0-4])h)$"
    )]
    window: Option<String>,
    /// How many causes; 5 if it is left out.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// Whether a language model may tell the answer in prose, where one is configured.
    #[serde(default)]
    narrate: Option<bool>,
}

/// As Alertmanager sends it: other keys are fine.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(super) struct Alert {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default, rename = "startsAt")]
    starts_at: Option<String>,
}

/// RFC 3339, or seconds since 1970.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Time {
    Unix(f64),
    #[schema(example = "2026-11-20T03:10:00Z", format = DateTime)]
    Text(String),
}

/// What is wrong at a moment, why we think so, and what to do. At least one of `query`, `alert` and `scope` is needed.
#[utoipa::path(post, path = "/diagnose", tag = "diagnose", request_body = DiagnoseRequest, responses((status = 200, content((Diagnosis = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn diagnose(
    State(state): State<AppState>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    request: Result<Json<DiagnoseRequest>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = request?;
    let caller = caller.map_or_else(Caller::anonymous, |Extension(caller)| caller);
    let Done {
        mut diagnosis,
        narrator,
        search,
        total,
    } = state.diagnose(request, &caller, "api").await?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let timing = format!(
        "search;dur={:.1}, diagnosis;dur={:.1}",
        milliseconds(search),
        milliseconds(total - search)
    );
    let timing = [(HeaderName::from_static("server-timing"), timing)];
    if wants_events(&headers) {
        return Ok((timing, events(diagnosis, narrator)).into_response());
    }
    if let Some(narrator) = narrator {
        match narrator.narrate(&diagnosis).await {
            Ok(narration) => diagnosis.narration = Some(narration),
            Err(reason) => diagnosis.degrade(NARRATION, reason.to_string()),
        }
    }
    Ok((timing, Json(diagnosis)).into_response())
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"))
}

/// First the diagnosis, then what the model says of it as it comes, then `done` with what went wrong.
fn events(diagnosis: Diagnosis, narrator: Option<Narrator>) -> Response {
    let (events, response) = Events::new();
    tokio::spawn(async move {
        events.send("diagnosis", &diagnosis).await;
        let mut end = End::default();
        if let Some(narrator) = narrator {
            let (sender, mut receiver) = mpsc::channel(1);
            let pass_on = async {
                while let Some(sentence) = receiver.recv().await {
                    if !events.send("sentence", &sentence).await {
                        // The narration ends where nobody receives it.
                        receiver.close();
                    }
                }
            };
            let (told, ()) = tokio::join!(narrator.stream(&diagnosis, sender), pass_on);
            match told {
                Ok(dropped) => end.dropped = dropped,
                Err(reason) => end.degraded.push(Part {
                    part: NARRATION.into(),
                    reason: reason.to_string(),
                }),
            }
        }
        events.send("done", &end).await;
    });
    response
}

/// What is said at the end of a stream.
#[derive(Default, Serialize)]
struct End {
    /// Sentences that were left out, because they cite nothing that is there or are no plain text.
    dropped: usize,
    degraded: Vec<Part>,
}

/// An answer, and how long it took to have it.
pub(super) struct Done {
    pub(super) diagnosis: Diagnosis,
    /// Where a narration was asked for and there is a model for it.
    narrator: Option<Narrator>,
    search: Duration,
    total: Duration,
}

impl AppState {
    /// Answers a question for a caller that came `via` one of our doors, and writes it down.
    pub(super) async fn diagnose(
        &self,
        request: DiagnoseRequest,
        caller: &Caller,
        via: &'static str,
    ) -> Result<Done, ApiError> {
        let state = self;
        let checked = Checked::of(request, now_millis())?;

        if !state.retriever.state().ready {
            return Err(ApiError::Unavailable(
                "the runbooks are still being read; send the request again in a second".into(),
            ));
        }

        let started = Instant::now();
        let queries = state.engine.prometheus.asked();
        let (mut diagnosis, retrieval) = state.answer(checked.question, &checked.text).await;
        let narrator = match (&state.narrator, checked.narrate) {
            (Some(narrator), true) => Some(narrator.clone()),
            (None, true) => {
                diagnosis.degrade(
                    NARRATION,
                    "no language model is configured; the answer is complete without one",
                );
                None
            }
            (_, false) => None,
        };
        let total = started.elapsed();
        let status = diagnosis.status_name();
        state.metrics.add(
            "runwire_assistant_diagnoses_total",
            "Diagnoses by what they found",
            &[("status", status)],
            1.0,
        );
        let asked = Asked {
            caller,
            via,
            incident: None,
            question: &checked.text,
            took: total,
            queries: state.engine.prometheus.asked() - queries,
        };
        state.audit.record(&asked, &diagnosis);
        Ok(Done {
            diagnosis,
            narrator,
            search: retrieval,
            total,
        })
    }
}

struct Checked {
    question: Question,
    /// What passages are looked for with.
    text: String,
    narrate: bool,
}

impl Checked {
    fn of(request: DiagnoseRequest, now_millis: i64) -> Result<Self, ApiError> {
        let bad = ApiError::BadRequest;
        let DiagnoseRequest {
            query,
            alert,
            scope,
            time,
            window,
            limit,
            narrate,
        } = request;
        let query = query
            .map(|query| query.trim().to_owned())
            .filter(|query| !query.is_empty());
        if query.is_none() && alert.is_none() && scope.is_none() {
            return Err(bad(
                "say what it is about: give at least one of `query` (not empty), `alert` and `scope`".into(),
            ));
        }
        if query
            .as_ref()
            .is_some_and(|query| query.chars().count() > MAX_QUERY)
        {
            return Err(bad(format!(
                "`query` is longer than {MAX_QUERY} characters; ask in a sentence"
            )));
        }
        let scope_is_given = scope.as_ref().is_some_and(|scope| !scope.is_empty());
        let scope = match (scope, &alert) {
            (Some(scope), _) if scope_is_given => scope,
            (_, Some(alert)) => Scope::of_alert(&alert.labels),
            _ => Scope::default(),
        };
        scope.check().map_err(bad)?;
        let window = match window {
            Some(text) => parse_window(&text).map_err(ApiError::BadRequest)?,
            None => WINDOW,
        };
        let limit = limit.unwrap_or(LIMIT);
        let Some(limit) = usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=MOST).contains(limit))
        else {
            return Err(ApiError::BadRequest(format!(
                "`limit` is {limit}; give 1 to {MOST}"
            )));
        };
        let time_millis = match time {
            Some(time) => parse_time(&time, now_millis).map_err(ApiError::BadRequest)?,
            None => settled(now_millis),
        };
        let name = alert
            .as_ref()
            .and_then(|alert| alert.labels.get("alertname"))
            .cloned();
        let text = query.unwrap_or_else(|| alert.as_ref().map(Alert::words).unwrap_or_default());
        Ok(Self {
            question: Question {
                scope,
                scope_is_a_guess: !scope_is_given,
                time_millis,
                window,
                limit,
                since_millis: alert.as_ref().and_then(Alert::since_millis),
                alert: name,
                hits: Vec::new(),
            },
            text: text.chars().take(MAX_QUERY).collect(),
            narrate: narrate.unwrap_or(false),
        })
    }
}

impl Alert {
    /// When it began; what is no time says nothing.
    fn since_millis(&self) -> Option<i64> {
        let time: jiff::Timestamp = self.starts_at.as_ref()?.parse().ok()?;
        Some(time.as_millisecond())
    }

    /// The alert's name, what its author wrote about it, and the labels that tell what is wrong.
    fn words(&self) -> String {
        const TELLING: [&str; 9] = [
            "reason",
            "rcode",
            "class",
            "protocol",
            "condition",
            "phase",
            "error",
            "code",
            "handler",
        ];
        let name = self.labels.get("alertname");
        let notes = ["summary", "message", "description"]
            .iter()
            .filter_map(|key| self.annotations.get(*key));
        let telling = TELLING.iter().filter_map(|key| self.labels.get(*key));
        name.into_iter()
            .chain(notes)
            .chain(telling)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl AppState {
    /// What is wrong at the moment that the question names, with the passages that fit its words.
    pub(crate) async fn diagnosis(&self, question: Question, text: &str) -> Diagnosis {
        self.answer(question, text).await.0
    }

    /// The same, with the time that the passages took.
    async fn answer(&self, question: Question, text: &str) -> (Diagnosis, Duration) {
        let started = Instant::now();
        let hits = self.passages(text).await;
        let retrieval = started.elapsed();
        let (hits, missing) = match hits {
            Ok(hits) => (hits, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let question = Question { hits, ..question };
        let library = self.retriever.library();
        let mut diagnosis = self.engine.diagnose(&library, &question).await;
        if let Some(reason) = missing {
            diagnosis.degrade("search", reason);
        }
        (diagnosis, retrieval)
    }

    /// The passages that fit the words, or why there are none.
    async fn passages(&self, text: &str) -> Result<Vec<Hit>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let (retriever, text) = (self.retriever.clone(), text.to_owned());
        let search = move || retriever.search(&text, PASSAGES, &Filters::default());
        let found = match self.compute(search).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(format!("{error:#}")),
            Err(ApiError::TooManyRequests) => return Err("all workers are busy".into()),
            Err(_) => return Err("search failed; the log says why".into()),
        };
        let hits = found.results.into_iter().map(|result| {
            Ok(Hit {
                runbook: result.runbook.id.clone(),
                passage: serde_json::to_value(result)?,
            })
        });
        hits.collect::<Result<_, serde_json::Error>>()
            .map_err(|error| error.to_string())
    }
}

/// The latest whole second of which all samples are there.
pub(super) fn settled(now_millis: i64) -> i64 {
    (now_millis - i64::try_from(SETTLE.as_millis()).unwrap_or(0)) / 1000 * 1000
}

pub(super) fn parse_window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text)
        .map_err(|error| format!("`window` is \"{text}\": {error}; give a duration such as 5m"))?;
    if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
        return Err(format!("`window` is \"{text}\"; give 15s to 24h"));
    }
    if window.subsec_nanos() != 0 {
        return Err(format!("`window` is \"{text}\"; give whole seconds"));
    }
    Ok(window)
}

pub(super) fn parse_time(time: &Time, now_millis: i64) -> Result<i64, String> {
    const FORM: &str = "give RFC 3339, such as 2026-01-31T03:10:00Z, or Unix seconds";
    let unix = |seconds: f64| {
        // Before 1970 and after the year 9999 there is nothing to ask about.
        (0.0..253_402_300_800.0)
            .contains(&seconds)
            .then_some((seconds * 1000.0).round() as i64)
    };
    let millis = match time {
        Time::Unix(seconds) => unix(*seconds),
        Time::Text(text) => text
            .parse::<jiff::Timestamp>()
            .map(|time| time.as_millisecond())
            .ok()
            .or_else(|| unix(text.parse().ok()?)),
    };
    let millis = millis.ok_or_else(|| format!("`time` is no time: {FORM}"))?;
    if millis > now_millis {
        return Err("`time` is in the future: give a time that has passed, or leave it out to ask about now".into());
    }
    Ok(millis)
}

pub(super) fn now_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_700;

    fn check(body: &str) -> Result<Question, String> {
        let request = serde_json::from_str(body).map_err(|error| error.to_string())?;
        match Checked::of(request, NOW) {
            Ok(checked) => Ok(checked.question),
            Err(ApiError::BadRequest(reason)) => Err(reason),
            Err(other) => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn what_is_given_is_used_and_the_rest_has_defaults() {
        let question = check(r#"{"query": "checkout hangs"}"#).unwrap();
        assert_eq!(question.time_millis, 1_800_000_000_000);
        assert_eq!((question.window, question.limit), (WINDOW, 5));
        let question =
            check(r#"{"scope": {"workload": "a"}, "time": "2026-01-31T03:10:00.5+01:00", "window": "90s"}"#).unwrap();
        assert_eq!(question.time_millis, 1_769_825_400_500);
        assert_eq!(question.window, Duration::from_secs(90));
        assert_eq!(
            check(r#"{"query": "x", "time": 1700000000}"#)
                .unwrap()
                .time_millis,
            1_700_000_000_000
        );
        let question = check(
            r#"{"alert": {"labels": {"alertname": "X", "workload": "w"}, "startsAt": "2026-01-01T00:00:00Z", "fingerprint": "f"}}"#,
        )
        .unwrap();
        assert_eq!(question.scope.workload.as_deref(), Some("w"));
        assert!(question.scope_is_a_guess);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_sentence() {
        for (body, words) in [
            ("{}", "at least one of"),
            (r#"{"query": "  "}"#, "at least one of"),
            (r#"{"query": "x", "window": "1s"}"#, "15s to 24h"),
            (r#"{"query": "x", "window": "2d"}"#, "15s to 24h"),
            (r#"{"query": "x", "window": "soon"}"#, "such as 5m"),
            (r#"{"query": "x", "limit": 0}"#, "1 to 100"),
            (
                r#"{"query": "x", "time": "2099-01-01T00:00:00Z"}"#,
                "in the future",
            ),
            (r#"{"query": "x", "time": 1e300}"#, "RFC 3339"),
            (r#"{"query": "x", "time": "yesterday"}"#, "RFC 3339"),
            (
                r#"{"scope": {"workload": "a\"} or vector(1)"}}"#,
                "no name has",
            ),
            (r#"{"query": "x", "windw": "5m"}"#, "unknown field `windw`"),
            (r#"{"scope": {"peer_workload": "x"}}"#, "unknown field"),
        ] {
            let error = check(body).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}
