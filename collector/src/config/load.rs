//! Where values come from: flag over variable over file over default.

use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;
use thiserror::Error;

use super::{Config, KEYS, Key};

/// What is wrong with a configuration, as one sentence that says the fix.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BadConfig(String);

/// Where a value may be given.
pub struct Sources<'a> {
    pub flag: &'a dyn Fn(&Key) -> Option<String>,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub file: Option<PathBuf>,
}

pub fn load(sources: &Sources) -> Result<Config, BadConfig> {
    let mut config = Config::default();
    if let Some(path) = &sources.file {
        read_file(&mut config, path)?;
    }
    for key in KEYS {
        let variable = key.variable();
        if let Some(value) = (sources.variable)(&variable).filter(|value| !value.is_empty()) {
            set(&mut config, key, &value, &format!("`{variable}`"))?;
        }
        if let Some(value) = (sources.flag)(key) {
            set(&mut config, key, &value, &format!("`--{}`", key.flag))?;
        }
    }
    Ok(config)
}

fn set(config: &mut Config, key: &Key, value: &str, place: &str) -> Result<(), BadConfig> {
    (key.set)(config, value.trim())
        .map_err(|expected| BadConfig(format!("{place} is `{value}`: {expected}")))
}

fn read_file(config: &mut Config, path: &Path) -> Result<(), BadConfig> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        BadConfig(format!("cannot read the configuration file {file}: {error}; name another with --config or leave it out"))
    })?;
    let content: Value = serde_yaml_ng::from_str(&text)
        .map_err(|error| BadConfig(format!("{file} is not valid YAML: {error}")))?;
    let entries = match content {
        Value::Null => return Ok(()),
        Value::Mapping(entries) => entries,
        _ => {
            return Err(BadConfig(format!(
                "{file} is not a list of keys: write lines like `listen: 127.0.0.1:9435`"
            )));
        }
    };
    for (name, value) in entries {
        let name = scalar(&name).unwrap_or_default();
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(BadConfig(format!(
                "unknown key `{name}` in {file}: {}",
                did_you_mean(&name)
            )));
        };
        let value = match &value {
            Value::Null => continue,
            Value::Sequence(values) => (values.iter().map(scalar).collect::<Option<Vec<_>>>())
                .map(|values| values.join(",")),
            value => scalar(value),
        };
        let place = format!("`{name}` in {file}");
        let Some(value) = value else {
            return Err(BadConfig(format!(
                "{place} has keys of its own: write one value, or a list"
            )));
        };
        set(config, key, &value, &place)?;
    }
    Ok(())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn did_you_mean(name: &str) -> String {
    let nearest = KEYS
        .iter()
        .map(|key| (distance(name, key.name), key.name))
        .min();
    match nearest {
        Some((distance, key)) if distance <= 3 => format!("did you mean `{key}`?"),
        _ => {
            let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            format!("the keys are {}", names.join(", "))
        }
    }
}

/// How many letters must be added, removed or changed to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(flag: &str, variable: &str, file: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        fs::write(&path, file).unwrap();
        let pair = |text: &str, name: &str| {
            let (key, value) = text.split_once('=')?;
            (key == name).then(|| value.to_owned())
        };
        let sources = Sources {
            flag: &|key| pair(flag, key.flag),
            variable: &|name| pair(variable, name),
            file: Some(path.clone()),
        };
        load(&sources).map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "FILE")
        })
    }

    #[test]
    fn flag_beats_variable_beats_file_beats_default() {
        let budget = |flag, variable, file| load_with(flag, variable, file).unwrap().series_budget;
        assert_eq!(budget("", "", ""), 10_000);
        assert_eq!(budget("", "", "series_budget: 200"), 200);
        assert_eq!(
            budget("", "RUNWIRE_SERIES_BUDGET=300", "series_budget: 200"),
            300
        );
        assert_eq!(
            budget(
                "series-budget=400",
                "RUNWIRE_SERIES_BUDGET=300",
                "series_budget: 200"
            ),
            400
        );
        assert_eq!(
            budget("", "RUNWIRE_SERIES_BUDGET=", "series_budget:"),
            10_000
        );
    }

    #[test]
    fn what_is_wrong_is_one_sentence_with_the_fix() {
        let check = |flag, variable, file, expected: &str| {
            assert_eq!(load_with(flag, variable, file).unwrap_err(), expected);
        };
        check(
            "",
            "",
            "lisen: 1",
            "unknown key `lisen` in FILE: did you mean `listen`?",
        );
        check(
            "",
            "",
            "colour: red",
            "unknown key `colour` in FILE: the keys are listen, log_format, log_level, disabled_signals, series_budget, dns_timeout",
        );
        check(
            "",
            "",
            "listen: here",
            "`listen` in FILE is `here`: write an address and port such as 127.0.0.1:9435",
        );
        check(
            "",
            "",
            "listen: {port: 1}",
            "`listen` in FILE has keys of its own: write one value, or a list",
        );
        check(
            "",
            "",
            "- listen",
            "FILE is not a list of keys: write lines like `listen: 127.0.0.1:9435`",
        );
        check(
            "log-format=xml",
            "",
            "",
            "`--log-format` is `xml`: write text or json",
        );
        check(
            "",
            "RUNWIRE_DNS_TIMEOUT=5",
            "",
            "`RUNWIRE_DNS_TIMEOUT` is `5`: write a duration from 100ms to 1m, such as 5s",
        );
        check(
            "series-budget=7",
            "",
            "",
            "`--series-budget` is `7`: write a number from 100 to 1000000",
        );
        let twice = load_with("", "", "listen: 1\nlisten: 2").unwrap_err();
        assert!(twice.starts_with("FILE is not valid YAML: "), "{twice}");
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let config = Config::default();
        for key in KEYS {
            let mut again = Config::default();
            (key.set)(&mut again, &key.value(&config)).unwrap();
            assert_eq!(again, config, "{}", key.name);
        }
    }
}
