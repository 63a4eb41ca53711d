//! Keeps the index as the files are. The kernel tells of changes at once; a look once a second finds those it does
//! not tell of (network file systems, a ConfigMap's swapped links).

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tracing::{error, warn};

use super::{Retriever, Shared};
use crate::runbook::load::fingerprint;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Among many thousands of files a look takes a while: it shall not take more than a fiftieth of the time.
const LOOKING_SHARE: u32 = 50;

/// An editor writes in several steps: the rest of them comes within this time.
const SETTLE: Duration = Duration::from_millis(50);

pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let weak = Arc::downgrade(shared);
    let thread = std::thread::Builder::new().name("runbooks".into());
    thread.spawn(move || run(&weak))?;
    Ok(())
}

fn run(shared: &Weak<Shared>) {
    let (sender, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| {
        // Nobody listens any more: then nobody needs to know.
        let _ = sender.send(event);
    });
    if let Some(shared) = shared.upgrade() {
        match &mut watcher {
            Ok(watcher) => {
                for folder in &shared.folders {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::Recursive) {
                        let folder = folder.display().to_string();
                        warn!(
                            folder,
                            error = error.to_string(),
                            "no notice of changes: looking once a second"
                        );
                    }
                }
            }
            Err(error) => warn!(
                error = error.to_string(),
                "no notice of changes: looking once a second"
            ),
        }
    }

    let mut built_from = None;
    while let Some(shared) = shared.upgrade() {
        // Taken before reading: what changes meanwhile is seen in the next round.
        let started = Instant::now();
        let now = fingerprint(&shared.folders);
        let pause = LOOK_EVERY.max(LOOKING_SHARE * started.elapsed());
        if built_from.as_ref() != Some(&now) {
            let retriever = Retriever { shared };
            match retriever.refresh() {
                Ok(()) => built_from = Some(now),
                Err(error) => error!(
                    error = format!("{error:#}"),
                    "index not built: the last one stays"
                ),
            }
        } else {
            // What was too early after the last change.
            Retriever { shared }.save();
        }
        match changes.recv_timeout(pause) {
            Ok(_) => {
                std::thread::sleep(SETTLE);
                while changes.try_recv().is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            // There is no watcher: the pause still has to be kept.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(pause),
        }
    }
}
