//! A diagnosis as a person wants to read it; pure.

use std::fmt::Write;

use serde_json::Value;

/// The answer to the question asked while nothing was wrong.
pub(crate) fn healthy(answer: &Value) -> String {
    let mut text = format!("{}\n", answer["summary"].as_str().unwrap_or_default());
    let checked = list(&answer["checked"]);
    let named = |outcome: &str| {
        let modes: Vec<&str> = checked
            .iter()
            .filter(|one| one["outcome"] == outcome)
            .filter_map(|one| one["failure_mode"].as_str())
            .collect();
        modes.join(", ")
    };
    for (label, outcome) in [
        ("checked and absent", "absent"),
        ("could not be checked", "unavailable"),
    ] {
        let modes = named(outcome);
        if !modes.is_empty() {
            let _ = writeln!(text, "  {label}: {modes}");
        }
    }
    text
}

pub(crate) fn diagnosis(answer: &Value, assistant: &str) -> String {
    let mut text = format!("{}\n", answer["summary"].as_str().unwrap_or_default());
    for hypothesis in list(&answer["hypotheses"]).iter().take(3) {
        let _ = writeln!(
            text,
            "\n{}. {} ({}), confidence {:.0} %",
            hypothesis["rank"],
            word(&hypothesis["title"]),
            word(&hypothesis["failure_mode"]),
            100.0 * hypothesis["confidence"].as_f64().unwrap_or_default()
        );
        for place in list(&hypothesis["affected"]) {
            let ends: Vec<&str> = [&place["workload"], &place["peer_workload"]]
                .into_iter()
                .filter_map(Value::as_str)
                .collect();
            let _ = writeln!(text, "   where     {}", ends.join(" – "));
        }
        for evidence in list(&hypothesis["evidence"]) {
            let _ = writeln!(
                text,
                "   {:9} {:11} {}{}",
                word(&evidence["role"]),
                word(&evidence["outcome"]),
                evidence["title"]
                    .as_str()
                    .unwrap_or_else(|| word(&evidence["id"])),
                value(evidence)
            );
        }
        if hypothesis["rank"] == 1 {
            for step in list(&hypothesis["next_steps"]) {
                let _ = writeln!(
                    text,
                    "   next      {} [{}]",
                    word(&step["text"]),
                    word(&step["citation"])
                );
            }
        }
        if let Some(url) = hypothesis["runbook"]["url"].as_str() {
            let _ = writeln!(text, "   runbook   {assistant}{url}");
        }
    }
    for part in list(&answer["degraded"]) {
        let _ = writeln!(
            text,
            "\nnot available: {} ({})",
            word(&part["part"]),
            word(&part["reason"])
        );
    }
    text
}

fn value(evidence: &Value) -> String {
    let Some(value) = evidence["value"].as_f64() else {
        return String::new();
    };
    let threshold = word(&evidence["threshold"]);
    match evidence["unit"].as_str() {
        Some("ratio") => format!(": {:.1} % (threshold {threshold})", 100.0 * value),
        Some("seconds") => format!(": {:.1} ms (threshold {threshold} s)", 1000.0 * value),
        Some(unit) => format!(
            ": {value:.3} {} (threshold {threshold})",
            unit.replace('_', " ")
        ),
        None => format!(": {value:.3} (threshold {threshold})"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
