//! The program killed at any moment while it indexes or saves: what is on disk is the old index or the new one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn search(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runwire-assistant"));
    command
        .args([
            "search",
            "listener queue 17 is full",
            "--json",
            "--log",
            "warn",
        ])
        .arg("--runbooks")
        .arg(place.join("runbooks"))
        .arg("--cache")
        .arg(place.join("cache"))
        // Without a model: no folder of one is here.
        .current_dir(place)
        .stdin(Stdio::null());
    command
}

fn answer(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("of no use"),
        "{output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_kill_in_the_middle_of_indexing_leaves_the_old_index_or_the_new_one() {
    let place = tempfile::tempdir().unwrap();
    let runbooks = place.path().join("runbooks");
    fs::create_dir(&runbooks).unwrap();
    let write = |page: usize, edit: usize| {
        let text = format!(
            "# Page {page}\n\nThe queue of listener {page} is full, edit {edit}.\n\n## Diagnosis\n\n{}\n",
            "Look at it with ss. ".repeat(50)
        );
        fs::write(runbooks.join(format!("page-{page}.md")), text).unwrap();
    };
    (0..300).for_each(|page| write(page, 0));
    for edit in 1..40 {
        // Half of the pages: a large part of the index is made and saved again.
        (0..150).for_each(|page| write(page, edit));
        let mut child = search(place.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(edit as u64 * 8));
        // It may have ended already.
        let _ = child.kill();
        child.wait().unwrap();
    }
    let after_kills = answer(search(place.path()).output().unwrap());
    fs::remove_dir_all(place.path().join("cache")).unwrap();
    let fresh = answer(search(place.path()).output().unwrap());
    assert_eq!(after_kills, fresh);
    assert!(
        fresh.contains("edit 39") || fresh.contains("edit 0"),
        "{fresh}"
    );
}
