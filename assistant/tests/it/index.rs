//! The index between starts and edits: what is kept, what is made again, and how soon.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runwire_assistant::retrieval::embed::{EmbedError, Embedder, Embedding, HashingEmbedder};
use runwire_assistant::retrieval::fuse::Ranking;
use runwire_assistant::retrieval::{Filters, Options, Retriever, SearchResponse};

use crate::service::service;

#[test]
fn an_edit_is_found_and_a_deleted_page_is_not() {
    let service = service(Some(Box::new(HashingEmbedder)));
    service.retriever.watch().unwrap();
    let ids = |query: &str| -> Vec<String> {
        match service.retriever.search(query, 10, &Filters::default()) {
            Ok(found) => found.results.into_iter().map(|r| r.runbook.id).collect(),
            Err(_) => Vec::new(),
        }
    };
    let within = |what: &str, limit: Duration, holds: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !holds() {
            assert!(
                started.elapsed() < limit,
                "{what} took longer than {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    within("the first index", Duration::from_secs(10), &|| {
        !ids("certificate").is_empty()
    });

    let new = service.folder.path().join("zebra.md");
    std::fs::write(&new, "# Zebra\n\nStripes on the console.\n").unwrap();
    within("a new page", Duration::from_secs(2), &|| {
        ids("zebra stripes").first().is_some_and(|id| id == "zebra")
    });
    std::fs::write(&new, "# Giraffe\n\nA long neck.\n").unwrap();
    within("an edit", Duration::from_secs(2), &|| {
        ids("giraffe neck").first().is_some_and(|id| id == "zebra")
    });
    std::fs::remove_file(&new).unwrap();
    within("a deletion", Duration::from_secs(2), &|| {
        !ids("giraffe neck").contains(&"zebra".to_owned())
    });
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_never_rests_does_not_fill_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        let service = service(Some(Box::new(HashingEmbedder)));
        for count in 0..20 {
            let text = format!("# Count\n\nIt is {count}.\n");
            fs::write(service.folder.path().join("count.md"), text).unwrap();
            service.retriever.refresh().unwrap();
        }
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("index built").count(), 1, "{log}");
}

/// A log, or what a program writes out: it is new again before it was read.
#[test]
fn a_file_that_never_rests_is_found_and_so_is_what_changes_beside_it() {
    let service = service(Some(Box::new(HashingEmbedder)));
    let folder = service.folder.path().to_owned();
    service.retriever.watch().unwrap();
    let has = |query: &str, text: &str| {
        let found = service.retriever.search(query, 10, &Filters::default());
        found.is_ok_and(|found| found.results.iter().any(|r| r.text.contains(text)))
    };
    let within = |what: &str, holds: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(2), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let (stop, written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Put in place at once: on some file systems a file that is written over is empty most of the time.
    let elsewhere = tempfile::tempdir().unwrap();
    let draft = elsewhere.path().join("busy.md");
    std::thread::scope(|scope| {
        // Dropped also when an assertion fails: then the other thread must not write for ever.
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                let n = written.fetch_add(1, Ordering::Relaxed);
                fs::write(&draft, format!("# Zebra\n\nStripe {n}.\n")).unwrap();
                fs::rename(&draft, folder.join("busy.md")).unwrap();
            }
        });
        within("the file itself", &|| has("zebra stripe", "Stripe"));
        for round in 0..3 {
            let new = folder.join(format!("new-{round}.md"));
            fs::write(&new, format!("# Giraffe\n\nNeck number{round}.\n")).unwrap();
            within("a new page", &|| {
                has("giraffe neck", &format!("number{round}"))
            });
            fs::remove_file(&new).unwrap();
            within("a deletion", &|| {
                !has("giraffe neck", &format!("number{round}"))
            });
        }
        assert!(written.load(Ordering::Relaxed) > 100);
    });
    let last = format!("Stripe {}.", written.load(Ordering::Relaxed) - 1);
    within("its last words", &|| has("zebra stripe", &last));
}

struct Stopping<'a>(&'a AtomicUsize);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// The same text under the same id, and another page all the same: sections and lines are others.
#[test]
fn a_page_that_is_renamed_to_another_format_is_cut_anew() {
    let folder = tempfile::tempdir().unwrap();
    let text = "Zebra\n\n## Stripes\n\nThe console shows stripes.\n";
    fs::write(folder.path().join("zebra.txt"), text).unwrap();
    let embedder = Some(Box::new(HashingEmbedder) as Box<dyn Embedder>);
    let retriever = Retriever::new(vec![folder.path().to_owned()], embedder, None);
    let found = || {
        retriever.refresh().unwrap();
        let found = retriever.search("console stripes", 1, &Filters::default());
        let first = found.unwrap().results.remove(0);
        (first.section.anchor, first.section.line_start, first.text)
    };
    assert_eq!(found().0, "top");
    fs::rename(
        folder.path().join("zebra.txt"),
        folder.path().join("zebra.md"),
    )
    .unwrap();
    let text = "The console shows stripes.".to_owned();
    assert_eq!(found(), ("stripes".into(), 5, text));
}

/// Counts the texts that are embedded.
#[derive(Clone, Default)]
struct Counting {
    embedded: Arc<AtomicUsize>,
}

impl Embedder for Counting {
    fn name(&self) -> &str {
        HashingEmbedder.name()
    }

    fn dimensions(&self) -> usize {
        HashingEmbedder.dimensions()
    }

    fn count_tokens(&self, text: &str) -> usize {
        HashingEmbedder.count_tokens(text)
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        self.embedded.fetch_add(texts.len(), Ordering::Relaxed);
        HashingEmbedder.embed_passages(texts)
    }

    fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError> {
        HashingEmbedder.embed_query(text)
    }
}

/// A start with a cache folder: its retriever and how many texts it embedded.
fn start(folder: &Path, cache: &Path) -> (Retriever, Counting) {
    let counting = Counting::default();
    let embedder: Box<dyn Embedder> = Box::new(counting.clone());
    let retriever = Retriever::new(vec![folder.to_owned()], Some(embedder), Some(cache));
    retriever.refresh().unwrap();
    (retriever, counting)
}

fn count(counting: &Counting) -> usize {
    counting.embedded.swap(0, Ordering::Relaxed)
}

fn ask(retriever: &Retriever, question: &str) -> SearchResponse {
    retriever.search(question, 10, &Filters::default()).unwrap()
}

fn index_file(cache: &Path) -> PathBuf {
    fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .unwrap()
}

#[test]
fn the_index_is_kept_between_starts_and_a_damaged_one_is_made_anew() {
    let service = service(None);
    let cache = tempfile::tempdir().unwrap();
    let start = || start(service.folder.path(), cache.path());
    let (retriever, counting) = start();
    let first = ask(&retriever, "certificate expired");
    assert!(count(&counting) > 3);
    let file = index_file(cache.path());
    let kept = fs::read(&file).unwrap();

    let (retriever, counting) = start();
    assert_eq!(ask(&retriever, "certificate expired"), first);
    assert_eq!(count(&counting), 0);

    let mut turned = kept.clone();
    turned[kept.len() / 2] ^= 4;
    for damaged in [
        &kept[..kept.len() / 2],
        &turned,
        b"",
        b"RWINDEX\0 of somebody else",
    ] {
        fs::write(&file, damaged).unwrap();
        let (retriever, counting) = start();
        assert_eq!(ask(&retriever, "certificate expired"), first);
        assert!(count(&counting) > 3);
        assert_eq!(fs::read(&file).unwrap(), kept);
    }
}

#[test]
fn only_what_changed_is_embedded_again() {
    let service = service(None);
    let cache = tempfile::tempdir().unwrap();
    let (retriever, counting) = start(service.folder.path(), cache.path());
    count(&counting);
    let page = service.folder.path().join("dns-servfail.md");
    let text = fs::read_to_string(&page).unwrap();
    fs::write(
        &page,
        text.replace("Restart the forwarder", "Turn the forwarder off"),
    )
    .unwrap();
    retriever.refresh().unwrap();
    assert_eq!(count(&counting), 2, "a passage and the page's first words");
    assert!(
        ask(&retriever, "turn forwarder off").results[0]
            .text
            .contains("Turn the forwarder off")
    );
    // To another name: breadcrumbs and words stay, so no vector is made.
    fs::rename(&page, service.folder.path().join("resolver.md")).unwrap();
    retriever.refresh().unwrap();
    assert_eq!(count(&counting), 0);
    assert_eq!(
        ask(&retriever, "turn forwarder off").results[0].runbook.id,
        "resolver"
    );
}

/// From so few passages on that the tests' pages have one.
fn with_graph(folder: &Path, cache: &Path) -> (Retriever, Counting) {
    let counting = Counting::default();
    let options = Options {
        graph_from: 100,
        ..Options::default()
    };
    let embedder: Box<dyn Embedder> = Box::new(counting.clone());
    let folders = vec![folder.to_owned()];
    let retriever = Retriever::with(folders, Some(embedder), Some(cache), options);
    (retriever, counting)
}

#[test]
fn a_graph_is_built_beside_saved_with_the_index_and_follows_edits() {
    let service = service(None);
    let folder = service.folder.path();
    for page in 0..150 {
        let text = format!("# Page {page}\n\nThe queue of listener {page} is full.\n");
        fs::write(folder.join(format!("page-{page}.md")), text).unwrap();
    }
    let (plain_cache, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (plain, _) = start(folder, plain_cache.path());
    let expected = QUESTIONS.map(|question| ask(&plain, question));
    assert_eq!(plain.state().graphs, 0);

    let (retriever, _) = with_graph(folder, cache.path());
    retriever.refresh().unwrap();
    assert_eq!(retriever.state().graphs, 0, "search does not wait for it");
    assert_eq!(
        QUESTIONS.map(|question| ask(&retriever, question)),
        expected
    );
    retriever.build_graphs();
    assert_eq!(retriever.state().graphs, 1);
    assert_eq!(
        QUESTIONS.map(|question| ask(&retriever, question)),
        expected
    );
    drop(retriever);

    let (retriever, counting) = with_graph(folder, cache.path());
    retriever.watch().unwrap();
    let within = |what: &str, limit: Duration, holds: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !holds() {
            assert!(
                started.elapsed() < limit,
                "{what} took longer than {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let is_ready = || retriever.state().ready;
    within("the start", Duration::from_secs(10), &is_ready);
    assert_eq!((retriever.state().graphs, count(&counting)), (1, 0));
    assert_eq!(
        QUESTIONS.map(|question| ask(&retriever, question)),
        expected
    );
    let first = |question: &str| {
        let results = ask(&retriever, question).results;
        results
            .into_iter()
            .next()
            .map_or_else(String::new, |result| result.runbook.id)
    };
    fs::write(folder.join("page-7.md"), "# Zebra\n\nStripes.\n").unwrap();
    within("an edit", Duration::from_secs(2), &|| {
        first("zebra stripes") == "page-7"
    });
    assert_eq!((retriever.state().graphs, count(&counting)), (1, 2));
    fs::remove_file(folder.join("page-7.md")).unwrap();
    within("a deletion", Duration::from_secs(2), &|| {
        first("zebra stripes") != "page-7"
    });
    // So much is new that all is put together again: the graph is built again, by itself.
    for page in 0..150 {
        let text = format!("# Other {page}\n\nThe line of printer {page} is long.\n");
        fs::write(folder.join(format!("other-{page}.md")), text).unwrap();
    }
    within("new pages", Duration::from_secs(5), &|| {
        first("printer 33").starts_with("other-33")
    });
    within("their graph", Duration::from_secs(20), &|| {
        retriever.state().graphs > 0
    });
    assert_eq!(first("printer 33"), "other-33");
}

const QUESTIONS: [&str; 5] = [
    "queue full",
    "listener 33 is full",
    "certificate expired",
    "CoreDNSErrorsHigh",
    "zebra",
];

#[test]
fn after_many_edits_answers_are_those_of_a_fresh_start() {
    let service = service(None);
    let cache = tempfile::tempdir().unwrap();
    let (retriever, _) = start(service.folder.path(), cache.path());
    for edit in 0..40 {
        let page = service.folder.path().join(format!("page-{}.md", edit % 7));
        if edit % 5 == 4 {
            // May be gone already.
            let _ = fs::remove_file(&page);
        } else {
            let text = format!(
                "# Page {edit}\n\nThe queue of listener {edit} is full.\n\n## More\n\nExpired number {edit}.\n"
            );
            fs::write(&page, text).unwrap();
        }
        retriever.refresh().unwrap();
    }
    let fresh_cache = tempfile::tempdir().unwrap();
    let (fresh, _) = start(service.folder.path(), fresh_cache.path());
    let answers = QUESTIONS.map(|question| ask(&retriever, question));
    drop(retriever);
    let (again, counting) = start(service.folder.path(), cache.path());
    assert_eq!(count(&counting), 0);
    for (question, answer) in QUESTIONS.into_iter().zip(answers) {
        let expected = ask(&fresh, question);
        assert_eq!(answer, expected, "{question}");
        assert_eq!(ask(&again, question), expected, "{question}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_read_all_the_same() {
    let service = service(None);
    let cache = tempfile::tempdir().unwrap();
    start(service.folder.path(), cache.path());
    let kept = fs::read(index_file(cache.path())).unwrap();
    // Root may write anywhere, so the lock's place is taken as well.
    let lock = index_file(cache.path()).with_extension("lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let (retriever, counting) = start(service.folder.path(), cache.path());
    assert_eq!(count(&counting), 0);
    let new = service.folder.path().join("zebra.md");
    fs::write(new, "# Zebra\n\nStripes.\n").unwrap();
    retriever.refresh().unwrap();
    assert_eq!(
        ask(&retriever, "zebra stripes").results[0].runbook.id,
        "zebra"
    );
    assert_eq!(fs::read(index_file(cache.path())).unwrap(), kept);
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_that_is_swapped_by_its_link_is_seen() {
    let place = tempfile::tempdir().unwrap();
    let version = |name: &str, text: &str| {
        let folder = place.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("page.md"), text).unwrap();
        folder
    };
    let link = place.path().join("current");
    let swap = |folder: &Path| {
        let next = place.path().join("next");
        symlink(folder, &next).unwrap();
        fs::rename(&next, &link).unwrap();
    };
    swap(&version("one", "# Zebra\n\nStripes.\n"));
    let cache = tempfile::tempdir().unwrap();
    let (retriever, _) = start(&link, cache.path());
    retriever.watch().unwrap();
    assert!(ask(&retriever, "zebra stripes").answerable);
    swap(&version("two", "# Giraffe\n\nA long neck.\n"));
    let started = Instant::now();
    while !ask(&retriever, "giraffe neck")
        .results
        .iter()
        .any(|result| result.runbook.title == "Giraffe")
    {
        assert!(started.elapsed() < Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ranks_are_those_among_the_pages_that_may_answer() {
    let service = service(None);
    let options = Options {
        ranking: Ranking::ReciprocalRank,
        ..Options::default()
    };
    let embedder: Box<dyn Embedder> = Box::new(HashingEmbedder);
    let folders = vec![service.folder.path().to_owned()];
    let retriever = Retriever::with(folders, Some(embedder), None, options);
    retriever.refresh().unwrap();
    let filters = Filters {
        runbook: vec!["dns-servfail".into()],
        ..Filters::default()
    };
    let question = "resolver answers SERVFAIL";
    let found = retriever.search(question, 3, &filters).unwrap();
    assert!(found.answerable);
    assert_eq!(found.results[0].runbook.id, "dns-servfail");
}
