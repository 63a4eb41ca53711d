//! What the store has of a time: segments from the newest to the oldest, one at a time in memory,
//! lines from the last to the first, so that the line that counts comes before what it supersedes.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::Shared;
use super::line::Stored;
use super::segment::{Name, Segment, list, read};
use crate::flows::{Filter, Sort};

/// Bytes that one request may read.
const READ_AT_MOST: u64 = 1 << 30;

/// What is asked of the store.
pub struct Query<'a> {
    /// Its span is that of the kernel's clock, so not for here.
    pub filter: &'a Filter,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub sort: Sort,
    pub limit: usize,
    /// Rows of this run that are known better elsewhere: ids, in order.
    pub known: &'a [u64],
}

/// A row as JSON, and where it is in the order that was asked for: the most first.
pub type Found = (Reverse<i128>, String);

/// Why the store gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error(
        "this would read more than a gigabyte of the flow store: ask for a shorter time, or for what ended last (sort=recent)"
    )]
    TooMuch,
    #[error("the flow store cannot be read: {0}; without `from` and `to` there is what memory has")]
    Io(#[from] io::Error),
}

/// When the first flow of a segment began, as far as that is known.
#[derive(Default)]
pub(super) struct Spans(Mutex<HashMap<Name, Timestamp>>);

impl Spans {
    pub(super) fn learn(&self, name: Name, earliest: Timestamp) {
        self.lock().insert(name, earliest);
    }

    pub(super) fn forget(&self, name: Name) {
        self.lock().remove(&name);
    }

    fn earliest(&self, name: Name) -> Option<Timestamp> {
        self.lock().get(&name).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Search<'a> {
    query: &'a Query<'a>,
    /// Runs and ids of lines that are not to be shown any more.
    superseded: HashSet<(i64, u64)>,
    found: Vec<Found>,
}

/// The first `limit` of the order.
pub(super) fn search(shared: &Shared, query: &Query) -> Result<Vec<Found>, Unread> {
    let mut search = Search {
        query,
        superseded: HashSet::new(),
        found: Vec::new(),
    };
    let mut left = READ_AT_MOST;
    for segment in list(&shared.folder)?.into_iter().rev() {
        if search.can_skip(&segment, shared.spans.earliest(segment.name)) {
            continue;
        }
        left = left.checked_sub(segment.bytes).ok_or(Unread::TooMuch)?;
        let bytes = match read(&segment) {
            // Removed meanwhile, for its age or for want of room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let earliest = search.take(&bytes, &segment, shared.run);
        // Of this run, the writer knows it; what is open now may become older still.
        if segment.name.run != shared.run {
            shared.spans.learn(segment.name, earliest);
        }
    }
    search.found.sort_by_key(|(key, _)| *key);
    Ok(search.found)
}

impl Search<'_> {
    /// Whether nothing in it can be wanted.
    fn can_skip(&self, segment: &Segment, earliest: Option<Timestamp>) -> bool {
        let query = self.query;
        // What is in a segment ended before it was written.
        let is_before = query.from.is_some_and(|from| segment.last < from);
        let is_after = (query.to.zip(earliest)).is_some_and(|(to, earliest)| earliest > to);
        let is_full = self.found.len() >= query.limit && query.sort == Sort::Recent;
        let last = segment.last.as_nanosecond();
        let worst = || self.found.iter().map(|(key, _)| key.0).min();
        is_before || is_after || is_full && worst().is_some_and(|worst| worst > last)
    }

    /// Returns when the first of its flows began.
    fn take(&mut self, bytes: &[u8], segment: &Segment, this_run: i64) -> Timestamp {
        let query = self.query;
        let run = segment.name.run;
        let mut earliest = Timestamp::MAX;
        // Times in lines have milliseconds.
        let from = query.from.map(Timestamp::as_millisecond);
        for line in bytes.rsplit(|&byte| byte == b'\n') {
            let Ok(stored) = serde_json::from_slice::<Stored>(line) else {
                continue;
            };
            earliest = earliest.min(stored.started.unwrap_or(Timestamp::MIN));
            let is_known = run == this_run && query.known.binary_search(&stored.id).is_ok();
            let is_old = self.superseded.contains(&(run, stored.id));
            if stored.supersedes {
                self.superseded.insert((run, stored.id));
            }
            let ended_before =
                (from.zip(stored.end())).is_some_and(|(from, end)| end.as_millisecond() < from);
            let began_after =
                (query.to.zip(stored.started)).is_some_and(|(to, started)| started > to);
            let is_wanted = || stored.seen().is_some_and(|seen| query.filter.has(&seen));
            if is_known || is_old || ended_before || began_after || !is_wanted() {
                continue;
            }
            let Ok(text) = std::str::from_utf8(line) else {
                continue;
            };
            let key = Reverse(query.sort.key(&stored.measures()));
            self.found.push((key, text.to_owned()));
        }
        if query.limit < self.found.len() {
            (self.found).select_nth_unstable_by_key(query.limit, |(key, _)| *key);
            self.found.truncate(query.limit);
        }
        earliest
    }
}
