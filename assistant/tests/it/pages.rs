//! Pages, links of alerts, health.

use axum::http::{StatusCode, header};
use runwire_assistant::retrieval::embed::HashingEmbedder;
use serde_json::json;

use crate::service::{DNS, get, indexed, post, search, service};

#[tokio::test]
async fn pages_have_the_anchors_that_answers_point_to() {
    let service = indexed();
    let page = get(&service.router, "/runbooks/tcp/accept-queue").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.header(header::CONTENT_SECURITY_POLICY)
            .contains("default-src 'none'")
    );
    let answer = search(
        &service.router,
        json!({"query": "accept queue", "limit": 100}),
    )
    .await;
    for result in answer["results"].as_array().unwrap() {
        let page = get(&service.router, result["runbook"]["url"].as_str().unwrap()).await;
        let anchor = format!("id=\"{}\"", result["section"]["anchor"].as_str().unwrap());
        assert!(page.body.contains(&anchor), "{anchor}");
    }
    let dns = get(&service.router, "/runbooks/dns-servfail").await;
    assert!(!dns.body.contains("<script>alert"));
    assert_eq!(
        get(&service.router, "/runbooks/dns-servfail.md").await.body,
        DNS
    );
    assert_eq!(
        get(&service.router, "/runbooks/none").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&service.router, "/runbooks/..%2f..%2fetc%2fpasswd")
            .await
            .status,
        StatusCode::NOT_FOUND
    );

    let list = get(&service.router, "/runbooks").await.json();
    let ids: Vec<_> = list["runbooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].clone())
        .collect();
    assert_eq!(ids, ["dns-servfail", "tcp/accept-queue", "tls"]);
}

#[tokio::test]
async fn an_alert_leads_to_its_page_and_an_unknown_one_to_its_neighbours() {
    let service = indexed();
    let known = get(&service.router, "/r/CoreDNSErrorsHigh").await;
    assert_eq!(known.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(known.header(header::LOCATION), "/runbooks/dns-servfail");
    let unknown = get(&service.router, "/r/CoreDNSErrors%3Cb%3E").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(
        unknown
            .body
            .contains("<a href=\"/runbooks/dns-servfail\">CoreDNSErrorsHigh</a>")
    );
    assert!(!unknown.body.contains("<b>"));
}

#[tokio::test]
async fn health_and_metrics_tell_how_it_is() {
    let service = service(Some(Box::new(HashingEmbedder)));
    assert_eq!(
        get(&service.router, "/healthz").await.status,
        StatusCode::OK
    );
    assert_eq!(
        get(&service.router, "/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let early = post(&service.router, r#"{"query": "x"}"#).await;
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(early.header(header::RETRY_AFTER), "1");

    service.retriever.refresh().unwrap();
    let ready = get(&service.router, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.json()["index"]["runbooks"], 3);
    let metrics = get(&service.router, "/metrics").await.body;
    assert!(metrics.contains("runwire_assistant_runbooks 3\n"));
    assert!(
        metrics.contains(
            "runwire_assistant_http_requests_total{route=\"/search\",status=\"503\"} 1\n"
        )
    );
    assert!(
        get(&service.router, "/")
            .await
            .body
            .contains("<form id=\"ask\">")
    );
    assert_eq!(
        get(&service.router, "/assets/start.js").await.status,
        StatusCode::OK
    );
}
