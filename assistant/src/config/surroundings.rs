//! The keys about what stands around the assistant: where incidents are kept, who is told, which model may narrate; and for how long a diagnosis may wait.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::base_url;
use super::{ConfigError, Settings};
use crate::diagnosis::DEADLINE;
use crate::incidents::deliver::{Grafana, Targets, Webhook};
use crate::incidents::{self, Place};
use crate::narrate::{self, Key};

const RETENTION: Duration = Duration::from_secs(30 * 86_400);
const LIMIT: u64 = 100_000;
const REDIAGNOSE: Duration = Duration::from_secs(60);
/// Short of what clients wait for an answer.
const LONGEST_DEADLINE: Duration = Duration::from_secs(20);
const NARRATION: Duration = Duration::from_secs(30);
/// A variable and no flag: flags are seen by everybody on the host.
const KEY_VARIABLE: &str = "RUNWIRE_LLM_KEY";

pub(super) fn incidents(settings: &Settings) -> Result<Option<incidents::Settings>, ConfigError> {
    let targets = Targets {
        webhook: webhook(settings)?,
        grafana: grafana(settings)?,
    };
    let place = match settings.incidents.as_deref() {
        Some("off") => return Ok(None),
        Some("") => {
            return Err(ConfigError::value(
                "incidents",
                "is empty; give a file, a postgres:// address or off",
            ));
        }
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Place::Postgres(url.to_owned())
        }
        Some(url) if url.contains("://") => {
            return Err(ConfigError::value(
                "incidents",
                "is an address of another kind; give a file, a postgres:// address or off",
            ));
        }
        Some(path) => Place::Sqlite(absolute(Path::new(path))?),
        None => Place::Sqlite(absolute(&state_folder().join("incidents.db"))?),
    };
    let retention = duration(
        "incident_retention",
        &settings.incident_retention,
        RETENTION,
        Duration::from_secs(60),
    )?;
    let rediagnose = duration(
        "rediagnose_every",
        &settings.rediagnose_every,
        REDIAGNOSE,
        Duration::from_secs(1),
    )?;
    Ok(Some(incidents::Settings {
        place,
        retention,
        limit: settings.incident_limit.unwrap_or(LIMIT),
        rediagnose,
        targets,
    }))
}

pub(super) fn llm(settings: &Settings) -> Result<Option<narrate::Settings>, ConfigError> {
    let Some(url) = &settings.llm_base_url else {
        return match &settings.llm_model {
            Some(_) => Err(ConfigError::value(
                "llm_model",
                "is of no use without `llm_base_url`; give both",
            )),
            None => Ok(None),
        };
    };
    let Some(model) = settings.llm_model.clone().filter(|name| !name.is_empty()) else {
        return Err(ConfigError::value(
            "llm_model",
            "is not set; give the name of a model that `llm_base_url` serves",
        ));
    };
    let key = match &settings.llm_key_file {
        Some(file) => Some(Key::File(readable("llm_key_file", file)?)),
        None => std::env::var(KEY_VARIABLE)
            .ok()
            .filter(|key| !key.is_empty())
            .map(Key::Text),
    };
    Ok(Some(narrate::Settings {
        base_url: base_url("llm_base_url", url)?,
        model,
        key,
        timeout: duration(
            "llm_timeout",
            &settings.llm_timeout,
            NARRATION,
            Duration::from_millis(100),
        )?,
    }))
}

pub(super) fn diagnosis_deadline(settings: &Settings) -> Result<Duration, ConfigError> {
    let key = "diagnosis_deadline";
    let least = Duration::from_millis(100);
    let deadline = duration(key, &settings.diagnosis_deadline, DEADLINE, least)?;
    if deadline > LONGEST_DEADLINE {
        let longest = humantime::format_duration(LONGEST_DEADLINE);
        let given = humantime::format_duration(deadline);
        return Err(ConfigError::value(
            key,
            format!("is \"{given}\"; give at most {longest}"),
        ));
    }
    Ok(deadline)
}

fn webhook(settings: &Settings) -> Result<Option<Webhook>, ConfigError> {
    let Some(url) = &settings.notify_url else {
        return Ok(None);
    };
    let file = |key, file: &Option<PathBuf>| {
        let file = file.as_deref();
        file.map(|file| readable(key, file)).transpose()
    };
    base_url("notify_url", url)?;
    Ok(Some(Webhook {
        url: url.clone(),
        format: settings.notify_format.unwrap_or_default(),
        token_file: file("notify_token_file", &settings.notify_token_file)?,
        secret_file: file("notify_secret_file", &settings.notify_secret_file)?,
    }))
}

/// Without a token the address is for links alone: Grafana takes no annotation from who does not say who it is.
fn grafana(settings: &Settings) -> Result<Option<Grafana>, ConfigError> {
    let (Some(url), Some(file)) = (&settings.grafana_url, &settings.grafana_token_file) else {
        return Ok(None);
    };
    Ok(Some(Grafana {
        url: base_url("grafana_url", url)?,
        token_file: Some(readable("grafana_token_file", file)?),
    }))
}

/// Files with secrets are read when they are used; that they can be is found out at the start.
fn readable(key: &str, file: &Path) -> Result<PathBuf, ConfigError> {
    match std::fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => Ok(file.to_owned()),
        Ok(_) => Err(ConfigError::value(
            key,
            format!(
                "names {}, which is empty; write the secret into it",
                file.display()
            ),
        )),
        Err(error) => Err(ConfigError::value(
            key,
            format!(
                "names {}, which cannot be read: {error}; give a readable file",
                file.display()
            ),
        )),
    }
}

fn duration(
    key: &str,
    text: &Option<String>,
    default: Duration,
    least: Duration,
) -> Result<Duration, ConfigError> {
    let Some(text) = text else {
        return Ok(default);
    };
    let parsed = humantime::parse_duration(text).map_err(|error| {
        ConfigError::value(
            key,
            format!("is \"{text}\": {error}; give a duration such as 5m"),
        )
    })?;
    if parsed < least {
        let least = humantime::format_duration(least);
        return Err(ConfigError::value(
            key,
            format!("is \"{text}\"; give at least {least}"),
        ));
    }
    Ok(parsed)
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|error| {
        ConfigError::value(
            "incidents",
            format!(
                "names {}, which is no path: {error}; give a file",
                path.display()
            ),
        )
    })
}

fn state_folder() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    // systemd names the folder that it made for the unit; several are separated by colons.
    let of_unit = set("STATE_DIRECTORY").filter(|folder| !folder.to_string_lossy().contains(':'));
    of_unit
        .or_else(|| Some(set("XDG_STATE_HOME")?.join("runwire")))
        .or_else(|| Some(set("HOME")?.join(".local/state/runwire")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/runwire"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        let error = incidents(&settings)
            .err()
            .or_else(|| llm(&settings).err())
            .or_else(|| diagnosis_deadline(&settings).err());
        error.map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn wrong_values_are_refused_with_their_key() {
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 9] = [
            (
                |s| s.diagnosis_deadline = Some("soon".into()),
                "`diagnosis_deadline` is \"soon\"",
            ),
            (
                |s| s.diagnosis_deadline = Some("1m".into()),
                "`diagnosis_deadline` is \"1m\"; give at most 20s",
            ),
            (
                |s| s.incidents = Some("mysql://x".into()),
                "`incidents` is an address of another kind",
            ),
            (
                |s| s.incident_retention = Some("soon".into()),
                "`incident_retention` is \"soon\"",
            ),
            (
                |s| s.rediagnose_every = Some("1ms".into()),
                "`rediagnose_every` is \"1ms\"; give at least 1s",
            ),
            (
                |s| s.notify_url = Some("slack".into()),
                "`notify_url` is \"slack\"",
            ),
            (
                |s| s.llm_base_url = Some("http://m/v1".into()),
                "`llm_model` is not set",
            ),
            (
                |s| s.llm_model = Some("m".into()),
                "`llm_model` is of no use",
            ),
            (
                |s| {
                    s.grafana_url = Some("http://g".into());
                    s.grafana_token_file = Some("/nowhere".into());
                },
                "`grafana_token_file` names /nowhere, which cannot be read",
            ),
        ];
        for (change, words) in cases {
            let reason = refusal(change);
            assert!(reason.starts_with(words), "{reason}");
        }
    }

    #[test]
    fn a_grafana_without_a_token_is_linked_to_and_told_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "glsa_x\n").unwrap();
        for (file, is_told) in [(None, false), (Some(token), true)] {
            let settings = Settings {
                grafana_url: Some("http://g".into()),
                grafana_token_file: file,
                ..Settings::default()
            };
            let incidents = incidents(&settings).unwrap().unwrap();
            assert_eq!(incidents.targets.grafana.is_some(), is_told);
        }
    }

    #[test]
    fn incidents_are_kept_in_a_file_or_postgres_or_not_at_all() {
        let place = |text: &str| {
            let settings = Settings {
                incidents: Some(text.into()),
                ..Settings::default()
            };
            incidents(&settings).unwrap().map(|settings| settings.place)
        };
        assert_eq!(place("off"), None);
        assert_eq!(place("/x/y.db"), Some(Place::Sqlite("/x/y.db".into())));
        let url = "postgres://u:p@h/d";
        assert_eq!(place(url), Some(Place::Postgres(url.into())));
    }
}
