//! Requests against the router, no socket.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use expect_test::{Expect, expect};
use runwire_collector::agent::Agent;
use runwire_collector::config::Config;
use runwire_collector::enrich::{Enricher, FiveTuple, Identities, Kind, Workload};
use runwire_collector::export::Registry;
use runwire_collector::flows::{End, FlowLimits, Phase, Sighting, TCP};
use runwire_collector::kernel::monotonic_nanoseconds;
use runwire_collector::server::router;
use serde_json::Value;
use tower::ServiceExt;

/// Sends a request to a collector that has just been started.
async fn check(method: &str, path: &str, expected: Expect) {
    let registry = Registry::new(100);
    let enricher = Enricher::of(Identities::default(), &registry);
    let agent = Arc::new(Agent::new(registry, Arc::new(enricher)));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty());
    let response = router(agent).oneshot(request.unwrap()).await.unwrap();
    let status = response.status();
    let content_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    // Of metrics, a line shows that they are there.
    let body = match body.strip_prefix('#') {
        Some(_) => body
            .lines()
            .find(|line| line.contains("build_info{"))
            .unwrap(),
        None => &body,
    };
    let body = body.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    expected.assert_eq(&format!("{status} {content_type}\n{body}"));
}

#[tokio::test]
async fn health_is_ok_before_anything_is_collected_and_readiness_is_not() {
    check(
        "GET",
        "/healthz",
        expect![[r#"
        200 OK application/json
        {"status":"ok"}"#]],
    )
    .await;
    check(
        "GET",
        "/readyz",
        expect![[r#"
        503 Service Unavailable application/json
        {"status":"starting","signals":[]}"#]],
    )
    .await;
}

#[tokio::test]
async fn metrics_are_served_from_the_start() {
    check(
        "GET",
        "/metrics",
        expect![[r#"
        200 OK text/plain; version=0.0.4; charset=utf-8
        runwire_build_info{version="VERSION"} 1"#]],
    )
    .await;
}

#[tokio::test]
async fn handshakes_are_a_list_also_when_there_are_none() {
    check(
        "GET",
        "/api/tls",
        expect![[r#"
        200 OK application/json
        []"#]],
    )
    .await;
    check("GET", "/api/tls/0000000000000007", expect![[r#"
        404 Not Found application/problem+json
        {"detail":"there is no such handshake, or no more; /api/tls lists those that are known","status":404,"title":"Not Found","type":"about:blank"}"#]]).await;
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_with_a_way_out() {
    check("GET", "/metric", expect![[r#"
        404 Not Found application/problem+json
        {"detail":"there is no /metric; try /metrics, /healthz or /readyz","status":404,"title":"Not Found","type":"about:blank"}"#]]).await;
    check("POST", "/metrics", expect![[r#"
        405 Method Not Allowed application/problem+json
        {"detail":"/metrics is only read: use GET","status":405,"title":"Method Not Allowed","type":"about:blank"}"#]]).await;
}

#[tokio::test]
async fn flows_are_rows_and_a_graph_empty_ones_included() {
    for path in [
        "/api/flows?limit=5&from=0&to=10&include=%5Ea%2B%2B%24",
        "/api/flows?namespace=",
    ] {
        check(
            "GET",
            path,
            expect![[r#"
            200 OK application/json
            []"#]],
        )
        .await;
    }
    check(
        "GET",
        "/api/graph/data?stats-type=bytes&namespace=&include=(a*)*%24&from=0&to=1&refId=A",
        expect![[r#"
        200 OK application/json
        {"nodes":[],"edges":[]}"#]],
    )
    .await;
    check(
        "GET",
        "/api/health",
        expect![[r#"
        200 OK application/json
        {"status":"ok"}"#]],
    )
    .await;
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    check("GET", "/api/flows?include=(", expect![[r#"
        400 Bad Request application/problem+json
        {"detail":"`include` is `(`: this is no regular expression; escape what is special with \\","status":400,"title":"Bad Request","type":"about:blank"}"#]]).await;
    check("GET", "/api/flows?prot=tcp", expect![[r#"
        400 Bad Request application/problem+json
        {"detail":"there is no parameter `prot`; they are namespace, workload, src, dst, port, protocol, state, role, include, exclude, from, to, sort, limit, stats-type","status":400,"title":"Bad Request","type":"about:blank"}"#]]).await;
    check(
        "GET",
        "/api/flows?src=%ff",
        expect![[r#"
        200 OK application/json
        []"#]],
    )
    .await;
    check("GET", "/api/graph/data?exclude=(", expect![[r#"
        400 Bad Request application/problem+json
        {"detail":"`exclude` is `(`: this is no regular expression; escape what is special with \\","status":400,"title":"Bad Request","type":"about:blank"}"#]]).await;
    check("GET", "/api/graph/fields?stats-type=rtt", expect![[r#"
        400 Bad Request application/problem+json
        {"detail":"`stats-type` is `rtt`: write one of connection, bytes, duration","status":400,"title":"Bad Request","type":"about:blank"}"#]]).await;
}

/// A connection to a port that has just ended.
fn ended(port: u16) -> Sighting {
    let now = monotonic_nanoseconds();
    Sighting {
        tuple: FiveTuple {
            protocol: TCP,
            client: ([10, 0, 0, 1], 40_000).into(),
            server: ([10, 0, 0, 2], port).into(),
        },
        service: None,
        end: End::Client,
        cookie: port.into(),
        netns: 1,
        phase: Phase::Closed(None),
        started: now - 2_000_000_000,
        opened: now - 2_000_000_000,
        now: now - 1_000_000_000,
        active: now - 1_500_000_000,
        bytes_sent: 1000 + u64::from(port),
        bytes_received: 10,
        segments_sent: 2,
        segments_received: 1,
    }
}

#[tokio::test]
async fn flows_of_memory_and_of_the_store_are_one_list() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        flow_store: Some(folder.path().to_owned()),
        ..Config::default()
    };
    let start = || {
        let registry = Registry::new(100);
        let enricher = Enricher::of(Identities::default(), &registry);
        let agent = Arc::new(Agent::new(registry, Arc::new(enricher)));
        agent.open_flow_store(&config);
        agent
    };
    let see = |agent: &Agent, port| {
        let workload = |name| Workload::local(name, Kind::Netns);
        let names = || (workload("shop"), workload("db"));
        agent.flows().lock().update(&ended(port), names);
    };
    let ports = |agent: &Arc<Agent>, query: &str| {
        let request = Request::get(format!("/api/flows?{query}")).body(Body::empty());
        let answer = router(agent.clone()).oneshot(request.unwrap());
        async move {
            let body = to_bytes(answer.await.unwrap().into_body(), 1 << 20).await;
            let rows: Vec<Value> = serde_json::from_slice(&body.unwrap()).unwrap();
            let port = |row: &Value| row["dst_port"].as_u64().unwrap();
            rows.iter().map(port).collect::<Vec<u64>>()
        }
    };
    let before = start();
    for port in [1, 2] {
        see(&before, port);
    }
    before.stop();
    // Of the next run, one is in memory and in the store, and one in the store alone.
    let agent = start();
    see(&agent, 3);
    agent.drain();
    let of_one = FlowLimits {
        entries: 1,
        ..FlowLimits::default()
    };
    agent.flows().lock().set_limits(of_one);
    see(&agent, 4);
    agent.drain();
    assert_eq!(ports(&agent, "sort=sent").await, [4], "of memory alone");
    assert_eq!(ports(&agent, "sort=sent&from=0").await, [4, 3, 2, 1]);
    assert_eq!(ports(&agent, "sort=sent&from=0&limit=2").await, [4, 3]);
    assert_eq!(ports(&agent, "from=0&port=2&workload=shop").await, [2]);
    assert_eq!(ports(&agent, "from=0&state=open").await, [0_u64; 0]);
    assert_eq!(ports(&agent, "to=1000").await, [0_u64; 0]);
    let now = jiff::Timestamp::now();
    assert_eq!(ports(&agent, &format!("from={now}")).await, [0_u64; 0]);
    check_store(&agent, &config).await;
}

/// `/readyz` names the folder, and says why it cannot be written.
async fn check_store(agent: &Arc<Agent>, config: &Config) {
    let folder = config.flow_store.as_deref().unwrap();
    assert_eq!(agent.health().flow_store.unwrap().reason, None);
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::write(folder, "in the way").unwrap();
    let reason = loop {
        if let Some(reason) = agent.health().flow_store.unwrap().reason {
            break reason;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let start = format!("cannot write to {}: ", folder.display());
    assert!(reason.starts_with(&start), "{reason}");
    std::fs::remove_file(folder).unwrap();
    std::fs::create_dir(folder).unwrap();
}
