use super::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let location = folder.path().join(path);
        fs::create_dir_all(location.parent().unwrap()).unwrap();
        fs::write(location, content).unwrap();
    }
    folder
}

fn ids(library: &Library) -> Vec<&str> {
    library.runbooks.iter().map(|r| r.id.as_str()).collect()
}

fn kinds(library: &Library) -> Vec<String> {
    library
        .warnings
        .iter()
        .map(|w| format!("{}: {}", w.line, w.kind))
        .collect()
}

#[test]
fn ids_are_paths_without_the_extension_and_hidden_files_are_not_pages() {
    let folder = folder(&[
        ("b.md", b"# B"),
        ("a/deep/c.d.md", b"# C"),
        (".git/x.md", b"# X"),
        ("notes.log", b"no"),
    ]);
    let library = load(&[folder.path().to_owned()]);
    assert_eq!(ids(&library), ["a/deep/c.d", "b"]);
    assert!(library.warnings.is_empty());
    assert!(library.get("b").is_some() && library.get("c").is_none());
}

#[test]
fn a_broken_file_never_hides_another() {
    // The parser's time grows with the square of this: nobody would see the end of it.
    let nested = format!("---\ntitle: N\nalerts: {}\n---\n# N", "[".repeat(1 << 20));
    let folder = folder(&[
        ("bad.md", b"# One\n\nline \xff three"),
        ("good.md", b"# Good"),
        ("yaml.md", b"---\nalerts: [a\n---\n# Y"),
        ("nested.md", nested.as_bytes()),
    ]);
    let missing = folder.path().join("missing");
    let library = load(&[folder.path().to_owned(), missing]);
    assert_eq!(ids(&library), ["bad", "good", "nested", "yaml"]);
    let kinds = kinds(&library);
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert!(kinds[0].starts_with("3: is not UTF-8"));
    assert!(kinds[1].starts_with("1: cannot be read"));
    assert!(kinds[2].starts_with("3: front matter is not valid YAML"));
    assert!(kinds[2].ends_with("nested more than 100 deep"));
    assert!(kinds[3].contains("front matter is not valid YAML"));
}

#[test]
fn a_link_out_of_the_folder_is_refused_and_one_inside_is_followed() {
    let outside = folder(&[("secret.md", b"# Secret")]);
    let inside = folder(&[("real/page.md", b"# Page")]);
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, inside.path().join(name)).unwrap();
    };
    link(&outside.path().join("secret.md"), "out.md");
    link(outside.path(), "out");
    link(&inside.path().join("real/page.md"), "alias.md");
    link(inside.path(), "loop");
    let library = load(&[inside.path().to_owned()]);
    assert_eq!(ids(&library), ["alias", "real/page"]);
    let refused = |w: &&Warning| w.kind == WarningKind::LinkOutside;
    assert_eq!(library.warnings.iter().filter(refused).count(), 2);
}

#[test]
fn the_first_of_two_equal_ids_wins() {
    let one = folder(&[
        ("same.md", b"# One"),
        (
            "m.md",
            b"---\nfailure_modes: [{id: x, title: X}]\n---\n## H\n",
        ),
    ]);
    let two = folder(&[
        ("same.md", b"# Two"),
        (
            "n.md",
            b"---\nfailure_modes: [{id: x, title: X}]\n---\n## H\n",
        ),
    ]);
    let library = load(&[one.path().to_owned(), two.path().to_owned()]);
    assert_eq!(library.get("same").unwrap().title, "One");
    assert_eq!(library.get("m").unwrap().failure_modes.len(), 1);
    let without = library.get("n").unwrap();
    assert_eq!(without.failure_modes.len(), 0);
    // Alone it has the mode, and is another page to the index.
    let with = parse_as(without.format, "n", "n.md", without.source.clone()).0;
    assert_eq!(with.failure_modes.len(), 1);
    assert_ne!(with.digest, without.digest);
    assert_eq!(library.warnings.len(), 2);
}

#[test]
fn an_edit_changes_the_fingerprint() {
    let folder = folder(&[("a.md", b"# A")]);
    let folders = [folder.path().to_owned()];
    let before = fingerprint(&folders);
    assert_eq!(before, fingerprint(&folders));
    fs::write(folder.path().join("a.md"), "# AB").unwrap();
    assert_ne!(before, fingerprint(&folders));
}

#[test]
fn pages_of_every_format_have_ids_of_their_own() {
    let folder = folder(&[
        ("a.adoc", b"= From AsciiDoc"),
        ("b.html", b"<h1>From HTML"),
        ("b.md", b"# From Markdown"),
        ("b.rst", b"From rst\n========\n"),
        ("c.txt", b"From text\n\nWords."),
    ]);
    let library = load(&[folder.path().to_owned()]);
    assert_eq!(ids(&library), ["a", "b", "b.html", "b.rst", "c"]);
    for (id, title) in [
        ("a", "From AsciiDoc"),
        ("b", "From Markdown"),
        ("b.html", "From HTML"),
        ("b.rst", "From rst"),
        ("c", "From text"),
    ] {
        assert_eq!(library.get(id).unwrap().title, title);
    }
    assert!(library.warnings.is_empty());
}

#[test]
fn a_file_of_ten_mebibytes_is_read_whole_and_a_larger_one_left_out() {
    let largest = "words of a page\n".repeat((10 << 20) / 16);
    let too_large = format!("{largest}x");
    let folder = folder(&[
        ("largest.md", largest.as_bytes()),
        ("larger.md", too_large.as_bytes()),
    ]);
    let library = load(&[folder.path().to_owned()]);
    assert_eq!(ids(&library), ["largest"]);
    assert_eq!(library.runbooks[0].source.len(), 10 << 20);
    assert_eq!(
        kinds(&library),
        ["1: is larger than 10 MiB and was left out"]
    );
}

#[test]
fn a_loader_reads_again_what_changed_and_forgets_what_is_gone() {
    let folder = folder(&[("a.md", b"# A"), ("b.md", b"# B \xff")]);
    let folders = [folder.path().to_owned()];
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    for name in ["a.md", "b.md"] {
        let file = fs::File::open(folder.path().join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let mut loader = Loader::default();
    let first = loader.load(&folders);
    let again = loader.load(&folders);
    assert_eq!(again, first);
    assert!(Arc::ptr_eq(&again.runbooks[1], &first.runbooks[1]));
    fs::write(folder.path().join("a.md"), "# C").unwrap();
    fs::remove_file(folder.path().join("b.md")).unwrap();
    let changed = loader.load(&folders);
    assert_eq!(ids(&changed), ["a"]);
    assert_eq!(changed.runbooks[0].title, "C");
    assert!(changed.warnings.is_empty());
}
