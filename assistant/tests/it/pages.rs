//! Pages, links of alerts, health.

use axum::http::{StatusCode, header};
use runwire_assistant::diagnosis::DEADLINE;
use runwire_assistant::retrieval::embed::HashingEmbedder;
use serde_json::json;

use crate::diagnose::hostile::{says, server};
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
    assert!(unknown.body.contains("<a href=\"/runbooks/dns-servfail"));
    assert!(!unknown.body.contains("<b>"));
    // Whoever goes on asks about the same alert, place and time.
    let unknown = get(&service.router, "/r/Queue%20%231%20full?namespace=shop").await;
    let diagnose = "<a href=\"/?q=Queue%20%231%20full&amp;namespace=shop\">";
    assert!(unknown.body.contains(diagnose), "{}", unknown.body);
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
    // A link of an alert that comes too early is not told that there is no such runbook.
    for path in ["/runbooks/tls", "/r/CoreDNSErrorsHigh"] {
        let early = get(&service.router, path).await;
        assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }

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
            .contains("<form id=\"ask\" method=\"get\"")
    );
    assert_eq!(
        get(&service.router, "/assets/page.js").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn every_style_of_runbook_url_leads_to_the_section_and_keeps_what_it_was_asked() {
    let service = indexed();
    for (path, place) in [
        (
            "/r/corednserrorshigh?namespace=shop&time=1",
            "/runbooks/dns-servfail?namespace=shop&time=1",
        ),
        (
            "/r?url=https%3A%2F%2Fgithub.com%2Fkubernetes-monitoring%2Fkubernetes-mixin%2Ftree%2Fmaster%2Frunbook.md%23alert-name-corednserrorshigh",
            "/runbooks/dns-servfail",
        ),
        (
            "/r?namespace=a%20b&url=https%3A%2F%2Frunbooks.prometheus-operator.dev%2Frunbooks%2Fcoredns%2Fcorednserrorshigh%2F",
            "/runbooks/dns-servfail?namespace=a%20b",
        ),
        (
            "/r?url=https%3A%2F%2Fgithub.com%2Fopenshift%2Frunbooks%2Fblob%2Fmaster%2Falerts%2Fcluster-dns-operator%2FCoreDNSErrorsHigh.md",
            "/runbooks/dns-servfail",
        ),
        ("/r/Accept-Queue", "/runbooks/tcp/accept-queue"),
        (
            "/r?url=https%3A%2F%2Fother.example%2Frunbooks%2Ftcp%2Faccept-queue%23mitigation&workload=w",
            "/runbooks/tcp/accept-queue?workload=w#mitigation",
        ),
        // What the address itself was asked with, and a heading as GitHub links to it.
        (
            "/r?url=https%3A%2F%2Fgithub.com%2Fa%2Fb%2Fblob%2Fmain%2Falerts%2FCoreDNSErrorsHigh.md%3Fnamespace%3Dshop%26workload%3Dcart%26time%3D5%26plain%3D1%23mitigation",
            "/runbooks/dns-servfail?namespace=shop&workload=cart&time=5#mitigation",
        ),
        (
            "/r?url=https%3A%2F%2Fx%2Faccept-queue.mdx%3Fnamespace%3Dshop%23Mitigation&namespace=bank",
            "/runbooks/tcp/accept-queue?namespace=bank#mitigation",
        ),
        (
            "/r?url=https%3A%2F%2Fx%2Frunbooks%2Ftls%23dns-servfail",
            "/runbooks/tls",
        ),
        (
            "/r?url=https%3A%2F%2Fx%2FCoreDNSErrorsHigh.md%23no-such-heading",
            "/runbooks/dns-servfail",
        ),
    ] {
        let answer = get(&service.router, path).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{path}");
        assert_eq!(answer.header(header::LOCATION), place, "{path}");
    }
    let unknown = get(
        &service.router,
        "/r?url=https%3A%2F%2Fx%2Fdocs%2Frunbooks%2FAcceptQueueGone.md&namespace=n",
    )
    .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(
        unknown
            .body
            .contains("/runbooks/tcp/accept-queue?namespace=n"),
        "{}",
        unknown.body
    );
    assert_eq!(
        get(&service.router, "/r").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn pages_allow_a_browser_nothing_but_their_own_files() {
    let service = indexed();
    for path in [
        "/",
        "/?q=names+cannot+be+resolved",
        "/runbooks/dns-servfail",
        "/r/Nothing",
    ] {
        let page = get(&service.router, path).await;
        let policy = page.header(header::CONTENT_SECURITY_POLICY);
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"));
        assert_eq!(
            page.header(header::X_CONTENT_TYPE_OPTIONS),
            "nosniff",
            "{path}"
        );
        assert_eq!(page.header(header::X_FRAME_OPTIONS), "DENY", "{path}");
        assert_eq!(
            page.header(header::REFERRER_POLICY),
            "same-origin",
            "{path}"
        );
        for inline in ["<style", " style=", " onclick=", "javascript:"] {
            assert!(!page.body.contains(inline), "{inline} in {path}");
        }
        // Every script is a file of ours; every file can be kept under its address.
        assert_eq!(page.body.matches("<script").count(), 1, "{path}");
        let script = page.body.split("<script src=\"").nth(1).unwrap();
        let script = script.split('"').next().unwrap();
        let file = get(&service.router, script).await;
        assert!(
            file.header(header::CACHE_CONTROL).contains("immutable"),
            "{script}"
        );
    }
    let old = get(&service.router, "/assets/style.css?v=0").await;
    assert_eq!(old.header(header::CACHE_CONTROL), "no-cache");
}

#[tokio::test]
async fn a_page_is_readable_and_says_so_when_prometheus_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let text = "---\nfailure_modes:\n  - id: m\n    title: The mode\n    anchor: diagnosis\n    evidence:\n      - {id: e, role: requires, title: The sign, expr: 'rate(runwire_x_total[5m]) > 0.5'}\n---\n# T\n\n## Diagnosis\n\n```promql\nup > 0\n```\n";
    std::fs::write(folder.path().join("page.md"), text).unwrap();
    let service = crate::service::over(
        vec![folder.path().to_owned()],
        Some(Box::new(HashingEmbedder)),
    );
    service.retriever.refresh().unwrap();
    let started = std::time::Instant::now();
    let page = get(
        &service.router,
        "/runbooks/page?namespace=shop&pod=cart-1&time=never",
    )
    .await;
    assert!(started.elapsed().as_secs() < 3);
    assert_eq!(page.status, StatusCode::OK);
    for part in [
        "<h2 id=\"diagnosis\">",
        "evidence unavailable",
        "The sign",
        "could not be looked for",
        "live unavailable",
        "Not everything could be had",
        "Left out of the address",
        "pod shop/cart-1",
        // Whoever changes the time keeps the scope.
        "name=\"pod\" value=\"cart-1\"",
    ] {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_in_the_text_tells_that_its_answer_lacks_series() {
    for (result, has_value) in [
        ("[]", false),
        ("[{\"metric\":{},\"value\":[1,\"7\"]}]", true),
    ] {
        let body = format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":{result}}},\"isPartial\":true}}"
        );
        let response = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
        let (url, _) = server(says(response.leak()));
        let folder = tempfile::tempdir().unwrap();
        let text = "# T\n\n```promql\nup\n```\n";
        std::fs::write(folder.path().join("page.md"), text).unwrap();
        let folders = vec![folder.path().to_owned()];
        let service = crate::service::asking(&url, folders, None, DEADLINE);
        service.retriever.refresh().unwrap();
        let page = get(&service.router, "/runbooks/page").await.body;
        assert!(page.contains("part of the series"), "{page}");
        assert!(!page.contains("no series"), "{page}");
        assert_eq!(page.contains("<strong>7</strong>"), has_value, "{page}");
    }
}

#[tokio::test]
async fn the_start_page_answers_without_script_and_shows_only_text_of_what_it_was_given() {
    let service = indexed();
    let page = get(
        &service.router,
        "/?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&namespace=%22%3E%3Cb%3E",
    )
    .await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(
        !page.body.contains("<img") && !page.body.contains("<b>"),
        "{}",
        page.body
    );
    let alert = "%7B%22labels%22%3A%7B%22alertname%22%3A%22X%22%7D%2C%22annotations%22%3A%7B%22runbook_url%22%3A%22https%3A%2F%2Fa%2FCoreDNSErrorsHigh.md%22%7D%7D";
    let page = get(&service.router, &format!("/?q={alert}")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.body.contains("Alert <strong>X</strong>"),
        "{}",
        page.body
    );
    assert!(
        page.body.contains("href=\"/runbooks/dns-servfail?time="),
        "{}",
        page.body
    );
    // Prometheus is not there, and the page says so.
    assert!(
        page.body.contains("status unknown") && page.body.contains("Not everything could be had")
    );
    let page = get(
        &service.router,
        "/?q=the+certificate+of+the+server+is+no+longer+valid",
    )
    .await;
    assert!(page.body.contains("/runbooks/tls"), "{}", page.body);
}

#[tokio::test]
async fn a_path_that_is_no_text_is_a_problem_like_any_other() {
    let service = indexed();
    for path in ["/runbooks/%FF", "/r/%FF", "/incidents/%FF"] {
        let answer = get(&service.router, path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        let kind = answer.header(header::CONTENT_TYPE);
        assert_eq!(kind, "application/problem+json", "{path}");
    }
}
