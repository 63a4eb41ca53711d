//! Questions over the router: answers, and what bad ones are told.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use runwire_assistant::retrieval::Filters;
use serde_json::{Value, json};

use crate::service::{Service, get, indexed, post, search, send, service};

#[tokio::test]
async fn an_answer_has_the_shape_of_the_contract() {
    let service = indexed();
    let answer = search(
        &service.router,
        json!({"query": "resolver answers SERVFAIL diagnosis dig", "limit": 1}),
    )
    .await;
    assert_eq!(answer["query"], "resolver answers SERVFAIL diagnosis dig");
    assert_eq!(answer["answerable"], true);
    let result = &answer["results"][0];
    assert_eq!(result["rank"], 1);
    assert!(result["score"].as_f64().unwrap() > 0.3);
    assert_eq!(result["runbook"]["id"], "dns-servfail");
    assert_eq!(result["runbook"]["title"], "DNS answers SERVFAIL");
    assert_eq!(result["runbook"]["url"], "/runbooks/dns-servfail");
    assert!(
        result["runbook"]["path"]
            .as_str()
            .unwrap()
            .ends_with("/dns-servfail.md")
    );
    let section = &result["section"];
    assert_eq!(
        section["heading_path"],
        json!(["DNS answers SERVFAIL", "Diagnosis"])
    );
    assert_eq!(section["anchor"], "diagnosis");
    assert_eq!(
        (&section["line_start"], &section["line_end"]),
        (&json!(14), &json!(14))
    );
    assert_eq!(
        result["text"],
        "Ask the server with `dig` and look at the status."
    );
}

#[tokio::test]
async fn the_same_question_gives_the_same_bytes() {
    let (one, other) = (indexed(), indexed());
    let ask = json!({"query": "listener does not accept connections", "k": 7}).to_string();
    let first = post(&one.router, ask.clone()).await;
    assert!(first.headers.contains_key("server-timing"));
    for _ in 0..5 {
        assert_eq!(post(&one.router, ask.clone()).await.body, first.body);
    }
    let place = |service: &Service| service.folder.path().display().to_string();
    let moved = post(&other.router, ask)
        .await
        .body
        .replace(&place(&other), &place(&one));
    assert_eq!(moved, first.body);
}

#[tokio::test]
async fn an_alert_name_goes_to_its_runbook_first() {
    let service = indexed();
    for query in [
        "CoreDNSErrorsHigh",
        "accept queue listener overflow CoreDNSErrorsHigh",
        "core dns errors high",
    ] {
        let answer = search(&service.router, json!({"query": query})).await;
        assert_eq!(
            answer["results"][0]["runbook"]["id"], "dns-servfail",
            "{query}"
        );
        assert_eq!(answer["answerable"], true);
    }
}

#[tokio::test]
async fn two_passages_of_a_runbook_are_enough_unless_it_is_asked_for() {
    let service = indexed();
    let count = |answer: &Value| {
        let results = answer["results"].as_array().unwrap();
        results
            .iter()
            .filter(|r| r["runbook"]["id"] == "tcp/accept-queue")
            .count()
    };
    let all = search(&service.router, json!({"query": "accept queue full"})).await;
    assert_eq!(count(&all), 2);
    let filters = json!({"runbook": ["tcp/accept-queue"]});
    let one = search(
        &service.router,
        json!({"query": "accept queue full", "filters": filters}),
    )
    .await;
    assert!(count(&one) > 2);
    assert_eq!(one["results"].as_array().unwrap().len(), count(&one));
    let filters = json!({"labels": {"team": "security"}});
    let labelled = search(
        &service.router,
        json!({"query": "accept queue", "filters": filters}),
    )
    .await;
    let results = labelled["results"].as_array().unwrap();
    assert!(results.iter().all(|r| r["runbook"]["id"] == "tls"));
}

#[tokio::test]
async fn bad_requests_are_told_what_to_change() {
    let service = indexed();
    for (body, status, words) in [
        (r#"{"query": ""}"#, 400, "`query` is empty"),
        (r#"{"query": " \n"}"#, 400, "`query` is empty"),
        (r#"{"query": "x", "limit": 0}"#, 400, "from 1 to 100"),
        (r#"{"query": "x", "limit": -1}"#, 400, "from 1 to 100"),
        (r#"{"query": "x", "k": 101}"#, 400, "from 1 to 100"),
        (r#"{"query": "x", "limit": "ten"}"#, 422, "limit"),
        (r#"{"query": "x", "limit": 1.5}"#, 422, "limit"),
        (r#"{"query": 5}"#, 422, "query"),
        (r#"{"limit": 5}"#, 422, "query"),
        (r#"{"query": "x", "limitt": 5}"#, 422, "limitt"),
        (
            r#"{"query": "x", "filters": {"labels": []}}"#,
            422,
            "filters",
        ),
        ("{\"query\": ", 400, "not JSON"),
        ("", 400, "not JSON"),
        ("[]", 422, "does not fit"),
        ("\u{0}", 400, "not JSON"),
    ] {
        let answer = post(&service.router, body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
        assert_eq!(
            answer.header(header::CONTENT_TYPE),
            "application/problem+json"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{body}: {problem}"
        );
    }

    let long = json!({"query": "x".repeat(70 << 10)}).to_string();
    assert_eq!(
        post(&service.router, long).await.status,
        StatusCode::BAD_REQUEST
    );
    let large = json!({"query": "x".repeat(2 << 20)}).to_string();
    assert_eq!(
        post(&service.router, large).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );

    let untyped = Request::post("/search").body(Body::from("{}")).unwrap();
    assert_eq!(
        send(&service.router, untyped).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let wrong_method = get(&service.router, "/search").await;
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong_method.header(header::ALLOW), "POST");
    assert_eq!(
        wrong_method.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
    let nowhere = get(&service.router, "/nowhere").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_eq!(
        nowhere.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
}

#[tokio::test]
async fn odd_questions_are_answered_all_the_same() {
    let service = indexed();
    for query in [
        "?",
        "🙂",
        "\u{0}",
        "....",
        "a:b::c->",
        "\" OR 1=1 --",
        "*:* AND [a TO z]",
        "ß\u{301}",
    ] {
        let answer = search(&service.router, json!({"query": query})).await;
        assert_eq!(answer["query"], query);
    }
}

#[test]
fn without_a_model_words_are_enough() {
    let service = service(None);
    service.retriever.refresh().unwrap();
    let found = service
        .retriever
        .search("certifcate expired", 3, &Filters::default())
        .unwrap();
    assert_eq!(found.results[0].runbook.id, "tls");
    let nothing = service
        .retriever
        .search("zebra crossing", 3, &Filters::default())
        .unwrap();
    assert!(!nothing.answerable);
}

#[test]
fn an_alert_whose_section_has_headings_of_its_own_is_first_all_the_same() {
    let service = service(None);
    for (name, page) in [
        (
            "all.md",
            "# All alerts\n\n## KubeletPodStartLatencyHigh\n\n### Meaning\n\nPods start late.\n\n## Others\n\nWords.\n",
        ),
        (
            "near.md",
            "# About KubeletPodStartLatencyHigh and its kind\n\nKubeletPodStartLatencyHigh is no fault.\n",
        ),
    ] {
        std::fs::write(service.folder.path().join(name), page).unwrap();
    }
    service.retriever.refresh().unwrap();
    let found = service
        .retriever
        .search("KubeletPodStartLatencyHigh", 3, &Filters::default())
        .unwrap();
    let first = &found.results[0];
    assert!(found.answerable);
    assert_eq!(
        (first.runbook.id.as_str(), first.section.anchor.as_str()),
        ("all", "meaning")
    );
}
