//! Many requests about one moment, a Prometheus of which a part is slow, and what the answer says of its passages: over a real
//! Prometheus with the worlds of the runbooks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use runwire_assistant::diagnosis::expression::{Expression, Names};
use runwire_assistant::diagnosis::place::{Place, Position};
use runwire_assistant::diagnosis::response::{Diagnosis, Status};
use runwire_assistant::diagnosis::topology::Topology;
use runwire_assistant::diagnosis::{Engine, Scope};
use runwire_assistant::prometheus::{Prometheus, Sample, Settings, http_client};
use runwire_assistant::runbook::End;
use serde_json::{Value, json};

use super::worlds::{self, World};
use super::{families, library, prometheus, question, skipped};

/// Hands requests on to a Prometheus, those about SERVFAIL only when it is told to.
#[derive(Clone)]
struct Proxy {
    target: String,
    client: reqwest::Client,
    holds: Arc<AtomicBool>,
    /// Refuses what asks for the TCP metrics of the whole cluster.
    refuses: Arc<AtomicBool>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(target: &str) -> (Self, String) {
        let proxy = Self {
            target: target.to_owned(),
            client: http_client(PLENTY).unwrap(),
            holds: Arc::default(),
            refuses: Arc::default(),
            now: Arc::default(),
            most: Arc::default(),
            held: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(Self::pass)
            .with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (proxy, url)
    }

    async fn pass(
        State(proxy): State<Self>,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> impl IntoResponse {
        let now = proxy.now.fetch_add(1, Ordering::Relaxed) + 1;
        proxy.most.fetch_max(now, Ordering::Relaxed);
        let text = String::from_utf8_lossy(&body);
        let whole = text.contains("runwire_tcp_") && !text.contains("workload%3D%22client%22");
        if whole && text.contains("5m") && proxy.refuses.load(Ordering::Relaxed) {
            proxy.now.fetch_sub(1, Ordering::Relaxed);
            let refusal = json!({"status": "error", "errorType": "execution", "error": "query processing would load too many samples into memory in query execution"});
            return (StatusCode::UNPROCESSABLE_ENTITY, refusal.to_string().into());
        }
        let slow = String::from_utf8_lossy(&body).contains("servfail");
        if slow && proxy.holds.load(Ordering::Relaxed) {
            proxy.held.fetch_add(1, Ordering::Relaxed);
            while proxy.holds.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let kind = headers.get(header::CONTENT_TYPE).cloned().unwrap();
        let answer = proxy
            .client
            .post(format!("{}{uri}", proxy.target))
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .send()
            .await
            .unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        let body = answer.bytes().await.unwrap();
        proxy.now.fetch_sub(1, Ordering::Relaxed);
        (status, body)
    }
}

/// Queries that Prometheus itself says it has answered.
async fn asked(url: &str) -> usize {
    let client = http_client(PLENTY).unwrap();
    let text = client
        .get(format!("{url}/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let ours = |line: &&str| {
        line.starts_with("prometheus_http_requests_total{")
            && line.contains("handler=\"/api/v1/query\"")
    };
    let counts = text.lines().filter(ours);
    counts
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize)
        .sum()
}

fn named<'a>(worlds: &'a [World], start: &str) -> &'a World {
    let mut worlds = worlds.iter();
    worlds
        .find(|world| world.name.starts_with(start))
        .unwrap_or_else(|| panic!("no world is called {start}"))
}

fn engine(url: &str, deadline: Duration) -> Engine {
    let settings = Settings {
        timeout: Duration::from_secs(20),
        ..Settings::new(url)
    };
    Engine::new(Prometheus::new(settings).unwrap(), deadline)
}

const PLENTY: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_is_asked_about_once_in_part_and_in_plain_words() {
    let library = Arc::new(library());
    let worlds = worlds::all();
    let Some(server) = prometheus::start(&worlds::openmetrics(&worlds, &families(&library))) else {
        skipped("prometheus and promtool are not installed");
        return;
    };
    let (proxy, url) = Proxy::start(&server.url).await;
    fifty_cost_as_much_as_one(&server.url, &url, &proxy, &library, &worlds).await;
    what_is_slow_is_named_and_used_when_it_comes(&url, &proxy, &library, &worlds).await;
    what_is_too_much_is_asked_for_the_scope(&url, &proxy, &library, &worlds).await;
    narrowed_is_the_whole_filtered(&server.url, &library, &worlds).await;
    what_is_screened_out_is_nowhere(&server.url, &library, &worlds).await;
    a_vague_sentence_finds_the_fault(&server.url, &worlds).await;
}

async fn fifty_cost_as_much_as_one(
    server: &str,
    url: &str,
    proxy: &Proxy,
    library: &Arc<runwire_assistant::runbook::Library>,
    worlds: &[World],
) {
    let engine = Arc::new(engine(url, PLENTY));
    let alone_at = named(worlds, "nothing listens, 5").time();
    let before = asked(server).await;
    let one = engine.diagnose(library, &question(alone_at)).await;
    let alone = asked(server).await - before;
    assert_eq!(one.status, Status::Fault);

    let fresh = Arc::new(self::engine(url, PLENTY));
    proxy.most.store(0, Ordering::Relaxed);
    let before = asked(server).await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..50 {
        let (engine, library) = (fresh.clone(), library.clone());
        let mut question = question(alone_at);
        // Fifty alerts about different workloads.
        if index % 5 == 0 {
            question.scope.workload = Some(if index % 2 == 0 { "client" } else { "server" }.into());
        }
        tasks.spawn(async move { engine.diagnose(&library, &question).await });
    }
    while let Some(diagnosis) = tasks.join_next().await {
        let diagnosis = diagnosis.unwrap();
        assert_eq!(diagnosis.status, Status::Fault);
        if diagnosis.scope.is_empty() {
            assert_eq!(diagnosis, one);
        }
    }
    assert_eq!(asked(server).await - before, alone);
    let most = proxy.most.load(Ordering::Relaxed);
    // As many as have a turn, and as many slow ones.
    assert!(most <= 32, "{most} at a time");
}

fn unavailable(diagnosis: &Diagnosis) -> BTreeSet<&str> {
    let checked = diagnosis.checked.iter();
    checked
        .filter(|checked| checked.outcome == "unavailable")
        .map(|checked| checked.failure_mode.as_str())
        .collect()
}

async fn what_is_slow_is_named_and_used_when_it_comes(
    url: &str,
    proxy: &Proxy,
    library: &runwire_assistant::runbook::Library,
    worlds: &[World],
) {
    let time = named(worlds, "nobody accepts").time();
    let whole = engine(url, PLENTY).diagnose(library, &question(time)).await;
    let deadline = Duration::from_secs(3);
    let engine = engine(url, deadline);
    proxy.holds.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let part = engine.diagnose(library, &question(time)).await;
    assert!(started.elapsed() < deadline + Duration::from_secs(3));
    let judged = |diagnosis: &Diagnosis| diagnosis.hypotheses[0].failure_mode.clone();
    assert_eq!(judged(&part), judged(&whole));
    assert!(part.hypotheses[0].confidence <= whole.hypotheses[0].confidence);
    let lost = unavailable(&part);
    assert!(lost.contains("dns-servfail") && !unavailable(&whole).contains("dns-servfail"));
    assert!(!lost.contains("no-listener"));
    let told: Vec<&str> = part
        .degraded
        .iter()
        .filter(|part| part.part == "diagnosis")
        .map(|part| part.reason.as_str())
        .collect();
    assert!(
        told.len() == 1
            && told[0].contains("could not be judged")
            && told[0].contains("dns-servfail"),
        "{:?}",
        part.degraded
    );
    assert!(
        part.degraded
            .iter()
            .any(|part| part.reason.contains("the deadline of 3s passed")),
        "{:?}",
        part.degraded
    );
    // What was held comes late, and is there for the next one.
    let held = proxy.held.load(Ordering::Relaxed);
    assert!(held > 0);
    proxy.holds.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = engine.prometheus.asked();
    let again = engine.diagnose(library, &question(time)).await;
    assert_eq!(again, whole);
    let first = before - u64::try_from(held).unwrap();
    let more = engine.prometheus.asked() - before;
    assert!(
        more < first,
        "{more} more after {first} and {held} late ones"
    );
}

async fn what_is_too_much_is_asked_for_the_scope(
    url: &str,
    proxy: &Proxy,
    library: &runwire_assistant::runbook::Library,
    worlds: &[World],
) {
    let time = named(worlds, "nothing listens, 5").time();
    let mut about_client = question(time);
    about_client.scope.workload = Some("client".into());
    let whole = engine(url, PLENTY).diagnose(library, &about_client).await;
    proxy.refuses.store(true, Ordering::Relaxed);
    let narrow = engine(url, PLENTY).diagnose(library, &about_client).await;
    let lost = engine(url, PLENTY).diagnose(library, &question(time)).await;
    proxy.refuses.store(false, Ordering::Relaxed);
    assert_eq!(narrow.hypotheses[0].failure_mode, "no-listener");
    assert_eq!(narrow.hypotheses[0].affected, whole.hypotheses[0].affected);
    let says = |diagnosis: &Diagnosis, words: &str| {
        let mut parts = diagnosis.degraded.iter();
        parts.any(|part| part.reason.contains(words))
    };
    assert!(
        says(&narrow, "asked for the scope alone"),
        "{:?}",
        narrow.degraded
    );
    assert!(says(&lost, "too many samples") && says(&lost, "could not be judged"));
}

/// Of every expression of the runbooks, for ends that are a client, a server or both, in worlds with several pairs.
async fn narrowed_is_the_whole_filtered(
    server: &str,
    library: &runwire_assistant::runbook::Library,
    worlds: &[World],
) {
    let prometheus = Prometheus::new(Settings::new(server)).unwrap();
    let mut expressions = BTreeSet::new();
    for runbook in &library.runbooks {
        let of_modes = runbook.failure_modes.iter().flat_map(|mode| &mode.evidence);
        expressions.extend(of_modes.map(|evidence| evidence.expr.clone()));
    }
    const AROUND: [&str; 4] = ["client", "server", "coredns", "~external"];
    let is_around = |sample: &Sample| {
        ["src_workload", "dst_workload"]
            .iter()
            .filter_map(|end| sample.labels.get(*end))
            .all(|name| AROUND.contains(&name.as_str()))
    };
    let (mut narrowed, mut series, mut around_series) = (0, 0, 0);
    for (world, workload) in [
        ("one client is served badly", "client"),
        ("two pairs, two faults", "server"),
        ("the path takes 40 ms", "dns"),
        ("CoreDNS finds none", "coredns"),
        ("one client is served badly", ""),
    ] {
        let time = named(worlds, world).time() * 1000;
        let scope = Scope {
            namespace: Some("host".into()),
            workload: Some(workload.into()).filter(|name: &String| !name.is_empty()),
            ..Scope::default()
        };
        let is_in = |sample: &Sample| {
            let position = Position::of(&sample.labels);
            scope.contains(
                &Place::suggested_by(&position, End::Pair),
                &Topology::default(),
            ) && position.workloads().next().is_some()
        };
        for text in &expressions {
            let expression = Expression::parse(text).unwrap();
            let window = Duration::from_secs(300);
            let Some(query) = expression.query_for(window, &scope) else {
                continue;
            };
            let ask = async |query: &str| {
                let mut samples = prometheus.instant(query, time).await.unwrap().samples;
                samples.retain(|sample| sample.value.is_finite() && is_in(sample));
                samples.sort_by(|a, b| a.labels.cmp(&b.labels));
                samples
            };
            let (part, whole) = (ask(&query).await, ask(&expression.query(window)).await);
            assert_eq!(part, whole, "{query}");
            narrowed += 1;
            series += part.len();
            if let Some(around) = expression.of_pairs_among(&Names::new(&AROUND.join("|")).unwrap())
            {
                let query = around.query(window);
                let (mut part, mut whole) = (ask(&query).await, whole);
                for samples in [&mut part, &mut whole] {
                    samples.retain(is_around);
                }
                assert_eq!(part, whole, "{query}");
                around_series += part.len();
            }
        }
    }
    assert!(narrowed > 500 && series > 25, "{narrowed} {series}");
    assert!(around_series > 15, "{around_series}");
}

/// Of every expression of the runbooks, in every tenth world: where a series is beyond the threshold, the cheap looks for one
/// find something.
async fn what_is_screened_out_is_nowhere(
    server: &str,
    library: &runwire_assistant::runbook::Library,
    worlds: &[World],
) {
    let prometheus = Prometheus::new(Settings::new(server)).unwrap();
    let mut expressions = BTreeSet::new();
    for runbook in &library.runbooks {
        let of_modes = runbook.failure_modes.iter().flat_map(|mode| &mode.evidence);
        let compared = of_modes.filter(|evidence| evidence.baseline.is_none());
        expressions.extend(compared.map(|evidence| evidence.expr.clone()));
    }
    let windows = [300, 30].map(Duration::from_secs);
    let (mut beyond, mut nowhere, mut spines, mut floors, mut pairs) = (0, 0, 0, 0, 0);
    for world in worlds.iter().step_by(10) {
        let time = world.time() * 1000;
        for text in &expressions {
            let expression = Expression::parse(text).unwrap();
            let finds = async |query: &str| {
                !prometheus
                    .instant(query, time)
                    .await
                    .unwrap()
                    .samples
                    .is_empty()
            };
            let mut is_beyond = false;
            for window in windows {
                let samples = prometheus.instant(&expression.query(window), time).await;
                let mut samples = samples.unwrap().samples.into_iter();
                is_beyond |= samples
                    .any(|sample| sample.value.is_finite() && expression.holds(sample.value));
            }
            let looks = [
                expression.query_spine_pairs(windows[0]),
                expression.query_floored_pairs(&windows),
            ];
            for look in looks.into_iter().flatten() {
                pairs +=
                    pairs_say_where_it_is(&prometheus, &expression, &look, windows, time).await;
            }
            let closely = finds(&expression.query_beyond(&windows, false)).await;
            assert!(closely || !is_beyond, "{}: {text}", world.name);
            if let Some(spine) = expression.query_spine(windows[0]) {
                let roughly = finds(&spine).await;
                assert!(roughly || !closely, "{}: {text}", world.name);
                spines += usize::from(!roughly);
                if let Some(floored) = expression.query_floored(&windows) {
                    let enough = finds(&floored).await;
                    assert!(enough || !closely, "{}: {text}", world.name);
                    floors += usize::from(enough);
                }
            }
            beyond += usize::from(is_beyond);
            nowhere += usize::from(!closely);
        }
    }
    assert!(
        beyond > 20 && nowhere > 500 && spines > 500 && floors > 20 && pairs > 20,
        "{beyond} {nowhere} {spines} {floors} {pairs}"
    );
}

/// Whatever is beyond the threshold is between workloads that the cheap look names, and asked for these alone the expression gives
/// the same values. Returns how many there were.
async fn pairs_say_where_it_is(
    prometheus: &Prometheus,
    expression: &Expression,
    query: &str,
    windows: [Duration; 2],
    time: i64,
) -> usize {
    let ends = |labels: &BTreeMap<String, String>| {
        ["src_workload", "dst_workload"].map(|end| labels.get(end).cloned().unwrap_or_default())
    };
    let named: BTreeSet<[String; 2]> = prometheus
        .instant(query, time)
        .await
        .unwrap()
        .samples
        .iter()
        .map(|pair| ends(&pair.labels))
        .collect();
    let names: BTreeSet<&str> = named.iter().flatten().map(String::as_str).collect();
    let pattern = names.iter().copied().collect::<Vec<_>>().join("|");
    // Nothing is among nobody.
    let near =
        (!names.is_empty()).then(|| expression.among(&Names::new(&pattern).unwrap()).unwrap());
    let mut found = 0;
    for window in windows {
        let mut whole = prometheus
            .instant(&expression.query(window), time)
            .await
            .unwrap()
            .samples;
        for sample in whole.iter().filter(|sample| sample.value.is_finite()) {
            let between = ends(&sample.labels);
            assert!(
                !expression.holds(sample.value) || named.contains(&between),
                "{between:?}: {query}"
            );
        }
        let Some(near) = &near else { continue };
        let is_near = |labels: &BTreeMap<String, String>| {
            ends(labels).iter().all(|end| names.contains(end.as_str()))
        };
        whole.retain(|sample| is_near(&sample.labels));
        found += whole.len();
        let part = prometheus.instant(&near.query(window), time).await;
        let mut part = part.unwrap().samples;
        for answer in [&mut part, &mut whole] {
            answer.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        // Not a number is not equal to itself.
        assert_eq!(format!("{part:?}"), format!("{whole:?}"), "{query}");
    }
    found
}

/// A page of a team's own: no front matter, and PromQL in its text.
const NOTES: &str = r#"# Checkout

When checkout hangs sometimes, look at how often its clients connect:

```promql
sum by (src_workload, dst_workload) (rate(runwire_tcp_connect_attempts_total[5m])) > 1
```

Then ask the payment provider:

```promql
sum by (
```
"#;

async fn a_vague_sentence_finds_the_fault(server: &str, worlds: &[World]) {
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("checkout.md"), NOTES).unwrap();
    let folders = vec![worlds::runbooks(), own.path().to_owned()];
    let embedder = Some(Box::new(runwire_assistant::retrieval::embed::HashingEmbedder) as Box<_>);
    let service = crate::service::asking(server, folders, embedder, PLENTY);
    service.retriever.refresh().unwrap();
    let ask = async |request: Value| -> Value {
        let request = axum::http::Request::post("/diagnose")
            .header(header::CONTENT_TYPE, "application/json")
            .body(request.to_string().into())
            .unwrap();
        let answer = crate::service::send(&service.router, request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()
    };
    let time = named(worlds, "nobody accepts").time();
    let answer = ask(json!({"query": "checkout hangs sometimes", "time": time})).await;
    assert_eq!(answer["status"], "fault");
    let first = &answer["hypotheses"][0];
    assert_eq!(first["failure_mode"], "accept-queue-overflow");
    let passages = first["passages"].as_array().unwrap();
    assert!(
        !passages.is_empty()
            && passages
                .iter()
                .all(|passage| passage["evidence"] == "present")
    );
    let related = answer["passages"].as_array().unwrap();
    let absent: Vec<bool> = related
        .iter()
        .map(|passage| passage["evidence"] == "absent")
        .collect();
    assert!(absent.is_sorted(), "{absent:?}");

    // The team's page is cited, and its PromQL told with the value of then.
    let page = |passage: &&Value| passage["runbook"]["id"] == "checkout";
    let notes = related.iter().find(page).unwrap();
    assert_eq!(notes.get("evidence"), None);
    let [told, broken] = notes["queries"].as_array().unwrap().as_slice() else {
        panic!("{notes}");
    };
    assert_eq!(
        (&told["outcome"], &told["time"]),
        (&json!("present"), &answer["time"])
    );
    assert_eq!(told["threshold"], "> 1");
    assert_eq!(told["about"], "all workloads");
    let again = Prometheus::new(Settings::new(server)).unwrap();
    let again = again
        .instant(told["query"].as_str().unwrap(), time * 1000)
        .await
        .unwrap()
        .samples;
    let six_digits = |value: f64| format!("{value:.5e}").parse::<f64>().unwrap();
    let value = told["value"].as_f64().unwrap();
    assert!(again.iter().any(|sample| six_digits(sample.value) == value));
    assert_eq!(broken["outcome"], "unavailable");
    assert!(
        broken["reason"].as_str().unwrap().contains("not PromQL"),
        "{broken}"
    );
    // For somebody else it has none.
    let scope = json!({"workload": "dns"});
    let time_of_dns = named(worlds, "every third answer").time();
    let other =
        ask(json!({"query": "checkout hangs sometimes", "scope": scope, "time": time_of_dns}))
            .await;
    let notes = other["passages"]
        .as_array()
        .unwrap()
        .iter()
        .find(page)
        .unwrap()
        .clone();
    assert_ne!(notes["queries"][0]["outcome"], "present");

    // Who asks is the client, and what the server's page wants to know is of the server.
    let scope = json!({"workload": "client"});
    let answer = ask(json!({"scope": scope, "time": time})).await;
    let first = &answer["hypotheses"][0];
    assert_eq!(first["failure_mode"], "accept-queue-overflow");
    let queries = first["passages"].as_array().unwrap().iter();
    let arrivals = queries
        .filter_map(|passage| passage["queries"].as_array())
        .flatten()
        .find(|query| query["block"].to_string().contains("by (dst_namespace"))
        .unwrap_or_else(|| panic!("{first}"));
    assert_eq!(
        (
            &arrivals["about"],
            &arrivals["outcome"],
            &arrivals["series"]
        ),
        (&json!("server"), &json!("present"), &json!(1)),
        "{arrivals}"
    );
    assert_eq!(arrivals["samples"][0]["labels"]["dst_workload"], "server");

    let healthy = named(worlds, "a busy pair").time();
    let alert = json!({"labels": {"alertname": "RunwireDnsServfail"}});
    let answer =
        ask(json!({"query": "lookups fail with SERVFAIL", "alert": alert, "time": healthy})).await;
    assert_eq!(answer["status"], "no_network_fault");
    let related = answer["passages"].as_array().unwrap();
    let servfail = related
        .iter()
        .find(|passage| passage["runbook"]["id"] == "dns-servfail")
        .unwrap_or_else(|| panic!("{related:?}"));
    assert_eq!(servfail["evidence"], "absent");
}
