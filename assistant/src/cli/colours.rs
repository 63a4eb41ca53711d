//! Whether to print in colour: to a terminal, unless somebody says NO_COLOR (<https://no-color.org>).

use std::io::IsTerminal;

pub(super) fn wanted() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    std::io::stdout().is_terminal() && !is_unwanted && !is_dumb
}
