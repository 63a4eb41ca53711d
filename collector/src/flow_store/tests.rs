//! The store without a kernel: a table that is fed by hand, and a real folder.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::enrich::{FiveTuple, Kind, Workload};
use crate::export::Format;
use crate::flows::{End, Filter, FlowTable, Phase, Sighting, Sort, State, TCP};
use crate::kernel::monotonic_nanoseconds;

const SECOND: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;

/// A run of a collector, with its folder, its table and its writer.
struct Run {
    shared: Arc<Shared>,
    writer: Writer,
    table: FlowTable,
    registry: Registry,
}

impl Run {
    fn start(folder: &Path, run: i64, keep: Duration, size: u64) -> Self {
        let registry = Registry::new(100);
        let metrics = FlowStoreMetrics::register(&registry);
        registry.enable(FLOW_STORE, true);
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            run,
            limits: Mutex::new(Limits { keep, size }),
            queue: Queue::default(),
            cluster: Arc::default(),
            spans: Spans::default(),
            problem: Mutex::default(),
            round: Mutex::new(Instant::now()),
            metrics,
        });
        let mut table = FlowTable::default();
        table.keep_ended();
        Self {
            writer: Writer::new(shared.clone()),
            shared,
            table,
            registry,
        }
    }

    /// A connection from a port that ended so many seconds ago, after one second.
    fn connection(&mut self, port: u16, ago: u64) -> Sighting {
        let ended = monotonic_nanoseconds() - ago * SECOND;
        let sighting = Sighting {
            tuple: FiveTuple {
                protocol: TCP,
                client: ([10, 0, 0, 1], port).into(),
                server: ([10, 0, 0, 2], 443).into(),
            },
            service: None,
            end: End::Client,
            cookie: u64::from(port) << 32 | ago,
            netns: 1,
            phase: Phase::Closed(None),
            started: ended - SECOND,
            opened: ended - SECOND,
            now: ended,
            active: ended,
            bytes_sent: u64::from(port),
            bytes_received: 10,
            segments_sent: 2,
            segments_received: 1,
        };
        self.see(&sighting);
        sighting
    }

    fn see(&mut self, sighting: &Sighting) {
        let workload = |name| Workload::local(name, Kind::Netns);
        (self.table).update(sighting, || (workload("shop"), workload("db")));
    }

    fn write(&mut self) {
        let (ended, lost) = self.table.take_ended(monotonic_nanoseconds());
        assert_eq!(lost, 0);
        self.writer.write(ended);
    }

    /// Ports of the rows between two times, in seconds ago.
    fn ports(&self, from: u64, to: u64, change: impl FnOnce(&mut Query)) -> Vec<u64> {
        let filter = Filter::default();
        let ago = |seconds: u64| {
            Timestamp::now() - jiff::SignedDuration::from_secs(seconds.cast_signed())
        };
        let mut query = Query {
            filter: &filter,
            from: Some(ago(from)),
            to: Some(ago(to)),
            sort: Sort::Recent,
            limit: 1000,
            known: &[],
        };
        change(&mut query);
        let found = reader::search(&self.shared, &query).unwrap();
        let port = |(_, row): &Found| {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            row["src_port"].as_u64().unwrap()
        };
        found.iter().map(port).collect()
    }

    fn lost(&self) -> String {
        let text = self.registry.encode(Format::Text, None);
        let lost = (text.lines()).find(|line| line.starts_with("runwire_flow_store_lost_total{"));
        lost.unwrap_or("none").to_owned()
    }
}

fn day(folder: &TempDir, run: i64) -> Run {
    Run::start(folder.path(), run, Duration::from_secs(86_400), 64 * MIB)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let listed = segment::list(folder).unwrap();
    listed.into_iter().map(|segment| segment.path).collect()
}

#[test]
fn the_next_run_finds_what_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = day(&folder, 1);
    for (port, ago) in [(1, 100), (2, 50), (3, 10)] {
        run.connection(port, ago);
    }
    run.write();
    // A second look has nothing more to tell.
    run.write();
    let mode = fs::metadata(&segments(folder.path())[0])
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut run = day(&folder, 2);
    run.connection(4, 5);
    run.write();
    assert_eq!(run.ports(1000, 0, |_| {}), [4, 3, 2, 1]);
    assert_eq!(run.ports(60, 20, |_| {}), [2]);
    // It lived a second: at these times, too.
    assert_eq!(run.ports(1000, 50, |_| {}), [2, 1]);
    assert_eq!(run.ports(3, 0, |_| {}), [0_u64; 0]);
    assert_eq!(run.ports(1000, 0, |query| query.limit = 2), [4, 3]);
    let by_started = |query: &mut Query| {
        query.sort = Sort::Sent;
        query.limit = 3;
    };
    assert_eq!(run.ports(1000, 0, by_started), [4, 3, 2]);
    // Both runs had an `id` of 1. It is of this run that the first is known elsewhere.
    assert_eq!(run.ports(1000, 0, |query| query.known = &[1]), [3, 2, 1]);
    let failed = Filter {
        state: Some(State::Failed),
        ..Filter::default()
    };
    let of_peer = Filter {
        destination: "10.0.0.0/30".parse().ok(),
        workload: Some("db".to_owned()),
        port: Some(443),
        ..Filter::default()
    };
    // What the closure borrows must outlive the query.
    let count = |filter: &Filter| {
        let query = Query {
            filter,
            from: None,
            to: None,
            sort: Sort::Recent,
            limit: 1000,
            known: &[],
        };
        reader::search(&run.shared, &query).unwrap().len()
    };
    assert_eq!((count(&failed), count(&of_peer)), (0, 4));
}

#[test]
fn a_row_in_the_store_is_the_row_that_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = day(&folder, 1);
    run.connection(7, 3);
    run.write();
    let line = fs::read_to_string(&segments(folder.path())[0]).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        line.as_object_mut().unwrap().remove("stored"),
        Some(true.into())
    );
    let rows = (run.table).rows(
        &Filter::default(),
        Sort::Recent,
        10,
        crate::flows::Clock::now(),
    );
    let shown = serde_json::to_value(&rows[0]).unwrap();
    // Two readings of two clocks are a little apart.
    let close = |name: &str| {
        let time = |of: &serde_json::Value| of[name].as_str().unwrap().parse::<Timestamp>();
        (time(&line).unwrap().duration_since(time(&shown).unwrap()))
            .abs()
            .as_millis()
            < 50
    };
    assert!(
        close("started") && close("ended") && close("last_active"),
        "{line} {shown}"
    );
    for (name, value) in shown.as_object().unwrap() {
        if !["started", "ended", "last_active"].contains(&name.as_str()) {
            assert_eq!(&line[name], value, "{name}");
        }
    }
    assert_eq!(
        line.as_object().unwrap().len(),
        shown.as_object().unwrap().len()
    );
}

#[test]
fn a_segment_is_called_after_its_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = day(&folder, 1);
    run.writer.look();
    thread::sleep(Duration::from_millis(1100));
    let now = Timestamp::now().as_millisecond();
    run.connection(1, 5);
    run.write();
    let segments = segment::list(folder.path()).unwrap();
    assert_eq!(segments.len(), 1, "{segments:?}");
    let first = segments[0].name.first;
    assert!(first.as_millisecond() >= now, "{first}");
}

#[test]
fn a_torn_line_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = day(&folder, 1);
    run.connection(1, 20);
    run.connection(2, 10);
    run.write();
    let path = &segments(folder.path())[0];
    let text = fs::read_to_string(path).unwrap();
    let whole = text.lines().next().unwrap().len() + 1;
    for length in [whole, whole + 1, whole + 40, text.len() - 1] {
        fs::write(path, &text[..length]).unwrap();
        assert_eq!(run.ports(1000, 0, |_| {}), [1], "{length} bytes");
    }
    // Something that is no row costs only itself.
    fs::write(path, format!("\0\u{1}{{}}\n{{\"id\":1}}\n{text}")).unwrap();
    assert_eq!(run.ports(1000, 0, |_| {}), [2, 1]);
}

#[test]
fn what_is_heard_later_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = day(&folder, 1);
    let client = run.connection(1, 20);
    run.write();
    // The server's end goes on, which nobody knew, and ends with an error.
    let server = Sighting {
        end: End::Server,
        cookie: 9,
        netns: 2,
        phase: Phase::Closing,
        bytes_sent: 5000,
        bytes_received: client.bytes_sent,
        ..client
    };
    run.see(&server);
    run.write();
    run.see(&Sighting {
        phase: Phase::Closed(Some("timed_out")),
        ..server
    });
    run.write();
    let text = fs::read_to_string(&segments(folder.path())[0]).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    let run = day(&folder, 2);
    let filter = Filter::default();
    let query = |filter| Query {
        filter,
        from: None,
        to: None,
        sort: Sort::Recent,
        limit: 10,
        known: &[],
    };
    let found = reader::search(&run.shared, &query(&filter)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    for part in [
        r#""bytes_received":5000"#,
        r#""reason":"timed_out""#,
        r#""role":"both""#,
    ] {
        assert!(found[0].1.contains(part), "{found:?} lacks {part}");
    }
}

#[test]
fn what_is_old_goes_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for port in 1..=3 {
        let mut run = day(&folder, port.into());
        run.connection(port, 10);
        run.write();
    }
    let ours = segments(path);
    assert_eq!(ours.len(), 3);
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    let age = |path: &Path| {
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap()
    };
    age(&ours[0]);
    // As old, and not ours: by name, or no plain file.
    let others = [
        "notes.txt",
        "flows-20200101T000000.000Z-1.jsonl.gz",
        "flows-2020.jsonl",
    ];
    for name in others {
        fs::write(path.join(name), "x").unwrap();
        age(&path.join(name));
    }
    let (link, directory) = (
        "flows-20200101T000000.000Z-1.jsonl",
        "flows-20200101T000000.000Z-2.jsonl",
    );
    let target = path.join("notes.txt");
    symlink(&target, path.join(link)).unwrap();
    fs::create_dir(path.join(directory)).unwrap();

    let mut run = Run::start(path, 4, Duration::from_secs(3600), 64 * MIB);
    run.writer.look();
    let left = segments(path);
    assert_eq!(
        left[..2],
        ours[1..],
        "the old one is gone, and a new one is open"
    );
    assert_eq!(run.ports(1000, 0, |_| {}), [3, 2]);
    for name in others.iter().chain([&link, &directory]) {
        assert!(path.join(name).symlink_metadata().is_ok(), "{name} is gone");
    }
}

#[test]
fn the_size_is_never_exceeded() {
    let folder = tempfile::tempdir().unwrap();
    let size = 256 << 10;
    let mut run = Run::start(folder.path(), 1, Duration::from_secs(86_400), size);
    let mut all = 0;
    for round in 0..20 {
        for port in 0..100 {
            run.connection(round * 100 + port + 1, 2);
        }
        run.write();
        let segments = segment::list(folder.path()).unwrap();
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        assert!(bytes <= size, "{bytes} in round {round}");
        all += 1;
    }
    let ports = run.ports(1000, 0, |query| query.limit = 10_000);
    assert!(ports.contains(&(all * 100)), "the last row is there");
    assert!(!ports.contains(&1), "the first is not");
    assert!(ports.len() > 200, "{} rows are left", ports.len());
    assert_eq!(run.lost(), "none");
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_tried_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("flows");
    fs::write(&folder, "in the way").unwrap();
    let mut run = Run::start(&folder, 1, Duration::from_secs(60), MIB);
    run.writer.look();
    let problem = lock(&run.shared.problem).clone().unwrap();
    assert!(
        problem.starts_with(&format!("cannot write to {}: ", folder.display())),
        "{problem}"
    );
    run.connection(1, 10);
    run.connection(2, 10);
    run.write();
    assert_eq!(
        run.lost(),
        r#"runwire_flow_store_lost_total{reason="write_failed"} 2"#
    );
    fs::remove_file(&folder).unwrap();
    thread::sleep(Duration::from_millis(1100));
    run.connection(3, 10);
    run.write();
    assert_eq!(*lock(&run.shared.problem), None);
    assert_eq!(run.ports(1000, 0, |_| {}), [3]);
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Somebody empties it by hand.
    fs::remove_dir_all(&folder).unwrap();
    run.connection(4, 10);
    run.write();
    assert_eq!(run.ports(1000, 0, |_| {}), [4]);
}

#[test]
fn a_disk_that_does_not_answer_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let run = day(&folder, 1);
    assert_eq!(run.shared.held_up(), None);
    *lock(&run.shared.round) = Instant::now() - Duration::from_secs(11);
    let reason = run.shared.held_up().unwrap();
    assert!(reason.ends_with(" has not answered for 11 s"), "{reason}");
}

#[test]
fn what_the_queue_has_no_room_for_is_counted() {
    let queue = Queue::default();
    let folder = tempfile::tempdir().unwrap();
    let mut run = day(&folder, 1);
    let mut ended = || {
        for port in 1..=20_000 {
            run.connection(port, 5);
        }
        run.table.take_last().0
    };
    assert_eq!(queue.push(ended()), 0);
    // The same ports again: connections of another second.
    let again = {
        run.connection(1, 3);
        run.table.take_last().0
    };
    let more: Vec<Ended> = again;
    assert_eq!(queue.push(more), 0);
    let (taken, closed) = queue.take(Duration::ZERO);
    assert_eq!((taken.len(), closed), (20_001, false));
    assert_eq!(queue.push(taken), 0);
    for port in 1..=20_000 {
        run.connection(port, 2);
    }
    assert_eq!(
        queue.push(run.table.take_last().0),
        20_001 + 20_000 - 32_768
    );
    // Of a name server, a minute of its clients is left at the end.
    for port in 1..=100 {
        run.connection(port, 1);
    }
    queue.push_last(run.table.take_last().0);
    assert_eq!(queue.take(Duration::ZERO).0.len(), 32_768 + 100);
}

#[test]
fn a_store_that_is_closed_has_written_everything() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(100);
    let limits = Limits {
        keep: Duration::from_secs(60),
        size: MIB,
    };
    let metrics = FlowStoreMetrics::register(&registry);
    let store = FlowStore::open(folder.path(), limits, Arc::default(), metrics).unwrap();
    let mut run = day(&folder, 1);
    for port in 1..=100 {
        run.connection(port, 5);
    }
    let (ended, lost) = run.table.take_last();
    store.keep_last(ended, lost);
    store.close();
    assert!(store.writer.is_finished());
    assert_eq!(run.ports(1000, 0, |_| {}).len(), 100);
    let mut torn = File::options()
        .append(true)
        .open(&segments(folder.path())[0])
        .unwrap();
    torn.write_all(b"{\"id\":").unwrap();
    assert_eq!(run.ports(1000, 0, |_| {}).len(), 100);
}
