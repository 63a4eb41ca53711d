//! `runwire-collector`: arguments, logs, one arm per subcommand.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::ArgMatches;
use runwire_collector::config::{Config, LogFormat, load};
use runwire_collector::{agent, cli};
use tracing_subscriber::fmt;

fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return cli::refuse_arguments(&error),
    };
    let (name, arguments) = matches.subcommand().expect("clap requires a subcommand");
    let config = match load(&cli::sources(arguments)) {
        Ok(loaded) => loaded.config,
        Err(error) => return cli::fail(2, &error),
    };
    match dispatch(name, arguments, config) {
        Ok(code) => code,
        Err(error) => cli::fail(1, &error),
    }
}

fn dispatch(name: &str, arguments: &ArgMatches, config: Config) -> anyhow::Result<ExitCode> {
    match name {
        "run" => {
            log_to_stderr(&config);
            // All that takes time runs on threads made for it; requests need no more than one.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(agent::run(config))?;
            Ok(ExitCode::SUCCESS)
        }
        "status" => cli::status::status(&config),
        "doctor" => Ok(cli::doctor::doctor(&config)),
        "config" => Ok(cli::show_config(&config)),
        _ => unreachable!("clap knows the subcommands: {name} {arguments:?}"),
    }
}

fn log_to_stderr(config: &Config) {
    let stderr = std::io::stderr;
    let builder = fmt()
        .with_writer(stderr)
        .with_max_level(config.log_level)
        .with_target(false);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
