//! Parses the arguments and runs one subcommand. Exit codes: 0 done, 1 it failed or found something, 2 bad input.

use std::process::ExitCode;

use clap::Parser;
use runwire_assistant::cli::{self, Cli};
use runwire_assistant::config::ConfigError;

#[expect(
    clippy::print_stderr,
    reason = "the one place that tells the user why we stop"
)]
fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.downcast_ref::<ConfigError>().is_some() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
