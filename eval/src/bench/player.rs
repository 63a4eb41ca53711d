//! A process that makes load, as long as this lives.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};

use super::load::{Done, Load};

pub(super) struct Player {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Player {
    /// Servers have their port when this returns.
    pub(super) fn start(namespace: &str, load: &Load) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["load", "--namespace", namespace, "--settings"])
            .arg(serde_json::to_string(load)?)
            // Open until we are gone or done with it.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start a player in {namespace}"))?;
        let output = child.stdout.take().context("no standard output")?;
        let mut player = Self {
            child,
            output: BufReader::new(output),
        };
        if matches!(
            load,
            Load::Answer { .. } | Load::Reply { .. } | Load::Sink { .. } | Load::Hold { .. }
        ) {
            player.line()?;
        }
        Ok(player)
    }

    /// Waits until it is done. It stays, with the connections it keeps.
    pub(super) fn done(&mut self) -> Result<Done> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("a player said `{}`", line.trim()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        match read.context("cannot read what a player says")? {
            0 => anyhow::bail!("a player ended by itself: its message is above"),
            _ => Ok(line),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Nothing in it is worth an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
