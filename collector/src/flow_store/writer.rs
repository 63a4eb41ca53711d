//! The thread that writes: rows into the segment that is open, a new one after a while, and the
//! oldest away. What cannot be written is counted, and tried again with what comes later.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::line::{ClusterRow, Line};
use super::segment::{MAX_SEGMENT, Name, create, list};
use super::{Limits, Shared, lock};
use crate::flows::{Clock, Ended};

/// Between looks at the folder, and between tries when it cannot be written.
const TICK: Duration = Duration::from_secs(1);
/// A segment covers no more time.
const MAX_SPAN: Duration = Duration::from_secs(300);
/// Bytes that are written at a time.
const CHUNK: usize = 32 << 10;

pub(super) struct Writer {
    shared: Arc<Shared>,
    open: Option<Open>,
    buffer: Vec<u8>,
    /// In the buffer.
    lines: u64,
    earliest: Timestamp,
    /// Of all segments.
    bytes: u64,
    tidied: Option<Instant>,
    failed: Option<Instant>,
    /// The last rows could not be written.
    is_refused: bool,
}

struct Open {
    name: Name,
    file: File,
    bytes: u64,
    since: Instant,
    /// When the first of its flows began.
    earliest: Timestamp,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            open: None,
            buffer: Vec::new(),
            lines: 0,
            earliest: Timestamp::MAX,
            bytes: 0,
            tidied: None,
            failed: None,
            is_refused: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            *lock(&self.shared.round) = Instant::now();
            self.look();
            let (flows, closed) = self.shared.queue.take(TICK);
            let all = flows.len();
            self.write(flows);
            self.shared.queue.done(all);
            if closed && all == 0 {
                return self.close();
            }
        }
    }

    pub(super) fn write(&mut self, flows: Vec<Ended>) {
        let clock = Clock::now();
        for ended in flows {
            let (row, supersedes) = (ended.row(clock), ended.supersedes());
            self.earliest = self.earliest.min(row.started.unwrap_or(Timestamp::MIN));
            let line = Line {
                row: ClusterRow::of(row, &self.shared.cluster.index()),
                stored: true,
                supersedes,
            };
            let before = self.buffer.len();
            if serde_json::to_writer(&mut self.buffer, &line).is_err() {
                self.buffer.truncate(before);
                self.shared.lost("write_failed", 1);
                continue;
            }
            self.buffer.push(b'\n');
            self.lines += 1;
            if self.buffer.len() >= CHUNK {
                self.append();
            }
        }
        self.append();
    }

    /// Puts the folder in order, and sees whether it can be written, also when nothing ends.
    pub(super) fn look(&mut self) {
        if self.tidied.is_some_and(|at| at.elapsed() < TICK) {
            return;
        }
        self.attempt(false, |writer, limits| {
            writer.open(limits)?;
            writer.tidy(limits, 0)
        });
    }

    fn append(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines > 0 && !self.attempt(true, Self::write_buffer) {
            self.shared.lost("write_failed", lines);
        }
        self.buffer.clear();
        self.earliest = Timestamp::MAX;
    }

    /// Whether it went well. After a failure the next try is a while later.
    fn attempt(
        &mut self,
        has_rows: bool,
        what: impl FnOnce(&mut Self, &Limits) -> io::Result<()>,
    ) -> bool {
        if self.failed.is_some_and(|at| at.elapsed() < TICK) {
            return false;
        }
        let limits = self.shared.limits();
        let outcome = what(self, &limits);
        self.failed = outcome.is_err().then(Instant::now);
        if outcome.is_err() {
            self.close();
        }
        // That a file can be made does not say that a full disk takes rows again.
        if has_rows || outcome.is_err() || !self.is_refused {
            self.shared.note(outcome.as_ref().err());
        }
        if has_rows {
            self.is_refused = outcome.is_err();
        }
        outcome.is_ok()
    }

    fn write_buffer(&mut self, limits: &Limits) -> io::Result<()> {
        // It is called after its first line, and may have been made long before that.
        let is_early = |open: &Open| open.bytes == 0 && open.since.elapsed() >= TICK;
        if self.open.as_ref().is_some_and(is_early) {
            self.close();
        }
        self.open(limits)?;
        let more = self.buffer.len() as u64;
        if self.bytes + more > limits.size {
            self.tidy(limits, more)?;
        }
        let open = self.open.as_mut().expect("it was opened");
        if let Err(error) = open.file.write_all(&self.buffer) {
            // Counted as lost, so none of it is to be read.
            let _ = open.file.set_len(open.bytes);
            return Err(error);
        }
        open.bytes += more;
        open.earliest = open.earliest.min(self.earliest);
        self.bytes += more;
        self.shared.show_size(self.bytes);
        Ok(())
    }

    /// Sees to it that there is a segment with room.
    fn open(&mut self, limits: &Limits) -> io::Result<()> {
        let span = (limits.keep / 12).clamp(TICK, MAX_SPAN);
        let most = (limits.size / 16).min(MAX_SEGMENT);
        let is_over = |open: &Open| {
            let is_gone = open.file.metadata().map_or(true, |of| of.nlink() == 0);
            is_gone || open.bytes > 0 && (open.since.elapsed() >= span || open.bytes >= most)
        };
        if self.open.as_ref().is_some_and(is_over) {
            self.close();
        }
        if self.open.is_none() {
            let (name, file) = create(&self.shared.folder, self.shared.run, Timestamp::now())?;
            self.open = Some(Open {
                name,
                file,
                bytes: 0,
                since: Instant::now(),
                earliest: Timestamp::MAX,
            });
        }
        Ok(())
    }

    /// Removes what is too old, and the oldest until there is room for so many bytes more.
    fn tidy(&mut self, limits: &Limits, more: u64) -> io::Result<()> {
        let keep = SignedDuration::try_from(limits.keep).unwrap_or(SignedDuration::MAX);
        let oldest = (Timestamp::now().checked_sub(keep)).unwrap_or(Timestamp::MIN);
        let segments = list(&self.shared.folder)?;
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        for segment in segments {
            let is_open = (self.open.as_ref()).is_some_and(|open| open.name == segment.name);
            if is_open || segment.last >= oldest && bytes + more <= limits.size {
                continue;
            }
            fs::remove_file(&segment.path)?;
            self.shared.spans.forget(segment.name);
            bytes -= segment.bytes;
        }
        (self.bytes, self.tidied) = (bytes, Some(Instant::now()));
        self.shared.show_size(bytes);
        if bytes + more > limits.size {
            return Err(io::Error::other("`flow_store_size` is full"));
        }
        Ok(())
    }

    /// An empty one is no use.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        if open.bytes == 0 {
            let _ = fs::remove_file(self.shared.folder.join(open.name.text()));
        } else {
            self.shared.spans.learn(open.name, open.earliest);
        }
    }
}
