//! Servers in Prometheus' place that hang, drip, flood, lead elsewhere or talk of something else: an answer comes in time, and says why.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runwire_assistant::diagnosis::Engine;
use runwire_assistant::diagnosis::response::{Diagnosis, Part, Status};
use runwire_assistant::prometheus::{Prometheus, Settings};

use super::{library, question};

/// Reads one request, so that closing the connection does not reset it.
fn request(stream: &mut TcpStream) {
    let mut buffer = [0; 65536];
    let _ = stream.read(&mut buffer);
}

/// A server whose every connection is treated like that, on a thread of its own; and how many there were.
pub(crate) fn server(
    treat: impl Fn(TcpStream) + Clone + Send + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::Relaxed);
            let treat = treat.clone();
            std::thread::spawn(move || treat(stream));
        }
    });
    (url, connections)
}

pub(crate) fn says(response: &'static str) -> impl Fn(TcpStream) + Clone + Send {
    move |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(response.as_bytes());
    }
}

fn hangs(mut stream: TcpStream) {
    request(&mut stream);
    std::thread::sleep(Duration::from_secs(30));
}

/// A byte now and then, which no time-out between two bytes would notice.
fn drips(mut stream: TcpStream) {
    request(&mut stream);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{");
    while stream.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn floods(mut stream: TcpStream) {
    request(&mut stream);
    let _ = stream.write_all(
        b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[",
    );
    let item = "{\"metric\":{\"a\":\"b\"},\"value\":[1,\"1\"]},".repeat(1000);
    while stream.write_all(item.as_bytes()).is_ok() {}
}

fn engine(url: &str, deadline: Duration) -> Engine {
    let settings = Settings {
        timeout: 2 * deadline,
        max_response_bytes: 1 << 20,
        ..Settings::new(url)
    };
    Engine::new(Prometheus::new(settings).unwrap(), deadline)
}

fn reason(diagnosis: &Diagnosis) -> &str {
    assert_eq!(diagnosis.status, Status::Unknown);
    assert_eq!(diagnosis.hypotheses, []);
    let unavailable = |checked: &runwire_assistant::diagnosis::response::Checked| {
        checked.outcome == "unavailable"
    };
    assert!(!diagnosis.checked.is_empty() && diagnosis.checked.iter().all(unavailable));
    assert_eq!(diagnosis.degraded.len(), 1, "{:?}", diagnosis.degraded);
    &diagnosis.degraded[0].reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_prometheus_says_is_answered_in_time_and_with_a_reason() {
    const DEADLINE: Duration = Duration::from_millis(400);
    let library = library();
    let ended = "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n{\"status\":\"success\",";
    let unavailable =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: https://u:p@login.example/sso?next=secret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 28\r\nConnection: close\r\n\r\n<!doctype html><p>Sign in</p";
    let empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let scalar = "HTTP/1.1 200 OK\r\nContent-Length: 62\r\nConnection: close\r\n\r\n{\"status\":\"success\",\"data\":{\"resultType\":\"string\",\"result\":1}}";
    for ((url, _), words) in [
        (server(hangs), "the deadline of 400ms passed"),
        (server(drips), "the deadline of 400ms passed"),
        (server(floods), "is larger than 1 MiB"),
        (server(says(ended)), "cannot be read"),
        (server(says(unavailable)), "answers status 503"),
        (
            server(says(elsewhere)),
            "a redirect to login.example/sso; set `prometheus`",
        ),
        (server(says(page)), "it is a web page"),
        (server(says(empty)), "cannot be read"),
        (server(says(scalar)), "cannot be read"),
        (
            server(says("SSH-2.0-OpenSSH_9.9\r\n")),
            "cannot reach Prometheus",
        ),
        (server(drop), "cannot reach Prometheus"),
    ] {
        let engine = engine(&url, DEADLINE);
        let started = Instant::now();
        let diagnosis = engine.diagnose(&library, &question(1_700_000_000)).await;
        let took = started.elapsed();
        let reason = reason(&diagnosis);
        assert!(reason.contains(words), "{words}: {reason}");
        assert!(
            !reason.contains("secret") && !reason.contains("u:p"),
            "{reason}"
        );
        assert!(
            took < DEADLINE + Duration::from_secs(2),
            "{words}: {took:?}"
        );
    }
}

/// As Thanos answers while one of its stores is away: nothing that is not there is known not to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_answers_lack_series_is_told() {
    let partial = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]},\"warnings\":[\"store s:10901: unavailable\"]}";
    let (url, _) = server(says(partial));
    let engine = engine(&url, Duration::from_secs(2));
    let diagnosis = engine.diagnose(&library(), &question(1_700_000_000)).await;
    assert_eq!(diagnosis.status, Status::Unknown);
    let is_told = |part: &Part| {
        part.part == "prometheus"
            && part.reason
                == "Prometheus answers with a part of the series: store s:10901: unavailable"
    };
    assert!(
        diagnosis.degraded.iter().any(is_told),
        "{:?}",
        diagnosis.degraded
    );
}

/// A request about another moment asks other queries, so every one of them would find the turns of those before it taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_behind_those_that_hang() {
    let (url, connections) = server(hangs);
    let deadline = Duration::from_millis(200);
    let engine = Arc::new(engine(&url, deadline));
    let library = Arc::new(library());
    let started = Instant::now();
    engine.diagnose(&library, &question(1_600_000_000)).await;
    let alone = started.elapsed();
    let mut tasks = tokio::task::JoinSet::new();
    for moment in 0..30 {
        let (engine, library) = (Arc::clone(&engine), Arc::clone(&library));
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(20 * moment)).await;
            let asked = Instant::now();
            let question = question(1_700_000_000 + i64::try_from(moment).unwrap());
            let diagnosis = engine.diagnose(&library, &question).await;
            let reason = reason(&diagnosis);
            assert!(reason.contains("the deadline of 200ms passed"), "{reason}");
            asked.elapsed()
        });
    }
    let mut slowest = Duration::ZERO;
    while let Some(took) = tasks.join_next().await {
        slowest = slowest.max(took.unwrap());
    }
    // Composing answers in a build for tests takes its time, the more so on a busy machine: what one takes alone tells how much.
    let patience = Duration::from_secs(3) + 30 * alone;
    assert!(slowest < patience, "{slowest:?}, and {alone:?} alone");
    // At most as many at once as are waited for, and as many that nobody waits for, for the 400 ms that one may take.
    let rounds = started.elapsed().as_millis() / 200 + 2;
    let connections = connections.load(Ordering::Relaxed);
    assert!(connections as u128 <= 32 * rounds, "{connections}");
}
