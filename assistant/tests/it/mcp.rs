//! `/mcp`: tools for agents, over the protocol's own messages.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use runwire_assistant::diagnosis::DEADLINE;
use serde_json::{Value, json};

use crate::service::{Answer, asking, get, indexed, send};

async fn message(router: &Router, host: &str, body: Value) -> Answer {
    let request = Request::post("/mcp")
        .header("host", host)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(Body::from(body.to_string()))
        .unwrap();
    send(router, request).await
}

async fn ask(router: &Router, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let answer = message(router, "127.0.0.1:8080", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()
}

async fn call(router: &Router, tool: &str, arguments: Value) -> Value {
    let answer = ask(
        router,
        "tools/call",
        json!({"name": tool, "arguments": arguments}),
    )
    .await;
    answer["result"].clone()
}

#[tokio::test]
async fn an_agent_finds_its_tools_and_gets_what_the_api_gives() {
    let service = indexed();
    let router = &service.router;
    let hello = ask(
        router,
        "initialize",
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
    )
    .await;
    assert_eq!(hello["result"]["serverInfo"]["name"], "runwire");
    let listed = ask(router, "tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    let names: Vec<&str> = tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "search_runbooks",
            "diagnose",
            "query_metrics",
            "get_runbook"
        ]
    );
    for tool in tools {
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{tool}");
        assert_eq!(tool["annotations"]["readOnlyHint"], true);
    }

    let found = call(
        router,
        "search_runbooks",
        json!({"query": "servfail", "limit": 2}),
    )
    .await;
    assert_eq!(found["isError"], false);
    let api = crate::service::search(router, json!({"query": "servfail", "limit": 2})).await;
    assert_eq!(found["structuredContent"], api);
    let text: Value = serde_json::from_str(found["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, api);

    let diagnosis = call(router, "diagnose", json!({"query": "servfail"})).await;
    assert_eq!(diagnosis["structuredContent"]["status"], "unknown");
    let page = call(router, "get_runbook", json!({"id": "dns-servfail"})).await;
    assert_eq!(page["structuredContent"]["text"], crate::service::DNS);
}

#[tokio::test]
async fn a_wrong_call_is_told_how_to_mend_it() {
    let service = indexed();
    for (tool, arguments, words) in [
        ("search_runbooks", json!({}), "missing field `query`"),
        (
            "search_runbooks",
            json!({"query": "x", "limt": 1}),
            "unknown field `limt`",
        ),
        (
            "search_runbooks",
            json!({"query": "x", "limit": 0}),
            "from 1 to 100",
        ),
        ("diagnose", json!({}), "at least one of"),
        ("get_runbook", json!({"id": "dns-servfial"}), "dns-servfail"),
        (
            "query_metrics",
            json!({"query": "node_load1"}),
            "not for agents",
        ),
        (
            "query_metrics",
            json!({"query": "up", "step": "1s"}),
            "give `start` too",
        ),
        (
            "query_metrics",
            json!({"query": "up", "start": 0, "end": 1_000_000}),
            "at most 7d",
        ),
        (
            "query_metrics",
            json!({"query": "up", "start": 0, "end": 86_400, "step": "1s"}),
            "give 173s or more",
        ),
        (
            "query_metrics",
            json!({"query": "up"}),
            "ask again in a moment",
        ),
    ] {
        let answer = call(&service.router, tool, arguments.clone()).await;
        assert_eq!(answer["isError"], true, "{tool} {arguments}: {answer}");
        let text = answer["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(words), "{tool} {arguments}: {text}");
    }
}

#[tokio::test]
async fn a_web_page_under_another_name_is_not_answered() {
    let service = indexed();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let answer = message(&service.router, "evil.example", body).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
}

/// As VictoriaMetrics answers while a storage node is away: a part of a course would look like all of it.
#[tokio::test]
async fn that_a_course_lacks_values_is_told_on_pages_and_to_agents() {
    let now = jiff::Timestamp::now().as_second() - 60;
    let vector = json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [now, "1"]}]}});
    let matrix = |more: Value, result: Value| json!({"status": "success", "data": {"resultType": "matrix", "result": result}, "isPartial": more});
    for (range, on_page) in [
        (
            matrix(json!(true), json!([{"metric": {}, "values": [[now, "1"]]}])),
            Some("The plot may lack values: Prometheus answers with a part of the series"),
        ),
        (
            matrix(json!(true), json!([])),
            Some("The last hour is not known: Prometheus answers with a part of the series"),
        ),
        (
            json!({"status": "error", "error": "no disk"}),
            Some("The last hour is not known: Prometheus refuses the query: no disk"),
        ),
        (matrix(json!(false), json!([])), None),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (vector, range_answer) = (vector.clone(), range.clone());
        let prometheus = axum::Router::new()
            .route(
                "/api/v1/query_range",
                axum::routing::any(async move || axum::Json(range_answer)),
            )
            .fallback(async move || axum::Json(vector));
        tokio::spawn(async move { axum::serve(listener, prometheus).await });
        let folder = tempfile::tempdir().unwrap();
        let text = "---\nfailure_modes:\n  - id: m\n    title: The mode\n    anchor: diagnosis\n    evidence:\n      - {id: e, role: requires, title: The sign, expr: 'runwire_x > 0.5'}\n---\n# T\n\n## Diagnosis\n";
        std::fs::write(folder.path().join("page.md"), text).unwrap();
        let service = asking(&url, vec![folder.path().to_owned()], None, DEADLINE);
        service.retriever.refresh().unwrap();
        let page = get(&service.router, "/runbooks/page").await.body;
        match on_page {
            Some(words) => assert!(page.contains(words), "{words} in {page}"),
            None => assert!(page.contains("no values in the last hour"), "{page}"),
        }
        let course = json!({"query": "runwire_x", "start": now - 600});
        let told = call(&service.router, "query_metrics", course).await;
        let is_partial = told["structuredContent"]["partial"].is_string();
        let soon = json!({"query": "runwire_x", "start": "soon"});
        let told_of = call(&service.router, "query_metrics", soon).await;
        assert!(
            told_of["content"][0]["text"]
                .as_str()
                .unwrap()
                .contains("`start` is no time")
        );
        assert_eq!(is_partial, range["isPartial"] == true, "{told}");
    }
}
