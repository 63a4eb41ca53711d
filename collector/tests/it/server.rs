//! Requests against the router, no socket.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use expect_test::{Expect, expect};
use runwire_collector::agent::Agent;
use runwire_collector::enrich::{Enricher, Identities};
use runwire_collector::export::Registry;
use runwire_collector::server::router;
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
