//! The description says what is served: every route is in it, and answers have the shapes it gives.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::service::{get, indexed, send};

/// A schema's `$ref` followed.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let target = document.pointer(reference.trim_start_matches('#'));
            resolved(
                document,
                target.unwrap_or_else(|| panic!("{reference} leads nowhere")),
            )
        }
        None => schema,
    }
}

/// What is wrong with a value: type, required and unknown fields, items, alternatives.
fn faults(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[alternatives].as_array() {
            let fits = |choice: &Value| faults(document, choice, value, place).is_empty();
            return if choices.iter().any(fits) {
                Vec::new()
            } else {
                vec![format!("{place}: {value} is none of the alternatives")]
            };
        }
    }
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{place}: no type is called {other}"),
    };
    let fits = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        _ => true,
    };
    if !fits {
        return vec![format!("{place}: {value} is not {}", schema["type"])];
    }
    let mut found = Vec::new();
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{place}: {value} is none of {allowed:?}"));
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                found.push(format!("{place}: {name} is missing"));
            }
        }
        for (name, field) in fields {
            let place = format!("{place}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, inner @ Value::Object(_)) => {
                    found.extend(faults(document, inner, field, &place))
                }
                // Not said to be there: the description has forgotten it.
                (Value::Null, _) if schema["properties"].is_object() => {
                    found.push(format!("{place} is not described"))
                }
                (Value::Null, _) => {}
                (inner, _) => found.extend(faults(document, inner, field, &place)),
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(faults(
            document,
            &schema["items"],
            item,
            &format!("{place}[{index}]"),
        ));
    }
    found
}

#[tokio::test]
async fn every_route_is_described() {
    let service = indexed();
    let document = get(&service.router, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let source = include_str!("../../src/api.rs");
    let routes = source.split(".route(\"").skip(1);
    let mut count = 0;
    for route in routes.filter_map(|rest| rest.split('"').next()) {
        let path = route.replace("{*", "{");
        if path.starts_with("/assets/") {
            continue;
        }
        count += 1;
        assert!(
            document["paths"][&path].is_object(),
            "{path} is not described"
        );
    }
    assert!(count > 8, "{count}");
    // What validators and makers of clients ask for.
    let mut names = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let words = response["description"].as_str().unwrap_or_default();
                assert!(!words.is_empty(), "{path} {status} has no description");
            }
        }
    }
}

#[tokio::test]
async fn answers_have_the_shapes_that_are_described() {
    let service = indexed();
    let document = get(&service.router, "/openapi.json").await.json();
    let question = json!({"query": "servfail", "limit": 3});
    for (method, path, template, body) in [
        ("GET", "/openapi.json", "/openapi.json", None),
        ("GET", "/readyz", "/readyz", None),
        ("GET", "/runbooks", "/runbooks", None),
        ("GET", "/runbooks/none", "/runbooks/{id}", None),
        ("POST", "/search", "/search", Some(question.clone())),
        ("POST", "/search", "/search", Some(json!({"query": ""}))),
        ("POST", "/search", "/search", Some(json!({"query": 1}))),
        (
            "POST",
            "/search/batch",
            "/search/batch",
            Some(json!({"queries": [question, {"query": ""}]})),
        ),
        (
            "POST",
            "/diagnose",
            "/diagnose",
            Some(json!({"query": "servfail", "narrate": true})),
        ),
        (
            "POST",
            "/diagnose",
            "/diagnose",
            Some(json!({"scope": {"workload": "a"}, "time": 1})),
        ),
        ("POST", "/diagnose", "/diagnose", Some(json!({}))),
    ] {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let text = body.as_ref().map(Value::to_string).unwrap_or_default();
        let answer = send(&service.router, request.body(Body::from(text)).unwrap()).await;
        let operation = &document["paths"][template][method.to_lowercase()];
        let response = &operation["responses"][answer.status.as_str()];
        assert!(
            response.is_object(),
            "{path} {}: not described",
            answer.status
        );
        let kind = answer
            .header(header::CONTENT_TYPE)
            .split(';')
            .next()
            .unwrap();
        let schema = &response["content"][kind]["schema"];
        assert!(
            schema.is_object(),
            "{path} {} as {kind}: not described",
            answer.status
        );
        let found = faults(&document, schema, &answer.json(), "answer");
        assert!(found.is_empty(), "{path} {body:?}: {found:#?}");
    }
}
