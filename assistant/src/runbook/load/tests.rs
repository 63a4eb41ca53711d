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
        ("notes.txt", b"no"),
    ]);
    let library = load(&[folder.path().to_owned()]);
    assert_eq!(ids(&library), ["a/deep/c.d", "b"]);
    assert!(library.warnings.is_empty());
    assert!(library.get("b").is_some() && library.get("c").is_none());
}

#[test]
fn a_broken_file_never_hides_another() {
    let folder = folder(&[
        ("bad.md", b"# One\n\nline \xff three"),
        ("good.md", b"# Good"),
        ("yaml.md", b"---\nalerts: [a\n---\n# Y"),
    ]);
    let missing = folder.path().join("missing");
    let library = load(&[folder.path().to_owned(), missing]);
    assert_eq!(ids(&library), ["bad", "good", "yaml"]);
    let kinds = kinds(&library);
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(kinds[0].starts_with("3: is not UTF-8"));
    assert!(kinds[1].starts_with("1: cannot be read"));
    assert!(kinds[2].contains("front matter is not valid YAML"));
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
    assert_eq!(library.get("n").unwrap().failure_modes.len(), 0);
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
