//! `runwire-collector`: arguments, logs, rights, one arm per subcommand.

use std::process::ExitCode;

use runwire_collector::config::{Loaded, LogFormat, Sources, load};
use runwire_collector::kernel::{share_one_heap, symbols};
use runwire_collector::logs::Logs;
use runwire_collector::{agent, capabilities, cli};
use tracing::{error, warn};

fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return cli::refuse_arguments(&error),
    };
    let (name, arguments) = matches.subcommand().expect("clap requires a subcommand");
    // `config get` and the like are commands of their own, with arguments of their own.
    let (name, arguments) = match (name, arguments.subcommand()) {
        ("config", Some((part, arguments))) => (part, arguments),
        _ => (name, arguments),
    };
    // Asked for when packages are made, where nothing is configured.
    let written = match name {
        "completions" => Some(cli::manual::completions(arguments)),
        "man" => Some(cli::manual::man(arguments)),
        _ => None,
    };
    if let Some(outcome) = written {
        return outcome.unwrap_or_else(|error| cli::fail(1, &error));
    }
    let sources = cli::sources(arguments);
    let loaded = match load(&sources) {
        Ok(loaded) => loaded,
        // The archive is for when something is wrong.
        Err(_) if name == "bundle" => Loaded::default(),
        Err(error) => return cli::fail(2, &error),
    };
    let outcome = match name {
        "run" => return run(sources, loaded),
        "status" => cli::status::status(&loaded.config, arguments),
        "flows" => cli::flows::flows(&loaded.config, arguments),
        "doctor" => Ok(cli::doctor::doctor(&loaded.config, arguments)),
        "trace" => cli::trace::trace(&loaded.config, arguments),
        "bundle" => cli::bundle::bundle(&sources, &loaded.config, arguments),
        "config" => Ok(cli::config::show(&loaded.config)),
        "get" => cli::config::get(&loaded.config, arguments),
        "set" => cli::config::set(&loaded.config, arguments),
        "schema" => Ok(cli::config::schema()),
        _ => unreachable!("clap knows the subcommands: {name} {arguments:?}"),
    };
    outcome.unwrap_or_else(|error| cli::fail(1, &error))
}

fn run(sources: Sources, loaded: Loaded) -> ExitCode {
    share_one_heap();
    let logs = Logs::start(&loaded.config);
    let format = loaded.config.log_format;
    match serve(sources, loaded, logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if format == LogFormat::Json => {
            error!(error = format!("{error:#}"), "the collector ends");
            ExitCode::FAILURE
        }
        Err(error) => cli::fail(1, &error),
    }
}

fn serve(sources: Sources, loaded: Loaded, logs: Logs) -> anyhow::Result<()> {
    let listeners = agent::listen(&loaded.config)?;
    symbols::open();
    if loaded.config.drop_capabilities
        && let Err(error) = capabilities::drop_others()
    {
        warn!(%error, "capabilities that are not needed could not be given up");
    }
    // All that takes time runs on threads made for it; requests need no more than one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(agent::run(listeners, sources, loaded, logs))
}
