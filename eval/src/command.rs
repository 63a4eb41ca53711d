//! Runs `ip`, `nft` and `tc`, and says which command failed and why.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Arguments are separated by white space, unless it is between single quotes.
pub(crate) fn run(line: &str) -> Result<String> {
    run_with_input(line, "")
}

pub(crate) fn run_with_input(line: &str, input: &str) -> Result<String> {
    let mut words = line.split('\'').enumerate().flat_map(|(place, part)| {
        if place % 2 == 0 {
            part.split_whitespace().collect()
        } else {
            vec![part]
        }
    });
    let program = words.next().context("an empty command")?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`: is it installed?"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A command that fails early closes its input; its message says more than our broken pipe.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for `{line}`"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}", message.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Also looks where administrators' programs live: a user's PATH may lack /usr/sbin.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
