//! The file's YAML → [`Settings`]; merged [`Settings`] → [`Config`]. Every message names the key and the way out.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_yaml_ng::{Mapping, Value};

use super::{AccessSettings, Config, Settings, surroundings};
use crate::retrieval::GRAPH_FROM;
use crate::retrieval::embed::{GRAPH, WEIGHTS};

const RUNBOOK_FOLDERS: [&str; 2] = ["runbooks", "/usr/share/runwire/runbooks"];
const MODEL_FOLDERS: [&str; 2] = [".runwire/model", "/usr/share/runwire/model"];
const ONNXRUNTIME: &str = ".runwire/onnxruntime/libonnxruntime.so";

/// A message about a value of the wrong type would repeat it.
const MAY_HOLD_SECRETS: [&str; 6] = [
    "prometheus",
    "prometheus_headers",
    "incidents",
    "notify_url",
    "grafana_url",
    "llm_base_url",
];

/// The user must change something before it can work: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "cannot read the config file {path}: {reason}; give a readable YAML file with --config"
    )]
    File { path: String, reason: String },
    #[error(
        "the config file {path} has no key `{key}`; did you mean `{nearest}`? It knows {known}"
    )]
    UnknownKey {
        path: String,
        key: String,
        nearest: String,
        known: String,
    },
    #[error("`{key}` {reason}")]
    Value { key: String, reason: String },
}

impl ConfigError {
    pub fn value(key: &str, reason: impl Into<String>) -> Self {
        Self::Value {
            key: key.to_owned(),
            reason: reason.into(),
        }
    }
}

pub(super) fn file(path: &Path) -> Result<Settings, ConfigError> {
    let shown = path.display().to_string();
    let unreadable = |reason: String| ConfigError::File {
        path: shown.clone(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let keys = match serde_yaml_ng::from_str(&text) {
        Ok(Value::Mapping(keys)) => keys,
        Ok(Value::Null) => return Ok(Settings::default()),
        Ok(_) => return Err(unreadable("it is not a mapping of keys to values".into())),
        Err(error) => return Err(unreadable(error.to_string())),
    };

    let known = known_keys();
    let mut settings = Settings::default();
    for (key, value) in flat(keys, &known) {
        let name = key.as_str().unwrap_or_default().to_owned();
        if !known.contains(&name) {
            return Err(ConfigError::UnknownKey {
                path: shown,
                nearest: nearest(&name, &known),
                known: known.join(", "),
                // A key without its colon is one with its value.
                key: without_secrets(&name),
            });
        }
        // One key at a time: the error of a whole document does not say which key it is about.
        let one = Mapping::from_iter([(key, value)]);
        let one: Settings = serde_yaml_ng::from_value(Value::Mapping(one)).map_err(|error| {
            let reason = match MAY_HOLD_SECRETS.contains(&name.as_str()) {
                true => "it is of another type, and not shown because it may hold a secret".into(),
                false => error.to_string(),
            };
            ConfigError::value(&name, format!("in {shown} has a wrong value: {reason}"))
        })?;
        settings = one.or(settings);
    }
    Ok(settings)
}

/// `llm: {model: x}` is another way to write `llm_model: x`.
fn flat(keys: Mapping, known: &[String]) -> Vec<(Value, Value)> {
    let mut flat = Vec::new();
    for (key, value) in keys {
        let name = key.as_str().unwrap_or_default();
        let is_group = known.iter().any(|known| {
            known
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('_'))
        });
        match value {
            Value::Mapping(parts) if is_group && !known.iter().any(|known| known == name) => {
                for (part, value) in parts {
                    let part = part.as_str().unwrap_or_default();
                    flat.push((format!("{name}_{part}").into(), value));
                }
            }
            value => flat.push((key, value)),
        }
    }
    flat
}

pub(super) fn check(settings: Settings) -> Result<Config, ConfigError> {
    let listen = settings
        .listen
        .unwrap_or_else(|| ([127, 0, 0, 1], 8080).into());

    let runbooks = match settings.runbooks.clone() {
        Some(folders) => {
            for folder in &folders {
                if !folder.is_dir() {
                    let reason = format!(
                        "names {}, which is not a folder; give a folder of Markdown files",
                        folder.display()
                    );
                    return Err(ConfigError::value("runbooks", reason));
                }
            }
            folders
        }
        None => vec![first_folder(&RUNBOOK_FOLDERS).ok_or_else(|| {
            let places = RUNBOOK_FOLDERS.join(" nor ");
            ConfigError::value(
                "runbooks",
                format!("is not set and there is neither {places}; give a folder of Markdown files with --runbooks DIR"),
            )
        })?],
    };

    let model = match settings.model.clone() {
        Some(folder)
            if [GRAPH, WEIGHTS]
                .iter()
                .any(|file| folder.join(file).is_file()) =>
        {
            Some(folder)
        }
        Some(folder) => {
            let reason = format!(
                "names {}, where there is no {WEIGHTS} and no {GRAPH}; give the folder of all-MiniLM-L6-v2 or of a model in ONNX",
                folder.display()
            );
            return Err(ConfigError::value("model", reason));
        }
        None => first_folder(&MODEL_FOLDERS),
    };
    let onnxruntime = match settings.onnxruntime.clone() {
        Some(file) if file.is_file() => Some(file),
        Some(file) => {
            let reason = format!(
                "names {}, which is not a file; give the path of libonnxruntime.so",
                file.display()
            );
            return Err(ConfigError::value("onnxruntime", reason));
        }
        None => Some(PathBuf::from(ONNXRUNTIME)).filter(|file| file.is_file()),
    };

    if let Some(folder) = &settings.reranker
        && !folder.join(GRAPH).is_file()
    {
        let reason = format!(
            "names {}, where there is no {GRAPH}; give the folder of a cross-encoder in ONNX",
            folder.display()
        );
        return Err(ConfigError::value("reranker", reason));
    }

    let incidents = surroundings::incidents(&settings)?;
    let llm = surroundings::llm(&settings)?;
    let diagnosis_deadline = surroundings::diagnosis_deadline(&settings)?;
    let prometheus = match settings.prometheus {
        Some(url) => base_url("prometheus", &url)?,
        None => "http://127.0.0.1:9090".into(),
    };
    Ok(Config {
        runbooks,
        incidents,
        llm,
        diagnosis_deadline,
        prometheus_external_url: match settings.prometheus_external_url {
            Some(url) => base_url("prometheus_external_url", &url)?,
            None => prometheus.clone(),
        },
        prometheus,
        grafana_url: settings
            .grafana_url
            .map(|url| base_url("grafana_url", &url))
            .transpose()?,
        grafana_datasource: settings.grafana_datasource,
        model,
        onnxruntime,
        cache: settings.cache.or_else(default_cache),
        ranking: settings.ranking.unwrap_or_default(),
        reranker: settings.reranker,
        graph_from: match settings.graph_from {
            Some(0) => usize::MAX,
            from => from.unwrap_or(GRAPH_FROM),
        },
        external_url: match settings.external_url {
            Some(url) => base_url("external_url", &url)?,
            None if settings.access.tls_certificate.is_some() => format!("https://{listen}"),
            None => format!("http://{listen}"),
        },
        log: settings.log.unwrap_or_else(|| "info".into()),
        access: access(settings.access)?,
        identity: settings.identity,
        listen,
    })
}

/// Certificate and key make sense together only.
fn access(access: AccessSettings) -> Result<AccessSettings, ConfigError> {
    let lonely = match (&access.tls_certificate, &access.tls_key) {
        (Some(_), None) => Some(("tls_key", "tls_certificate")),
        (None, Some(_)) => Some(("tls_certificate", "tls_key")),
        _ => None,
    };
    match lonely {
        None => Ok(access),
        Some((missing, given)) => Err(ConfigError::value(
            missing,
            format!("is not set, but `{given}` is; give both to serve HTTPS, or neither"),
        )),
    }
}

pub(super) fn base_url(key: &str, url: &str) -> Result<String, ConfigError> {
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    match host {
        // Addresses are logged and shown, so nothing secret may be in one.
        Some(host)
            if host
                .split('/')
                .next()
                .is_some_and(|host| host.contains('@')) =>
        {
            Err(ConfigError::value(
                key,
                "has a user or a password in it; give the address without, and a user's name and password by the keys for them",
            ))
        }
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(ConfigError::value(
            key,
            format!(
                "is \"{}\"; give a URL such as http://127.0.0.1:9090",
                without_secrets(url)
            ),
        )),
    }
}

/// What is no URL may all the same be one with a password, or with a path that only its owner knows.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.find(['/', '?', '#']) {
        Some(end) => format!("{scheme}{}/…", &rest[..end]),
        None => format!("{scheme}{rest}"),
    }
}

fn first_folder(candidates: &[&str]) -> Option<PathBuf> {
    candidates
        .iter()
        .map(PathBuf::from)
        .find(|folder| folder.is_dir())
}

fn default_cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("XDG_CACHE_HOME") {
        return Some(PathBuf::from(folder).join("runwire"));
    }
    if let Some(home) = set("HOME") {
        return Some(PathBuf::from(home).join(".cache/runwire"));
    }
    Some(PathBuf::from("/var/cache/runwire"))
}

/// The flags are the keys: there is no second list.
fn known_keys() -> Vec<String> {
    Settings::augment_args(clap::Command::new(""))
        .get_arguments()
        .map(|argument| argument.get_id().to_string())
        .filter(|key| key != "config")
        .collect()
}

fn nearest(key: &str, known: &[String]) -> String {
    let distance = |candidate: &String| edit_distance(key, candidate);
    known
        .iter()
        .min_by_key(|k| distance(k))
        .cloned()
        .unwrap_or_default()
}

/// Insertions, deletions and replacements between two words.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
