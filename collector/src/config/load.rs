//! Where values come from: flag over variable over file over default.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_yaml_ng::Value;
use thiserror::Error;

use super::{Config, FileWatch, KEYS, Key};

/// What is wrong with a configuration, as one sentence that says the fix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// Where values may be given. The file is read at each [`load`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By name of the key.
    pub flags: BTreeMap<&'static str, String>,
    /// By name of the variable.
    pub variables: BTreeMap<String, String>,
    pub file: Option<PathBuf>,
    /// By name of the key: what was set while the collector ran.
    pub overrides: BTreeMap<&'static str, String>,
}

/// Which of the sources a value comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    #[default]
    Default,
    File,
    Variable,
    Flag,
    RunTime,
}

/// A configuration, and where each of its values comes from.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
    /// The file as it was read.
    text: Option<String>,
}

impl Loaded {
    pub fn origin(&self, key: &Key) -> Origin {
        self.origins.get(key.name).copied().unwrap_or_default()
    }

    /// This, with a key set at run time.
    pub fn with(&self, key: &Key, value: &str) -> Result<Self, BadConfig> {
        let mut changed = self.clone();
        changed.set(key, value, Origin::RunTime, &format!("`{}`", key.name))?;
        Ok(changed)
    }

    /// To notice when the file is no longer what was read.
    pub fn watch(&self, sources: &Sources) -> Option<FileWatch> {
        let path = sources.file.clone()?;
        Some(FileWatch::new(path, self.text.clone()))
    }

    fn set(
        &mut self,
        key: &Key,
        value: &str,
        origin: Origin,
        place: &str,
    ) -> Result<(), BadConfig> {
        (key.set)(&mut self.config, value.trim())
            .map_err(|expected| BadConfig(format!("{place} is `{value}`: {expected}")))?;
        self.origins.insert(key.name, origin);
        Ok(())
    }
}

pub fn load(sources: &Sources) -> Result<Loaded, BadConfig> {
    let mut loaded = Loaded::default();
    if let Some(path) = &sources.file {
        read_file(&mut loaded, path)?;
    }
    for key in KEYS {
        let variable = key.variable();
        let value = sources.variables.get(&variable);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            loaded.set(key, value, Origin::Variable, &format!("`{variable}`"))?;
        }
        if let Some(value) = sources.flags.get(key.name) {
            loaded.set(key, value, Origin::Flag, &format!("`--{}`", key.flag))?;
        }
        if let Some(value) = sources.overrides.get(key.name) {
            loaded.set(key, value, Origin::RunTime, &format!("`{}`", key.name))?;
        }
    }
    Ok(loaded)
}

fn read_file(loaded: &mut Loaded, path: &Path) -> Result<(), BadConfig> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        BadConfig(format!("cannot read the configuration file {file}: {error}; name another with --config or leave it out"))
    })?;
    loaded.text = Some(text.clone());
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
        let line = line_of(&text, &name);
        let Some(key) = Key::named(&name) else {
            return Err(BadConfig(format!(
                "unknown key `{name}` in {file}{line}: {}",
                did_you_mean(&name)
            )));
        };
        let place = format!("`{name}` in {file}{line}");
        let value = match &value {
            Value::Null => continue,
            Value::Mapping(entries) if key.has_entries() => (entries.iter())
                .map(|(name, value)| Some(format!("{}={}", scalar(name)?, list(value)?)))
                .collect::<Option<Vec<_>>>()
                .map(|entries| entries.join(";")),
            value => list(value),
        };
        let Some(value) = value else {
            return Err(BadConfig(format!(
                "{place} has keys of its own: write one value, or a list"
            )));
        };
        loaded.set(key, &value, Origin::File, &place)?;
    }
    Ok(())
}

/// ` line 3`, where a key of the outermost level is.
fn line_of(text: &str, key: &str) -> String {
    let is_it = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        line.contains(':') && name.trim_end().trim_matches(['"', '\'']) == key
    };
    text.lines()
        .position(is_it)
        .map_or_else(String::new, |at| format!(" line {}", at + 1))
}

/// One value, or several with commas between them.
fn list(value: &Value) -> Option<String> {
    match value {
        Value::Sequence(values) => {
            let values: Option<Vec<_>> = values.iter().map(scalar).collect();
            values.map(|values| values.join(","))
        }
        value => scalar(value),
    }
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
        let pair = |text: &str| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        let by_flag = |(flag, value): (String, String)| {
            let key = KEYS.iter().find(|key| key.flag == flag)?;
            Some((key.name, value))
        };
        let sources = Sources {
            flags: pair(flag).and_then(by_flag).into_iter().collect(),
            variables: pair(variable).into_iter().collect(),
            file: Some(path.clone()),
            ..Sources::default()
        };
        let loaded = load(&sources).map(|loaded| loaded.config);
        loaded.map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "FILE")
        })
    }

    #[test]
    fn an_off_that_yaml_turned_into_false_is_off() {
        let may_be_off = |key: &&Key| key.value_name.split('|').any(|it| it == "off");
        for key in KEYS.iter().filter(may_be_off) {
            let config = load_with("", &format!("{}=false", key.variable()), "").unwrap();
            assert_eq!(key.value(&config), "off", "{}", key.name);
        }
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
        let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        let check = |flag, variable, file, expected: &str| {
            assert_eq!(load_with(flag, variable, file).unwrap_err(), expected);
        };
        check(
            "",
            "",
            "lisen: 1",
            "unknown key `lisen` in FILE line 1: did you mean `listen`?",
        );
        check(
            "",
            "",
            "# Comment\ncolour: red",
            &format!(
                "unknown key `colour` in FILE line 2: the keys are {}",
                names.join(", ")
            ),
        );
        check(
            "",
            "",
            "listen: here",
            "`listen` in FILE line 1 is `here`: write an address and port such as 127.0.0.1:9435",
        );
        check(
            "",
            "",
            "listen: {port: 1}",
            "`listen` in FILE line 1 has keys of its own: write one value, or a list",
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
    fn the_file_may_have_lists_and_entries() {
        let file = "disabled_signals: [dns, tcp_reset]\nbuckets:\n  tcp_rtt_seconds: [0.001, 0.1]\n  dns_query_duration_seconds: 1\nmap_capacity: {tcp_edges: 100}\n";
        let config = load_with("", "", file).unwrap();
        assert_eq!(config.disabled_signals, ["dns", "tcp_reset"]);
        assert_eq!(config.buckets["tcp_rtt_seconds"], [0.001, 0.1]);
        assert_eq!(config.buckets["dns_query_duration_seconds"], [1.0]);
        assert_eq!(config.map_capacity["tcp_edges"], 100);
        let bad = load_with("", "", "buckets:\n  tcp_rtt_seconds: [2, 1]\n").unwrap_err();
        assert!(
            bad.starts_with("`buckets` in FILE line 1 is `tcp_rtt_seconds=2,1`: "),
            "{bad}"
        );
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let config = Config {
            disabled_signals: vec!["dns".to_owned()],
            buckets: [("tcp_rtt_seconds".to_owned(), vec![0.00005, 1.5])].into(),
            map_capacity: [("tcp_edges".to_owned(), 64)].into(),
            ..Config::default()
        };
        for key in KEYS {
            let mut again = config.clone();
            (key.set)(&mut again, &key.value(&config)).unwrap();
            assert_eq!(again, config, "{}", key.name);
            key.copy(&Config::default(), &mut again);
            assert_eq!(key.value(&again), key.value(&Config::default()));
        }
    }
}
