//! What is asked about a moment while it is now, and later: the same bytes. A real Prometheus scrapes what changes every second.

use std::time::Duration;

use axum::extract::State;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use runwire_assistant::diagnosis::response::Diagnosis;
use runwire_assistant::diagnosis::{Engine, Question, Scope};

use super::{engine, families, library, prometheus, skipped, worlds};

/// A series, its value at the start, and by how much it grows from one scrape to the next.
type Course = (String, u32, Vec<u32>);

/// Counters of what a collector would see: any of them may stand still, begin or stop at any time.
fn courses(names: Vec<String>) -> impl Strategy<Value = Vec<Course>> {
    let steps = prop::collection::vec(prop_oneof![3 => Just(0_u32), 2 => 0..20_u32], 60);
    let one = (prop::sample::select(names), 0..1000_u32, steps);
    // So many that some of them make up a failure mode.
    prop::collection::vec(one, 150..250)
}

/// Edges of the worlds' series, so that evidence and places are real ones.
fn names() -> Vec<String> {
    let library = library();
    let worlds = worlds::all();
    let text = worlds::openmetrics(&worlds, &families(&library));
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once("} "))
        .map(|(name, _)| format!("{name}}}"))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[derive(Clone)]
struct Exporter {
    courses: Vec<Course>,
    families: Vec<String>,
    started: std::time::Instant,
}

async fn metrics(State(exporter): State<Exporter>) -> String {
    let at = exporter.started.elapsed().as_secs() as usize;
    let mut text = String::new();
    for (name, start, steps) in &exporter.courses {
        let grown: u32 = steps.iter().take(at).sum();
        text += &format!("{name} {}\n", start + grown);
    }
    for family in &exporter.families {
        text += &format!("runwire_series{{metric=\"{family}\"}} 1\n");
    }
    text
}

fn question(time_millis: i64, window: u64) -> Question {
    Question {
        scope: Scope::default(),
        scope_is_a_guess: false,
        time_millis,
        window: Duration::from_secs(window),
        limit: 100,
        since_millis: None,
        alert: None,
        hits: Vec::new(),
    }
}

fn now_millis() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

async fn bytes(engine: &Engine, question: &Question) -> (String, Diagnosis) {
    let diagnosis = engine.diagnose(&library(), question).await;
    (serde_json::to_string(&diagnosis).unwrap(), diagnosis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_says_what_the_present_said() {
    if !prometheus::installed("prometheus") {
        skipped("prometheus is not installed");
        return;
    }
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(1),
        ..Config::default()
    });
    let mut courses = courses(names()).new_tree(&mut runner).unwrap().current();
    courses.sort();
    courses.dedup_by(|one, other| one.0 == other.0);
    let exporter = Exporter {
        courses,
        families: families(&library()).into_iter().collect(),
        started: std::time::Instant::now(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let app = axum::Router::new()
        .route("/metrics", axum::routing::get(metrics))
        .with_state(exporter);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: collector\n    honor_labels: true\n    static_configs: [{{targets: ['{target}']}}]\n"
    );
    let server = prometheus::scraping(&config).unwrap();

    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut live = Vec::new();
    for window in [15, 60, 300, 15] {
        // As the API does for a question without a time.
        let time = (now_millis() - 500) / 1000 * 1000;
        let question = question(time, window);
        let answer = bytes(&engine(&server.url), &question).await;
        live.push((question, answer));
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut found = 0;
    for (question, (live, diagnosis)) in live {
        found += diagnosis.hypotheses.len();
        let (later, _) = bytes(&engine(&server.url), &question).await;
        assert_eq!(live, later, "{} ms", question.time_millis);
    }
    // Of nothing there would be little to compare.
    assert!(found > 0);
}
