//! The subcommands, one file each.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, Settings};

mod check;
mod colours;
mod diagnose;
pub mod rules;
mod search;
mod serve;

/// Finds the runbook section that fits, and says what is wrong with the network and why.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the running assistant what is wrong
    Diagnose(diagnose::Arguments),
    /// Write Prometheus alerting rules from the runbooks
    Rules(rules::Arguments),
    /// Serve the HTTP API and the web pages
    Serve {
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the runbook passages that answer a question
    Search(search::SearchArgs),
    /// Say what is wrong with the runbooks
    Check(check::CheckArgs),
    /// Print the completions of a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page of the program, or of one of its commands
    Man { command: Option<String> },
}

pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Diagnose(arguments) => Ok(runtime()?.block_on(diagnose::run(arguments))),
        Command::Rules(arguments) => rules::run(arguments),
        Command::Serve { settings } => {
            let config = configure(settings, "info")?;
            runtime()?.block_on(serve::run(config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Search(args) => {
            let config = configure(args.settings.clone(), "error")?;
            search::run(&args, &config)
        }
        Command::Check(args) => {
            let config = configure(args.settings.clone(), "error")?;
            check::run(&args, &config)
        }
        Command::Completions { shell } => {
            let mut program = Cli::command();
            let name = program.get_name().to_owned();
            // It panics where it cannot write, which a closed pipe is enough for.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut program, name, &mut text);
            print(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => manual(command.as_deref()),
    }
}

fn manual(command: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut program = Cli::command();
    // Gives the commands their whole names.
    program.build();
    let page = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).ok_or_else(|| {
                let known: Vec<&str> = program
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .collect();
                ConfigError::value(
                    "COMMAND",
                    format!("is `{name}`; the commands are {}", known.join(", ")),
                )
            })?;
            found.clone()
        }
    };
    clap_mangen::Man::new(page)
        .render(&mut std::io::stdout())
        .context("cannot write the manual page")?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the settings and starts logging. A command that prints an answer is quieter than a service.
fn configure(settings: Settings, log: &str) -> Result<Config, ConfigError> {
    let config = Config::load(settings, log)?;
    log_to_stderr(&config.log)?;
    Ok(config)
}

fn log_to_stderr(filter: &str) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        ConfigError::value(
            "log",
            format!("is \"{filter}\": {error}; give error, warn, info, debug or trace"),
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// A pipe that nobody reads any more is an end like any other, at which `print!` would panic.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print the answer")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}
