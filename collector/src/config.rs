//! The configuration: every key, its default, and what it may be. [`KEYS`] is the schema; the
//! file, the variables and the flags are all read by it.

mod load;

use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

pub use load::{BadConfig, Sources, load};

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub log_format: LogFormat,
    pub log_level: Level,
    pub disabled_signals: Vec<String>,
    pub series_budget: usize,
    pub dns_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9435)),
            log_format: LogFormat::Text,
            log_level: Level::INFO,
            disabled_signals: Vec::new(),
            series_budget: 10_000,
            dns_timeout: Duration::from_secs(5),
        }
    }
}

/// A key of the configuration. Its variable is `RUNWIRE_` and the name in capitals.
pub struct Key {
    /// In the file.
    pub name: &'static str,
    /// Without the dashes in front.
    pub flag: &'static str,
    pub value_name: &'static str,
    pub help: &'static str,
    /// Says what the value must be if it is not that.
    set: fn(&mut Config, &str) -> Result<(), String>,
    get: fn(&Config) -> String,
}

impl Key {
    pub fn variable(&self) -> String {
        format!("RUNWIRE_{}", self.name.to_uppercase())
    }

    pub fn value(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        flag: "listen",
        value_name: "ADDR:PORT",
        help: "Where /metrics, /healthz and /readyz are served",
        set: |config, text| {
            config.listen = parse(text, "write an address and port such as 127.0.0.1:9435")?;
            Ok(())
        },
        get: |config| config.listen.to_string(),
    },
    Key {
        name: "log_format",
        flag: "log-format",
        value_name: "text|json",
        help: "How log lines are written to standard error",
        set: |config, text| {
            config.log_format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("write text or json".to_owned()),
            };
            Ok(())
        },
        get: |config| match config.log_format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        },
    },
    Key {
        name: "log_level",
        flag: "log-level",
        value_name: "LEVEL",
        help: "The least important lines that are logged: error, warn, info, debug or trace",
        set: |config, text| {
            config.log_level = match text {
                "error" => Level::ERROR,
                "warn" => Level::WARN,
                "info" => Level::INFO,
                "debug" => Level::DEBUG,
                "trace" => Level::TRACE,
                _ => return Err("write error, warn, info, debug or trace".to_owned()),
            };
            Ok(())
        },
        get: |config| config.log_level.to_string().to_lowercase(),
    },
    Key {
        name: "disabled_signals",
        flag: "disabled-signals",
        value_name: "NAME,…",
        help: "Signals that are not measured; `runwire-collector status` lists their names",
        set: |config, text| {
            let names = text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            config.disabled_signals = names.map(str::to_owned).collect();
            let known = crate::agent::signal_names();
            let unknown =
                (config.disabled_signals.iter()).find(|name| !known.contains(&name.as_str()));
            match unknown {
                Some(name) => Err(format!(
                    "there is no signal `{name}`, they are {}",
                    known.join(", ")
                )),
                None => Ok(()),
            }
        },
        get: |config| config.disabled_signals.join(","),
    },
    Key {
        name: "series_budget",
        flag: "series-budget",
        value_name: "NUMBER",
        help: "Series that one metric may have; what is more is counted under ~other",
        set: |config, text| {
            let expected = "write a number from 100 to 1000000";
            let budget: usize = parse(text, expected)?;
            if !(100..=1_000_000).contains(&budget) {
                return Err(expected.to_owned());
            }
            config.series_budget = budget;
            Ok(())
        },
        get: |config| config.series_budget.to_string(),
    },
    Key {
        name: "dns_timeout",
        flag: "dns-timeout",
        value_name: "DURATION",
        help: "How long a DNS query waits for its answer before it counts as timed out",
        set: |config, text| {
            let expected = || "write a duration from 100ms to 1m, such as 5s".to_owned();
            let timeout = humantime::parse_duration(text).map_err(|_| expected())?;
            if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&timeout) {
                return Err(expected());
            }
            config.dns_timeout = timeout;
            Ok(())
        },
        get: |config| humantime::format_duration(config.dns_timeout).to_string(),
    },
];

fn parse<T: std::str::FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| expected.to_owned())
}
