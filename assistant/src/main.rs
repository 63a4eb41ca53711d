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
    keep_to_ourselves();
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

/// Since 1.31 ONNX Runtime for Linux sends usage data to its maker and writes an identifier to the user's cache, as soon as it is
/// loaded: to switch telemetry off in its environment comes too late.
#[expect(unsafe_code, reason = "it reads a variable of the environment")]
fn keep_to_ourselves() {
    // SAFETY: no other thread has been started yet.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}
