//! `runwire-collector config`: what there is to set, what is in force, and setting it.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;

use super::http::{administration, get as fetch, put};
use super::table::{cell, colours, render};
use super::{configurable, json_flag, print};
use crate::config::{Config, KEYS, Key};

const ABOUT_SET: &str = "\
Sets keys of the running collector. The collector checks the value and either takes it at once or \
says what is wrong with it. Nothing is written to a file: after a restart the key is again what \
file, variable or flag say. Keys that take effect at start cannot be set; `config schema` lists which.";

const EXAMPLES_SET: &str = "\
Try it:
  runwire-collector config set log_level=debug
  runwire-collector config set disabled_signals=dns,tcp_reset
  runwire-collector config set statistics=on refresh_interval=500ms";

pub(super) fn command() -> Command {
    configurable(Command::new("config"))
        .about("Show and change the configuration")
        .long_about(
            "Without a subcommand: prints, as a file, the configuration that `run` with the same arguments would have.",
        )
        .subcommand(
            configurable(Command::new("get"))
                .about("Print the configuration in force in the running collector")
                .arg(Arg::new("key").value_name("KEY").help("Print the value of this key alone"))
                .arg(json_flag()),
        )
        .subcommand(
            configurable(Command::new("set"))
                .about("Set keys of the running collector, until it ends")
                .long_about(ABOUT_SET)
                .after_help(EXAMPLES_SET)
                .arg(
                    Arg::new("settings")
                        .value_name("KEY=VALUE")
                        .required(true)
                        .action(ArgAction::Append)
                        .num_args(1..),
                ),
        )
        .subcommand(
            Command::new("schema")
                .about("List every key: flag, variable, default, when it takes effect, meaning"),
        )
}

#[derive(Deserialize)]
struct Setting {
    name: String,
    value: String,
    origin: String,
    takes_effect: String,
    after_restart: Option<String>,
}

pub fn show(config: &Config) -> ExitCode {
    for key in KEYS {
        print(format_args!(
            "# {}. Takes effect {}.\n{}",
            key.help,
            key.applies.as_str(),
            line(key, config)
        ));
    }
    ExitCode::SUCCESS
}

/// As it would stand in a file.
pub(super) fn line(key: &Key, config: &Config) -> String {
    let value = key.shown(config);
    // Bare, these would be something else to YAML.
    let quoted = value.is_empty()
        || value.contains([':', '#', '[', '{', '*', '!', '?'])
        || value == "on"
        || value == "off";
    match quoted {
        true => format!("{}: \"{value}\"", key.name),
        false => format!("{}: {value}", key.name),
    }
}

pub fn get(config: &Config, arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let address = administration(config.listen);
    let body = fetch(address, "/debug/config")?;
    let settings: Vec<Setting> = serde_json::from_str(&body)
        .with_context(|| format!("{address} answers, but not as a collector does"))?;
    if let Some(name) = arguments.get_one::<String>("key") {
        let Some(setting) = settings.iter().find(|setting| setting.name == *name) else {
            bail!("there is no key `{name}`; `runwire-collector config schema` lists them");
        };
        print(format_args!("{}", setting.value));
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.get_flag("json") {
        print(body);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        ["KEY", "VALUE", "FROM", "TAKES EFFECT", ""]
            .map(cell)
            .into(),
    ];
    for setting in settings {
        let waiting = setting
            .after_restart
            .map_or_else(String::new, |value| format!("after a restart: {value}"));
        rows.push(vec![
            cell(setting.name),
            cell(setting.value),
            cell(setting.origin.replace('_', " ")),
            cell(setting.takes_effect),
            cell(waiting),
        ]);
    }
    print(format_args!("{}", render(&rows, colours()).trim_end()));
    Ok(ExitCode::SUCCESS)
}

pub fn set(config: &Config, arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let address = administration(config.listen);
    let settings = arguments
        .get_many::<String>("settings")
        .into_iter()
        .flatten();
    for setting in settings {
        let Some((name, value)) = setting.split_once('=') else {
            return refuse(format_args!(
                "`{setting}` sets nothing: write KEY=VALUE, such as log_level=debug"
            ));
        };
        let name = name.trim().replace('-', "_");
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
            return refuse(format_args!(
                "there is no key `{name}`; `runwire-collector config schema` lists them"
            ));
        }
        if let Err(sentence) = put(address, &format!("/debug/config/{name}"), value)? {
            return refuse(sentence);
        }
        print(format_args!(
            "{name} is {} until the collector ends; to keep it, write it to the configuration file",
            value.trim()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Wrong arguments, as clap and the configuration's loader say them.
fn refuse(sentence: impl std::fmt::Display) -> anyhow::Result<ExitCode> {
    Ok(super::fail(2, &sentence))
}

pub fn schema() -> ExitCode {
    let default = Config::default();
    for key in KEYS {
        let value = match key.value(&default) {
            value if value.is_empty() => "none".to_owned(),
            value => value,
        };
        print(format_args!(
            "{}\n  {}.\n  value: {}   default: {value}   takes effect: {}\n  flag: --{}   variable: {}\n",
            key.name,
            key.help,
            key.value_name,
            key.applies.as_str(),
            key.flag,
            key.variable()
        ));
    }
    ExitCode::SUCCESS
}

#[test]
fn what_is_printed_is_a_file_that_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    let config = Config {
        buckets: [("tcp_rtt_seconds".to_owned(), vec![0.5, 1.0])].into(),
        statistics: true,
        ..Config::default()
    };
    let text: Vec<String> = KEYS.iter().map(|key| line(key, &config)).collect();
    std::fs::write(&path, text.join("\n")).unwrap();
    let sources = crate::config::Sources {
        file: Some(path),
        ..crate::config::Sources::default()
    };
    assert_eq!(crate::config::load(&sources).unwrap().config, config);
}
