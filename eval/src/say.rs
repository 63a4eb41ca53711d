//! What a person sees: results on standard output, progress on standard error.

use std::fmt::Display;

#[expect(clippy::print_stdout, reason = "the place where results are printed")]
pub(crate) fn result(text: impl Display) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the place where progress is printed")]
pub(crate) fn progress(text: impl Display) {
    eprintln!("{text}");
}
