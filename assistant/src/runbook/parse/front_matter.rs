//! The YAML or TOML at the head of a runbook. Pages from elsewhere have keys of their own: unknown ones are left alone at
//! the top level, while inside `failure_modes`, `symptoms` and `forecasts`, which are ours, a wrong key is a warning.

use std::collections::{BTreeMap, HashSet};

use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::runbook::{FailureMode, Forecast, Symptom, WarningKind};

/// The parser's time grows with the square of the depth: fifty thousand brackets took it ten seconds, only to be
/// refused.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(super) enum Syntax {
    Yaml,
    Toml,
}

#[derive(Default)]
pub(super) struct FrontMatter {
    pub(super) title: Option<String>,
    pub(super) alerts: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// With the line each begins on.
    pub(super) failure_modes: Vec<(usize, FailureMode)>,
    pub(super) symptoms: Vec<Symptom>,
    pub(super) forecasts: Vec<Forecast>,
}

impl FrontMatter {
    pub(super) fn read(
        syntax: Syntax,
        yaml: &str,
        warn: &mut impl FnMut(usize, WarningKind),
    ) -> Self {
        let keys = match syntax.read(yaml) {
            Ok(Value::Mapping(keys)) => keys,
            Ok(Value::Null) => return Self::default(),
            Ok(_) => {
                let reason = "it must be a mapping of keys to values".to_owned();
                warn(2, syntax.wrong(reason));
                return Self::default();
            }
            Err((line, reason)) => {
                warn(line + 1, syntax.wrong(reason));
                return Self::default();
            }
        };

        let mut front_matter = Self::default();
        let wrong_type = |key: &str, expected| {
            let kind = WarningKind::FrontMatterType {
                key: key.to_owned(),
                expected,
            };
            (line_of_key(yaml, key), kind)
        };
        for (key, value) in &keys {
            let Some(key) = key.as_str() else { continue };
            match key {
                "title" => match scalar(value) {
                    Some(title) => front_matter.title = Some(title),
                    None => {
                        let (line, kind) = wrong_type(key, "a text");
                        warn(line, kind);
                    }
                },
                "alerts" => match list_of_names(value) {
                    Some(alerts) => front_matter.alerts = alerts,
                    None => {
                        let (line, kind) = wrong_type(key, "a list of alert names");
                        warn(line, kind);
                    }
                },
                "labels" => match labels(value) {
                    Some(labels) => front_matter.labels = labels,
                    None => {
                        let (line, kind) = wrong_type(key, "a mapping of names to texts");
                        warn(line, kind);
                    }
                },
                "failure_modes" => {
                    front_matter.failure_modes = items(yaml, "failure_modes", value, warn);
                }
                "symptoms" => {
                    let symptoms = items::<Symptom>(yaml, "symptoms", value, warn);
                    front_matter.symptoms = symptoms.into_iter().map(|(_, item)| item).collect();
                }
                "forecasts" => {
                    let forecasts = items::<Forecast>(yaml, "forecasts", value, warn);
                    front_matter.forecasts = forecasts.into_iter().map(|(_, item)| item).collect();
                }
                _ => {}
            }
        }
        front_matter
            .failure_modes
            .retain(|(line, mode)| match problem(mode) {
                None => true,
                Some(reason) => {
                    let mode = mode.id.clone();
                    warn(*line, WarningKind::FailureMode { mode, reason });
                    false
                }
            });
        front_matter
    }
}

impl Syntax {
    /// The same for both; or the line, from 1, and what is wrong with it.
    fn read(self, text: &str) -> Result<Value, (usize, String)> {
        if let Some(line) = too_deep(text) {
            let reason = format!("brackets are nested more than {MAX_DEPTH} deep");
            return Err((line, reason));
        }
        match self {
            Self::Yaml => serde_yaml_ng::from_str(text).map_err(|error| {
                let line = error.location().map_or(1, |location| location.line());
                (line, error.to_string())
            }),
            Self::Toml => toml::from_str(text).map_err(|error| {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = 1 + before.map_or(0, |before| before.matches('\n').count());
                (line, error.message().to_owned())
            }),
        }
    }

    fn wrong(self, reason: String) -> WarningKind {
        let syntax = match self {
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        };
        WarningKind::FrontMatterSyntax { syntax, reason }
    }
}

/// What the types cannot say.
fn problem(mode: &FailureMode) -> Option<String> {
    if !is_kebab_case(&mode.id) {
        return Some(
            "`id` must be kebab-case: lower-case letters, digits and single hyphens".into(),
        );
    }
    if !(mode.prior > 0.0 && mode.prior < 1.0) {
        return Some(format!(
            "`prior` is {}: it must lie between 0 and 1",
            mode.prior
        ));
    }
    let mut ids = HashSet::new();
    for evidence in &mode.evidence {
        if evidence.id.trim().is_empty() || evidence.expr.trim().is_empty() {
            return Some("each item of `evidence` needs an `id` and an `expr`".into());
        }
        if !ids.insert(&evidence.id) {
            return Some(format!("evidence id `{}` occurs twice", evidence.id));
        }
        if evidence
            .weight
            .is_some_and(|weight| !weight.is_finite() || weight < 0.0)
        {
            return Some(format!(
                "`weight` of evidence `{}` must be a number of 0 or more",
                evidence.id
            ));
        }
    }
    for separation in &mode.separates_from {
        if !ids.contains(&separation.by) {
            return Some(format!(
                "`separates_from` names evidence `{}`, which the mode does not have",
                separation.by
            ));
        }
        if separation.mode == mode.id {
            return Some("`separates_from` names the mode itself".into());
        }
    }
    None
}

fn is_kebab_case(id: &str) -> bool {
    !id.is_empty()
        && id.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

fn items<T: DeserializeOwned>(
    yaml: &str,
    key: &'static str,
    value: &Value,
    warn: &mut impl FnMut(usize, WarningKind),
) -> Vec<(usize, T)> {
    let list = match value {
        Value::Sequence(list) => list.as_slice(),
        Value::Null => &[],
        _ => {
            let kind = WarningKind::FrontMatterType {
                key: key.to_owned(),
                expected: "a list",
            };
            warn(line_of_key(yaml, key), kind);
            &[]
        }
    };
    let mut items = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let line = line_of_item(yaml, key, index);
        match serde_yaml_ng::from_value::<T>(item.clone()) {
            Ok(item) => items.push((line, item)),
            Err(error) => {
                let reason = error.to_string();
                warn(line, WarningKind::FrontMatterItem { key, index, reason });
            }
        }
    }
    items
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

fn list_of_names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Sequence(list) => list.iter().map(scalar).collect(),
        one => Some(vec![scalar(one)?]),
    }
}

fn labels(value: &Value) -> Option<BTreeMap<String, String>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Mapping(pairs) => pairs
            .iter()
            .map(|(name, value)| Some((scalar(name)?, scalar(value)?)))
            .collect(),
        _ => None,
    }
}

/// The file's line of a top-level key: `key:`, `key =`, `[key]` or `[[key]]`. It all begins on line 2, below the dashes.
fn line_of_key(yaml: &str, key: &str) -> usize {
    let has_key = |line: &str| {
        line.trim_start_matches('[')
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with([':', '=', ']']))
    };
    yaml.lines().position(has_key).map_or(1, |at| at + 2)
}

/// The file's line of the `index`-th item below a top-level key: YAML values carry no positions.
fn line_of_item(yaml: &str, key: &str, index: usize) -> usize {
    let key_line = line_of_key(yaml, key);
    let table = format!("[[{key}]]");
    let mut tables = (2..)
        .zip(yaml.lines())
        .filter(|(_, line)| line.trim_end() == table);
    if let Some((line, _)) = tables.nth(index) {
        return line;
    }
    let mut indent = None;
    let mut seen = 0;
    for (at, line) in yaml.lines().enumerate().skip(key_line.saturating_sub(1)) {
        let text = line.trim_start();
        let this_indent = line.len() - text.len();
        if text.starts_with("- ") && *indent.get_or_insert(this_indent) == this_indent {
            if seen == index {
                return at + 2;
            }
            seen += 1;
        } else if this_indent == 0 && !text.is_empty() && !text.starts_with('#') {
            break;
        }
    }
    key_line
}

/// The line, from 1, on which brackets are nested too deep. Those within quotes count as well: they come in pairs.
fn too_deep(yaml: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (line, text) in (1..).zip(yaml.lines()) {
        for byte in text.bytes() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Some(line);
            }
        }
    }
    None
}
