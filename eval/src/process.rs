//! Child processes that never outlive this one: actors and the programs under test.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::actor::Kind;
use crate::sli::Sample;
use crate::{http, stop};

/// One of the programs under test, with its output in a file.
pub(crate) struct Program {
    pub(crate) name: String,
    child: Child,
}

impl Program {
    /// Started by way of this program (`supervise`), so that the kernel ends it with us.
    pub(crate) fn start(name: &str, file: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = ourselves()
            .arg("supervise")
            .arg("--")
            .arg(file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal goes to the whole group; we stop our children ourselves, in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
        })
    }

    /// The process of the program itself: `supervise` becomes it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `url` answers with 200.
    pub(crate) fn wait_for(&mut self, url: &str, patience: Duration) -> Result<()> {
        let limit = Instant::now() + patience;
        loop {
            stop::check()?;
            self.check()?;
            if http::get(url).is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if Instant::now() > limit {
                bail!("{} was not ready after {patience:?} ({url})", self.name);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Fails when the program ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself: {status}", self.name);
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGTERM);
    }
}

/// Becomes the program, after asking the kernel to end it when its parent dies.
pub(crate) fn supervise(command: &[String]) -> Result<()> {
    set_pdeathsig(Signal::SIGTERM).context("cannot ask to end with the parent")?;
    let (file, arguments) = command.split_first().context("no command")?;
    let error = Command::new(file).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {file}"))
}

/// A player in a lab.
pub(crate) struct Actor {
    pub(crate) kind: Kind,
    pub(crate) settings: Value,
    name: String,
    child: Child,
    input: ChildStdin,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Actor {
    pub(crate) fn start(
        name: &str,
        namespace: Option<&str>,
        kind: Kind,
        settings: Value,
    ) -> Result<Self> {
        kind.check(&settings)
            .with_context(|| format!("actor {name}"))?;
        let mut command = ourselves();
        command.arg("actor").arg(kind.name());
        if let Some(namespace) = namespace {
            command.args(["--namespace", namespace]);
        }
        let mut child = command
            .args(["--settings", &settings.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the actor {name}"))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let samples = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&samples);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(sample) = serde_json::from_str(&line) {
                    collected
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(sample);
                }
            }
        });
        Ok(Self {
            kind,
            settings,
            name: name.to_owned(),
            child,
            input,
            samples,
        })
    }

    /// Changes some settings while the actor runs.
    pub(crate) fn set(&mut self, changes: &Value) -> Result<()> {
        let mut settings = self.settings.clone();
        let (Some(all), Some(changes)) = (settings.as_object_mut(), changes.as_object()) else {
            bail!("settings of {} are not a map", self.name);
        };
        all.extend(changes.clone());
        self.kind
            .check(&settings)
            .with_context(|| format!("cannot change {}", self.name))?;
        writeln!(self.input, "{settings}")
            .with_context(|| format!("cannot change {}: it ended", self.name))?;
        self.settings = settings;
        Ok(())
    }

    /// The number of samples so far: a mark for [`Actor::samples_since`].
    pub(crate) fn mark(&self) -> usize {
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    pub(crate) fn samples_since(&self, mark: usize) -> Vec<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.get(mark..).unwrap_or_default().to_vec()
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the actor {} ended by itself: {status}", self.name);
        }
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGTERM);
    }
}

fn ourselves() -> Command {
    // The link in /proc stays right when a build replaces the file meanwhile.
    Command::new("/proc/self/exe")
}

/// Asks, waits a little, then kills.
fn end(child: &mut Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id())
        && matches!(child.try_wait(), Ok(None))
    {
        // It may end between the question and the signal.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    let limit = Instant::now() + Duration::from_secs(6);
    while Instant::now() < limit {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
