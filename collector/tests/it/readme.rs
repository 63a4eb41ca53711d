//! What the README promises is what the program has.

use runwire_collector::config::KEYS;
use runwire_collector::k8s::{RIGHTS, VERBS};

const README: &str = include_str!("../../../README.md");
const CATALOGUE: &str = include_str!("../../metrics.prom");

#[test]
fn every_key_of_the_configuration_is_in_the_readme() {
    for key in KEYS {
        let start = format!(
            "| `{}` | `--{}` | `{}` |",
            key.name,
            key.flag,
            key.variable()
        );
        let row = README.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("the README lacks the row {start}"));
        let applies = format!("| {} |", key.applies.as_str());
        assert!(row.contains(&applies), "{row} lacks {applies}");
    }
}

#[test]
fn every_metric_is_in_the_readme_and_no_other() {
    let exported: Vec<String> = CATALOGUE
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| format!("| `{name}` | {kind} |"))
        .collect();
    for row in &exported {
        assert!(README.contains(row), "the README lacks the row {row}");
    }
    let rows = README
        .lines()
        .filter(|line| line.starts_with("| `runwire_"));
    assert_eq!(rows.count(), exported.len());
}

#[test]
fn every_right_in_kubernetes_is_in_the_readme() {
    let verbs: Vec<String> = VERBS.iter().map(|verb| format!("`{verb}`")).collect();
    assert!(README.contains(&format!("Its rights are {}", verbs.join(" and "))));
    for (group, resource) in RIGHTS {
        let group = match *group {
            "" => "core".to_owned(),
            group => format!("`{group}`"),
        };
        let row = README
            .lines()
            .find(|line| line.starts_with(&format!("| {group} | ")));
        let row = row.unwrap_or_else(|| panic!("the README lacks rights in {group}"));
        assert!(row.contains(&format!("`{resource}`")), "{row}");
    }
}
