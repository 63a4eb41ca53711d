//! Keeps the index as the files are. The kernel tells of changes at once; a look once a second finds those it does
//! not tell of (network file systems, a ConfigMap's swapped links).

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{error, warn};

use super::{Retriever, Shared, build_graphs};
use crate::runbook::load::fingerprint;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Among many thousands of files a look takes a while: it shall not take more than a twentieth of the time.
const LOOKING_SHARE: u32 = 20;

/// An editor writes in several steps: the rest of them comes within this time.
const SETTLE: Duration = Duration::from_millis(50);

pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let weak = Arc::downgrade(shared);
    let thread = std::thread::Builder::new().name("runbooks".into());
    thread.spawn(move || run(&weak))?;
    // Its own, because a graph takes minutes and an edit must not wait for it. The other thread saves what it made.
    let weak = Arc::downgrade(shared);
    let thread = std::thread::Builder::new().name("graphs".into());
    thread.spawn(move || {
        while weak.strong_count() > 0 {
            build_graphs(&weak);
            std::thread::sleep(LOOK_EVERY);
        }
    })?;
    Ok(())
}

fn run(shared: &Weak<Shared>) {
    let (sender, changes) = mpsc::channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Our own looks open every folder: they must not be what we look again for.
        if !event.as_ref().is_ok_and(|event| event.kind.is_access()) {
            // Nobody listens any more: then nobody needs to know.
            let _ = sender.send(());
        }
    });
    let mut watched = Watched {
        watcher: watcher.inspect_err(no_notice).ok(),
        places: Vec::new(),
    };

    let mut built_from = None;
    while let Some(shared) = shared.upgrade() {
        watched.follow(&shared.folders);
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

/// The folders as they were when they were last given to the watcher.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    places: Vec<PathBuf>,
}

impl Watched {
    /// A folder that is a link may lead elsewhere by now, and the watcher would stay where it was.
    fn follow(&mut self, folders: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let places = folders.iter().map(std::fs::canonicalize);
        let places: Vec<PathBuf> = places.filter_map(Result::ok).collect();
        if places == self.places {
            return;
        }
        for gone in self.places.iter().filter(|place| !places.contains(place)) {
            // It may not exist any more: then there is nothing left to watch.
            let _ = watcher.unwatch(gone);
        }
        for new in places.iter().filter(|place| !self.places.contains(place)) {
            if let Err(error) = watcher.watch(new, RecursiveMode::Recursive) {
                no_notice(&error);
            }
        }
        self.places = places;
    }
}

fn no_notice(error: &notify::Error) {
    warn!(
        error = error.to_string(),
        "no notice of changes: looking once a second"
    );
}
