//! `completions` and `man`: what a shell and `man` want to know of the commands.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub(super) fn completions_command() -> Command {
    Command::new("completions")
        .about("Print the completions of a shell")
        .arg(
            Arg::new("shell")
                .required(true)
                .value_parser(value_parser!(Shell)),
        )
}

pub(super) fn man_command() -> Command {
    Command::new("man")
        .about("Print the manual page of the program, or of one of its commands")
        .arg(Arg::new("command").value_name("COMMAND"))
}

pub fn completions(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let shell = *arguments
        .get_one::<Shell>("shell")
        .expect("clap requires it");
    let mut program = super::command();
    let name = program.get_name().to_owned();
    // It panics where it cannot write, which a closed pipe is enough for.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut text);
    stdout()
        .write_all(&text)
        .context("cannot write the completions")?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut program = super::command();
    // Gives the commands their whole names.
    program.build();
    let page = match arguments.get_one::<String>("command") {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                let known: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
                let known = known.join(", ");
                let error = format!("COMMAND is `{name}`; the commands are {known}");
                return Ok(super::fail(2, &error));
            }
        },
    };
    clap_mangen::Man::new(page)
        .render(&mut stdout())
        .context("cannot write the manual page")?;
    Ok(ExitCode::SUCCESS)
}
