//! Log lines: to standard error as text or JSON, at a level that may change while we run; the last
//! ones are also kept for the support bundle.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Level, error};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Config, LogFormat};

const KEPT_LINES: usize = 1000;

/// A handle on the logs of this process.
#[derive(Clone, Default)]
pub struct Logs {
    level: Option<reload::Handle<Targets, Registry>>,
    recent: Recent,
}

impl Logs {
    /// From now on everything that is logged goes where the configuration says; panics too, so that
    /// whoever reads JSON finds nothing else.
    pub fn start(config: &Config) -> Self {
        let (level, handle) = reload::Layer::new(targets(config.log_level));
        let lines = fmt::layer().with_writer(io::stderr).with_target(false);
        let lines = match config.log_format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let recent = Recent::default();
        let kept = fmt::layer().json().with_writer(recent.clone());
        // Fails if logs go somewhere already, as in tests.
        let _ = tracing_subscriber::registry()
            .with(level)
            .with(lines)
            .with(kept)
            .try_init();
        std::panic::set_hook(Box::new(|panic| error!(error = %panic, "panicked")));
        Self {
            level: Some(handle),
            recent,
        }
    }

    pub fn set_level(&self, level: Level) {
        if let Some(handle) = &self.level {
            // Fails only when nothing is logged any more.
            let _ = handle.reload(targets(level));
        }
    }

    /// The last lines, oldest first, as JSON whatever the format is.
    pub fn recent(&self) -> String {
        lock(&self.recent.0).iter().map(String::as_str).collect()
    }
}

/// Whoever asks Kubernetes here says what is wrong, once and with the reason. Its library says the
/// same at every try, as an error, and with whole answers: that is for who looks closely.
fn targets(level: Level) -> Targets {
    let targets = Targets::new().with_default(level);
    if level >= Level::DEBUG {
        return targets;
    }
    targets
        .with_target("kube_runtime::watcher", LevelFilter::OFF)
        .with_target("kube_client::client", LevelFilter::OFF)
        // Certificates and tokens, of which nobody else knows.
        .with_target("kube_client::client::auth", level)
        .with_target("kube_client::client::tls", level)
}

#[derive(Clone, Default)]
struct Recent(Arc<Mutex<VecDeque<String>>>);

impl Write for Recent {
    /// Gets a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = lock(&self.0);
        if lines.len() >= KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Recent {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_last_lines_are_kept() {
    let logs = Logs::default();
    for n in 0..1500 {
        let line = format!("{n}\n");
        logs.recent.clone().write_all(line.as_bytes()).unwrap();
    }
    let text = logs.recent();
    assert_eq!(text.lines().count(), KEPT_LINES);
    assert_eq!(text.lines().last(), Some("1499"));
}

#[test]
fn what_the_library_of_kubernetes_repeats_is_not_logged_unless_asked_for() {
    let repeats = ["kube_runtime::watcher", "kube_client::client::builder"];
    for target in repeats {
        let is_on = |level| targets(level).would_enable(target, &Level::ERROR);
        assert!(!is_on(Level::INFO) && is_on(Level::DEBUG), "{target}");
    }
    for target in ["kube_client::client::tls", "runwire_collector::k8s::watch"] {
        assert!(targets(Level::INFO).would_enable(target, &Level::WARN));
    }
}
