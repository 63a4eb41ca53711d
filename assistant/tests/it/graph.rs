//! The graph of the whole cluster, from a real Prometheus that has what collectors on two nodes have counted.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::diagnose::prometheus;
use crate::service::{asking, get};
use runwire_assistant::diagnosis::DEADLINE;

/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;
const MINUTES: i64 = 10;

/// A counter that grows evenly, scraped every 15 s.
fn counter(lines: &mut String, family: &str, labels: &str, per_minute: i64) {
    for sample in 0..=MINUTES * 4 {
        let value = sample * per_minute / 4;
        let at = START + sample * 15;
        lines.push_str(&format!("{family}_total{{{labels}}} {value} {at}\n"));
    }
}

fn pair(source: &str, target: &str) -> String {
    let end = |prefix: &str, name: &str| {
        format!(
            "{prefix}_namespace=\"shop\",{prefix}_workload=\"{name}\",{prefix}_kind=\"deployment\""
        )
    };
    format!("{},{}", end("src", source), end("dst", target))
}

/// `cart` on node a calls `store` on node b; both collectors see it. A program without a collector calls `cart`.
fn world() -> String {
    let mut text = String::new();
    let there = pair("cart", "store");
    let back = pair("store", "cart");
    let inwards = pair("batch", "cart");
    text.push_str("# TYPE runwire_tcp_connections_opened counter\n");
    let family = "runwire_tcp_connections_opened";
    counter(
        &mut text,
        family,
        &format!("node=\"a\",role=\"client\",{there}"),
        60,
    );
    counter(
        &mut text,
        family,
        &format!("node=\"b\",role=\"server\",{there}"),
        60,
    );
    counter(
        &mut text,
        family,
        &format!("node=\"a\",role=\"server\",{inwards}"),
        120,
    );
    text.push_str("# TYPE runwire_tcp_connect_failures counter\n");
    let family = "runwire_tcp_connect_failures";
    counter(
        &mut text,
        family,
        &format!("node=\"a\",reason=\"refused\",{there}"),
        20,
    );
    text.push_str("# TYPE runwire_tcp_bytes_sent counter\n");
    let family = "runwire_tcp_bytes_sent";
    counter(&mut text, family, &format!("node=\"a\",{there}"), 1000);
    counter(&mut text, family, &format!("node=\"b\",{back}"), 40_000);
    text.push_str("# TYPE runwire_tcp_bytes_received counter\n");
    let family = "runwire_tcp_bytes_received";
    counter(&mut text, family, &format!("node=\"b\",{there}"), 1000);
    counter(&mut text, family, &format!("node=\"a\",{inwards}"), 2000);
    text + "# EOF\n"
}

fn edge<'a>(graph: &'a Value, source: &str, target: &str) -> &'a Value {
    let id = format!("deployment/shop/{source} -> deployment/shop/{target}");
    let edges = graph["edges"].as_array().unwrap();
    edges
        .iter()
        .find(|edge| edge["id"] == id.as_str())
        .unwrap_or_else(|| panic!("no {id} in {graph}"))
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
async fn what_both_ends_count_is_drawn_once() {
    let Some(server) = prometheus::start(&world()) else {
        println!("skipped: Prometheus is not installed");
        return;
    };
    let service = asking(&server.url, Vec::new(), None, DEADLINE);
    let to = START + MINUTES * 60;
    let range = format!("from={}&to={}", (to - 300) * 1000, to * 1000);

    let graph = get(&service.router, &format!("/api/graph/data?{range}")).await;
    assert_eq!(graph.status, StatusCode::OK, "{}", graph.body);
    let graph = graph.json();
    assert_eq!(graph["edges"].as_array().unwrap().len(), 2, "{graph}");
    let store = edge(&graph, "cart", "store");
    assert_eq!(
        [&store["mainStat"], &store["secondaryStat"]],
        [&json!("all: 400"), &json!("failed: 100")]
    );
    assert_eq!(store["detail__bytes_sent"], 5000.0);
    assert_eq!(store["detail__bytes_received"], 200_000.0);
    assert_eq!(store["detail__round_trip_average_seconds"], Value::Null);
    let batch = edge(&graph, "batch", "cart");
    assert_eq!(
        (&batch["detail__connections"], &batch["detail__bytes_sent"]),
        (&json!(600.0), &json!(10_000.0))
    );
    let nodes = graph["nodes"].as_array().unwrap();
    let cart = nodes.iter().find(|node| node["title"] == "cart").unwrap();
    assert_eq!(
        (&cart["arc__1"], &cart["arc__2"]),
        (&json!(0.9), &json!(0.1))
    );

    // The fields that are announced are those that are there.
    let fields = get(&service.router, "/api/graph/fields").await.json();
    for (kind, example) in [("edges_fields", store), ("nodes_fields", cart)] {
        let fields = fields[kind].as_array().unwrap();
        let names: Vec<&str> = fields
            .iter()
            .map(|field| field["field_name"].as_str().unwrap())
            .collect();
        for name in &names {
            assert!(example.get(name).is_some(), "{kind}: {name}");
        }
        assert_eq!(names.len(), example.as_object().unwrap().len());
    }

    let path =
        format!("/api/graph/data?{range}&workload=store&stats-type=bytes&refresh=7&include=");
    let graph = get(&service.router, &path).await.json();
    assert_eq!(graph["edges"].as_array().unwrap().len(), 1);
    assert_eq!(
        edge(&graph, "cart", "store")["secondaryStat"],
        "recv: 200 kB"
    );
    assert_eq!(
        get(&service.router, "/api/health").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn without_prometheus_there_is_no_graph_and_not_an_empty_one() {
    let service = asking("http://127.0.0.1:1", Vec::new(), None, DEADLINE);
    for path in ["/api/graph/data", "/api/health"] {
        let answer = get(&service.router, path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            answer.body.contains("cannot reach Prometheus"),
            "{}",
            answer.body
        );
    }
    let answer = get(&service.router, "/api/graph/data?limit=many").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn of_an_answer_that_lacks_series_there_is_no_graph() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = json!({"status": "success", "data": {"resultType": "vector", "result": []}, "isPartial": true});
    let prometheus = axum::Router::new().fallback(move || async move { axum::Json(body) });
    tokio::spawn(async move { axum::serve(listener, prometheus).await });
    let service = asking(&url, Vec::new(), None, DEADLINE);
    let answer = get(&service.router, "/api/graph/data").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer.body.contains("part of the series"),
        "{}",
        answer.body
    );
}
