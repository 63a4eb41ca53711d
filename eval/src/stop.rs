//! Ctrl-C and SIGTERM: noticed, so that every `Drop` still runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT and SIGTERM only raise a flag, which ends every wait in this program at once.
pub(crate) fn listen() -> Result<()> {
    static LISTENING: OnceLock<()> = OnceLock::new();
    if LISTENING.set(()).is_err() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the signal thread")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).context("cannot handle SIGINT")?,
            signal(SignalKind::terminate()).context("cannot handle SIGTERM")?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                STOPPED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

pub(crate) fn requested() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Fails when the user asked to stop: `?` then unwinds through the guards.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("stopped on request");
    }
    Ok(())
}

/// Sleeps, and fails early when asked to stop.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}
