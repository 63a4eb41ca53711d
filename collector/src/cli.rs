//! The command line.

pub mod bundle;
pub mod config;
pub mod doctor;
mod exposition;
pub mod flows;
mod http;
mod listeners;
pub mod manual;
pub mod status;
mod table;
pub mod trace;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Config, KEYS, Sources};

const ABOUT: &str = "Watches this host's network from the kernel and tells Prometheus what it sees";

const LONG_ABOUT: &str = "\
Watches this host's network from the kernel and tells Prometheus what it sees: connections and how \
they fail, latency, retransmits, resets, dropped packets, full queues, DNS. Both ends are named by \
network namespace, container or systemd unit.";

const EXAMPLES: &str = "\
Try it:
  sudo runwire-collector run             measure, and serve http://127.0.0.1:9435/metrics
  runwire-collector status               what is measured now, and what cannot be
  sudo runwire-collector doctor          what this kernel lacks, and how to get it
  runwire-collector flows                the connections that there are and were lately
  runwire-collector trace                connections, failures, drops and DNS as they happen
  runwire-collector config schema        every key of the configuration

In Prometheus:
  scrape_configs:
    - job_name: runwire-collector
      static_configs: [{targets: [\"127.0.0.1:9435\"]}]

A configuration file has the same keys as the flags (`series_budget: 20000` is --series-budget
20000), and so do variables (RUNWIRE_SERIES_BUDGET). A flag counts more than a variable, a variable
more than the file. The file is read again when it changes, and at SIGHUP.

Exit codes: 0 all is well; 1 something failed, or no collector answers; 2 wrong arguments or
configuration.";

pub fn command() -> Command {
    Command::new("runwire-collector")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            configurable(Command::new("run"))
                .about("Measure, and serve the metrics until SIGTERM or Ctrl-C (as root)"),
        )
        .subcommand(
            configurable(Command::new("status"))
                .about("Show what the running collector measures: signals, hooks, totals, rates")
                .arg(json_flag()),
        )
        .subcommand(
            configurable(Command::new("flows"))
                .about("List the connections that there are and were lately, named at both ends")
                .args(flows::arguments())
                .arg(json_flag()),
        )
        .subcommand(
            configurable(Command::new("doctor"))
                .about("Check what the kernel offers and what this user may do; says every fix")
                .arg(json_flag()),
        )
        .subcommand(trace::command())
        .subcommand(config::command())
        .subcommand(bundle::command())
        .subcommand(manual::completions_command())
        .subcommand(manual::man_command())
}

fn json_flag() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON")
}

fn configurable(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("YAML file with keys as below, - written _ [env: RUNWIRE_CONFIG]")
        .value_parser(ValueParser::path_buf());
    let keys = KEYS.iter().map(|key| {
        let default = key.value(&Config::default());
        let help = format!(
            "{} [env: {}] [default: {default}]",
            key.help,
            key.variable()
        );
        Arg::new(key.name)
            .long(key.flag)
            .value_name(key.value_name)
            .help(help)
    });
    command.arg(file).args(keys)
}

/// Where the arguments and the environment say that the configuration is.
pub fn sources(arguments: &ArgMatches) -> Sources {
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("RUNWIRE_"))
        .collect();
    let flags = KEYS.iter().filter_map(|key| {
        let value = arguments.try_get_one::<String>(key.name).ok()??;
        Some((key.name, value.clone()))
    });
    let named = arguments.try_get_one::<PathBuf>("config");
    let named = named.ok().flatten().cloned();
    Sources {
        flags: flags.collect(),
        file: named.or_else(|| variables.get("RUNWIRE_CONFIG").map(PathBuf::from)),
        variables,
        overrides: BTreeMap::new(),
    }
}

/// Help and version are no errors; anything else is one sentence and code 2.
pub fn refuse_arguments(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // If nobody reads the help, nothing is lost.
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()) * 2);
    }
    let text = error.to_string();
    let line = |start: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.trim_start().strip_prefix(start).map(str::to_owned))
    };
    let what = line("error: ").unwrap_or_else(|| text.clone());
    let fix = line("tip: ").unwrap_or_else(|| "see runwire-collector --help".to_owned());
    fail(2, &format!("{what}: {fix}"))
}

#[expect(clippy::print_stderr, reason = "the last words of a command")]
pub fn fail(code: u8, error: &dyn Display) -> ExitCode {
    eprintln!("runwire-collector: {error:#}");
    ExitCode::from(code)
}

/// A line on standard output. Who reads only the first ones has what they wanted.
fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
