//! `GET /openapi.json`: the API described, made from the very types that are served (OpenAPI 3.1).

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{diagnose, graph, health, incidents, runbooks, search, start, webhook};
use crate::error::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Runwire assistant",
        description = "Runbook search and network diagnosis from live metrics."
    ),
    paths(
        search::search,
        search::batch,
        diagnose::diagnose,
        webhook::alertmanager,
        incidents::list,
        incidents::one,
        incidents::feedback,
        runbooks::list,
        runbooks::page,
        runbooks::of_alert,
        runbooks::of_url,
        start::page,
        graph::fields,
        graph::data,
        graph::health,
        health::alive,
        health::ready,
        health::metrics,
        description,
    ),
    components(schemas(Problem))
)]
struct Routes;

/// Refusals that any route may answer with.
const EVERYWHERE: [(&str, &str); 5] = [
    ("401", "Who asks is not known"),
    ("403", "The Host header has a name that is not known here"),
    ("408", "The request took too long"),
    (
        "429",
        "Too many requests; Retry-After says when to come back",
    ),
    ("500", "Something failed here"),
];

/// Those of routes that take a body.
const WITH_BODY: [(&str, &str); 5] = [
    ("400", "A value makes no sense"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("422", "The body does not have the right shape"),
    (
        "503",
        "Something that is needed is not there yet; Retry-After says when to come back",
    ),
];

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| describe().to_string());

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, body = Object)))]
pub(super) async fn description() -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, DESCRIPTION.as_str())
}

fn describe() -> Value {
    let mut document = serde_json::to_value(Routes::openapi()).expect("a description is JSON");
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "description": "Where `auth` is required; a trusted proxy may name the user instead."}
    });
    document["security"] = json!([{"token": []}, {}]);
    let request = &mut document["components"]["schemas"]["DiagnoseRequest"];
    request["anyOf"] = json!([
        {"required": ["query"], "properties": {"query": {"type": "string", "pattern": "\\S"}}},
        {"required": ["alert"], "properties": {"alert": {"type": "object"}}},
        {"required": ["scope"], "properties": {"scope": {"type": "object"}}},
    ]);
    // What a variant of an enum cannot say by its type: before 1970 and after the year 9999 there is nothing to ask about.
    let times = document["components"]["schemas"]["Time"]["oneOf"].as_array_mut();
    for time in times.into_iter().flatten() {
        if time["type"] == "number" {
            time["minimum"] = 0.into();
            time["maximum"] = 253_402_300_799_i64.into();
        }
    }
    document["paths"]["/mcp"]["post"] = agents();
    let paths = document["paths"].as_object_mut().expect("there are paths");
    for (path, operations) in paths {
        for operation in operations
            .as_object_mut()
            .into_iter()
            .flat_map(|all| all.values_mut())
        {
            let mut problems = EVERYWHERE.to_vec();
            // What the protocol refuses, it refuses in its own way.
            if operation.get("requestBody").is_some() && path != "/mcp" {
                problems.extend(WITH_BODY);
            } else if path.contains('{') {
                problems.extend([
                    ("400", "The path is not text in UTF-8"),
                    ("404", "There is no such thing"),
                    (
                        "503",
                        "What it needs is not there yet; Retry-After says when to come back",
                    ),
                ]);
            }
            let Some(responses) = operation["responses"].as_object_mut() else {
                continue;
            };
            for (status, words) in problems {
                let response = responses
                    .entry(status)
                    .or_insert_with(|| json!({"description": words}));
                response["content"]["application/problem+json"] =
                    json!({"schema": {"$ref": "#/components/schemas/Problem"}});
                // To a browser, which asks for it.
                response["content"]["text/html"] = json!({"schema": {"type": "string"}});
            }
            // The standard wants one everywhere.
            for response in responses.values_mut() {
                if response["description"].as_str().is_none_or(str::is_empty) {
                    response["description"] = "The answer".into();
                }
            }
        }
    }
    document
}

/// Made of the protocol's messages, which its own specification describes.
fn agents() -> Value {
    json!({
        "tags": ["agents"],
        "operationId": "mcp",
        "summary": "Tools for agents, over the Model Context Protocol (streamable HTTP, without sessions)",
        "parameters": [{
            "name": "Accept", "in": "header", "required": true,
            "schema": {"const": "application/json, text/event-stream"},
        }],
        "requestBody": {"required": true, "content": {"application/json": {
            "schema": {
                "type": "object", "required": ["jsonrpc", "method"],
                "properties": {
                    "jsonrpc": {"const": "2.0"}, "id": {"type": ["integer", "string"]},
                    "method": {"type": "string"}, "params": {"type": "object"},
                },
            },
            "example": {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        }}},
        "responses": {
            "200": {"description": "The answer to a request", "content": {"application/json": {"schema": {"type": "object"}}}},
            "202": {"description": "A notification was taken"},
            "403": {"description": "The Host header has a name that is not ours"},
            "400": {"description": "The message is not one of the protocol"},
            "413": {"description": "The message is too large"},
            "415": {"description": "The message is not JSON"},
            "422": {"description": "The message cannot be read"},
            "406": {"description": "The Accept header must have application/json and text/event-stream"}
        }
    })
}
