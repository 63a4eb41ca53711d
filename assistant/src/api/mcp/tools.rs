//! What agents are told of the tools: names, words, and the shape of what each takes.

use std::sync::Arc;

use rmcp::model::{Tool, ToolAnnotations};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;

/// Metrics that `query_metrics` may read where nobody says otherwise: ours, and whether targets are up.
const METRICS: [&str; 2] = ["runwire_", "up"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunbookRequest {
    pub(super) id: String,
}

pub(super) fn metrics(config: &Config) -> Vec<String> {
    let given = config.access.mcp_metrics.clone();
    given.unwrap_or_else(|| METRICS.map(str::to_owned).to_vec())
}

pub(super) fn all(config: &Config) -> Vec<Tool> {
    let readable = metrics(config).join(", ");
    vec![
        tool(
            "search_runbooks",
            "Search the runbooks",
            "Passages of the team's runbooks for a question, an alert's name or an error line, best first, each with file, section and lines to cite. `answerable` false: nothing in them is about it.".into(),
            json!({
                "query": {"type": "string", "minLength": 1, "description": "A sentence, an alert's name or an error line"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                "filters": {"type": "object", "additionalProperties": false, "properties": {
                    "runbook": {"type": "array", "items": {"type": "string"}, "description": "Only these runbooks, by id"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Only runbooks with these labels"}
                }}
            }),
            &["query"],
        ),
        tool(
            "diagnose",
            "Find what is wrong with the network",
            "Ranked causes of a network problem now or at a past time, each with the live numbers for and against, the workloads it is about, steps and runbook sections to cite. Give at least one of `query`, `alert` and `scope`. The same question about the same time has the same answer.".into(),
            json!({
                "query": {"type": "string", "maxLength": 2000, "description": "What is wrong, in a sentence"},
                "scope": {"type": "object", "additionalProperties": false, "description": "Which workloads; left out: all", "properties": {
                    "namespace": {"type": "string"}, "workload": {"type": "string"},
                    "pod": {"type": "string"}, "node": {"type": "string"}
                }},
                "alert": {"type": "object", "description": "An alert as Alertmanager has it", "properties": {
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}}
                }},
                "time": {"type": ["string", "number"], "description": "RFC 3339 or Unix seconds; left out: now"},
                "window": {"type": "string", "default": "5m", "description": "How far to look back from there, 15s to 24h"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5}
            }),
            &[],
        ),
        tool(
            "query_metrics",
            "Ask Prometheus",
            format!("The value of a PromQL expression at a moment, or with `start` its course over a time. It may read these metrics: {readable} (a name that ends in _ stands for all that begin with it). At most 100 series and 500 points of each are told; `series_left_out` counts the rest, and `partial` says why others may be missing."),
            json!({
                "query": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "PromQL with plain metric names, without subqueries"},
                "time": {"type": ["string", "number"], "description": "For one moment: RFC 3339 or Unix seconds; left out: now"},
                "start": {"type": ["string", "number"], "description": "For a course: where it begins"},
                "end": {"type": ["string", "number"], "description": "Where the course ends; left out: now"},
                "step": {"type": "string", "description": "Between points, such as 30s; left out: what gives 250 points"}
            }),
            &["query"],
        ),
        tool(
            "get_runbook",
            "Read a runbook",
            "A whole runbook by its id, as search and diagnosis name it.".into(),
            json!({"id": {"type": "string", "minLength": 1, "description": "Such as dns-servfail"}}),
            &["id"],
        ),
    ]
}

fn tool(
    name: &'static str,
    title: &'static str,
    description: String,
    properties: Value,
    required: &[&str],
) -> Tool {
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else {
        unreachable!("it is written as an object")
    };
    let reads = ToolAnnotations::new()
        .read_only(true)
        .destructive(false)
        .idempotent(true)
        .open_world(false);
    Tool::new(name, description, Arc::new(schema))
        .with_title(title)
        .with_annotations(reads)
}
