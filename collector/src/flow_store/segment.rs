//! The files of the store: what they are called, which there are, and opening them. Whatever has
//! another name, or is no plain file, is not ours and stays as it is.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

const DIGITS: &str = "%Y%m%dT%H%M%S%.3fZ";
/// None is longer, but for a line or two.
pub(super) const MAX_SEGMENT: u64 = 8 << 20;

/// `flows-20261129T011046.123Z-19a2b3c4d5e.jsonl`: when its first line was written, and which run
/// of the collector wrote it. Names sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) first: Timestamp,
    /// When that run began, in milliseconds: an `id` is unique in a run.
    pub(super) run: i64,
}

/// A segment as the folder lists it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// When its last line was written.
    pub(super) last: Timestamp,
}

impl Name {
    pub(super) fn text(self) -> String {
        format!("flows-{}-{:x}.jsonl", self.first.strftime(DIGITS), self.run)
    }

    /// Of exactly such a name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix("flows-")?.strip_suffix(".jsonl")?;
        let (first, run) = inner.split_once('-')?;
        let first = jiff::civil::DateTime::strptime(DIGITS, first).ok()?;
        let name = Self {
            first: first.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp(),
            run: i64::from_str_radix(run, 16).ok()?,
        };
        (name.text() == text).then_some(name)
    }
}

/// The oldest first. Nothing where there is no folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(Name::parse) else {
            continue;
        };
        // Of the entry itself: a link to a file is no file.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        segments.push(Segment {
            name,
            path: entry.path(),
            bytes: metadata.len(),
            last: metadata.modified().map_or(name.first, timestamp),
        });
    }
    segments.sort_unstable_by_key(|segment| segment.name);
    Ok(segments)
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

/// A new one, for its owner alone; and the folder, if there is none.
pub(super) fn create(folder: &Path, run: i64, now: Timestamp) -> io::Result<(Name, File)> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut name = Name {
        first: milliseconds(now),
        run,
    };
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(folder.join(name.text()));
        match file {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                name.first += jiff::SignedDuration::from_millis(1);
            }
            file => return Ok((name, file?)),
        }
    }
}

fn milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// Its whole lines: the last may be torn, where the collector was killed.
pub(super) fn read(segment: &Segment) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&segment.path)?;
    let mut bytes = Vec::new();
    file.take(MAX_SEGMENT * 2).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n');
    bytes.truncate(whole.map_or(0, |at| at + 1));
    Ok(bytes)
}

#[test]
fn only_our_own_names_are_names() {
    let name = Name {
        first: "2026-11-29T01:10:46.120Z".parse().unwrap(),
        run: 0x19a_2b3c_4d5e,
    };
    let text = "flows-20261129T011046.120Z-19a2b3c4d5e.jsonl";
    assert_eq!(name.text(), text);
    assert_eq!(Name::parse(text), Some(name));
    for other in [
        "flows-20261129T011046.120Z-19A2b3c4d5e.jsonl",
        "flows-20261129T011046.12Z-19a2b3c4d5e.jsonl",
        "flows-20261329T011046.120Z-1.jsonl",
        "flows-20261129T011046.120Z-1.jsonl.gz",
        "flows-20261129T011046.120Z.jsonl",
        "flows--.jsonl",
        "",
    ] {
        assert_eq!(Name::parse(other), None, "{other}");
    }
}
