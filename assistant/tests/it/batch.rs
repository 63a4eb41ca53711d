//! Many questions in one request, more requests than there are cores, and requests that make no sense.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::service::{Answer, indexed, post, search, send, service};

async fn batch(router: &Router, body: impl Into<Body>) -> Answer {
    let request = Request::post("/search/batch")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap();
    send(router, request).await
}

#[tokio::test]
async fn a_batch_gives_each_query_its_answer_in_order() {
    let router = indexed().router;
    let queries = json!([
        {"query": "resolver SERVFAIL"},
        {"query": " "},
        {"query": "accept queue", "limit": 3, "filters": {"runbook": ["tcp/accept-queue"]}},
        {"query": 7},
        {"query": "certificate", "k": 101},
        {"quarry": "x"},
    ]);
    let answer = batch(&router, json!({"queries": queries, "limit": 1}).to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    let alone = json!({"query": "resolver SERVFAIL", "limit": 1});
    assert_eq!(results[0], search(&router, alone).await);
    assert_eq!(results[2]["results"].as_array().unwrap().len(), 3);
    for (at, status) in [(1, 400), (3, 422), (4, 400), (5, 422)] {
        let error = &results[at]["error"];
        assert_eq!(error["status"], status, "{error}");
        assert!(!error["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn bad_batches_are_told_what_to_change() {
    let router = indexed().router;
    let many = vec![json!({"query": "x"}); 101];
    for (body, status, words) in [
        (json!({"queries": []}), 400, "from 1 to 100"),
        (json!({"queries": many}), 400, "from 1 to 100"),
        (
            json!({"queries": [{"query": "x"}], "limit": 0}),
            400,
            "from 1 to 100",
        ),
        (json!({"queries": "x"}), 422, "queries"),
        (json!({"query": "x"}), 422, "query"),
        (json!([]), 422, "does not fit"),
    ] {
        let answer = batch(&router, body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(answer.body.contains(words), "{}", answer.body);
        assert_eq!(
            answer.header(header::CONTENT_TYPE),
            "application/problem+json"
        );
    }
    let unready = service(None).router;
    let answer = batch(&unready, r#"{"queries": [{"query": "x"}]}"#).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// More at once than may wait: some are refused with a time to come back, and all others are answered.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_capacity_requests_are_refused_and_not_queued_for_ever() {
    let router = indexed().router;
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        let router = router.clone();
        requests.spawn(async move { post(&router, r#"{"query": "accept queue is full"}"#).await });
    }
    let mut answered = 0;
    let mut refused = 0;
    while let Some(answer) = requests.join_next().await {
        let answer = answer.unwrap();
        match answer.status {
            StatusCode::OK => answered += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                refused += 1;
                assert_eq!(answer.header(header::RETRY_AFTER), "1");
                assert_eq!(
                    answer.header(header::CONTENT_TYPE),
                    "application/problem+json"
                );
            }
            other => panic!("{other}: {}", answer.body),
        }
    }
    assert!(answered >= 100, "{answered} answered, {refused} refused");
    let after = post(&router, r#"{"query": "accept queue is full"}"#).await;
    assert_eq!(after.status, StatusCode::OK);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let keys = prop_oneof![
            Just("query".to_owned()),
            Just("limit".to_owned()),
            Just("k".to_owned()),
            Just("filters".to_owned()),
            Just("runbook".to_owned()),
            Just("labels".to_owned()),
            Just("queries".to_owned()),
            "[a-z]{1,5}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(keys, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Nearly right requests get further than arbitrary ones.
fn request() -> impl Strategy<Value = Value> {
    let limit = prop_oneof![(-3_i64..200).prop_map(Value::from), any_json()];
    let query = prop_oneof![3 => "\\PC{0,60}".prop_map(Value::from), 1 => any_json()];
    (query, prop::option::of(limit), prop::option::of(any_json())).prop_map(
        |(query, limit, filters)| {
            let mut request = json!({"query": query});
            if let Some(limit) = limit {
                request["limit"] = limit;
            }
            if let Some(filters) = filters {
                request["filters"] = filters;
            }
            request
        },
    )
}

#[test]
fn no_request_makes_it_fail() {
    let router = indexed().router;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bodies = prop_oneof![
        request().prop_map(|request| request.to_string()),
        prop::collection::vec(prop_oneof![request(), any_json()], 0..6)
            .prop_map(|queries| json!({"queries": queries}).to_string()),
        any_json().prop_map(|value| value.to_string()),
        "\\PC{0,60}",
    ];
    proptest!(ProptestConfig::with_cases(300), |(body in bodies)| {
        for path in ["/search", "/search/batch"] {
            let request = Request::post(path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.clone()))
                .unwrap();
            let answer = runtime.block_on(send(&router, request));
            let status = answer.status.as_u16();
            prop_assert!(matches!(status, 200 | 400 | 422), "{status} for {body}");
            if status != 200 {
                prop_assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
                prop_assert!(!answer.json()["detail"].as_str().unwrap_or_default().is_empty());
            }
        }
    });
}
