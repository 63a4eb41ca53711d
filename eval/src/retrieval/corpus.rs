//! Reads questions and judgements.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The class of questions that nothing in the corpus answers.
pub(super) const NEGATIVE: &str = "negative";

#[derive(Debug)]
pub(super) struct Corpus {
    /// Of the documents.
    pub(super) folder: PathBuf,
    pub(super) queries: Vec<Query>,
    /// By the id of the query.
    pub(super) judgements: HashMap<String, Judgements>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    #[serde(rename = "qid")]
    pub(super) id: String,
    pub(super) class: String,
    pub(super) text: String,
}

/// How well documents and their sections answer one question: 3 the page for this, 2 would solve it, 1 helps.
#[derive(Debug, Default)]
pub(super) struct Judgements {
    pub(super) documents: HashMap<String, u32>,
    /// By document and plain heading.
    pub(super) sections: HashMap<(String, String), u32>,
}

impl Corpus {
    pub(super) fn read(data: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = data.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let folder = data.join("corpus");
        if !folder.is_dir() {
            bail!("there is no folder {}", folder.display());
        }
        let queries = read("queries.jsonl")?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .zip(1..)
            .map(|(line, number): (&str, usize)| {
                serde_json::from_str(line).with_context(|| format!("queries.jsonl:{number}"))
            })
            .collect::<Result<Vec<Query>>>()?;
        Ok(Self {
            folder,
            queries,
            judgements: judgements(&read("qrels.tsv")?)?,
        })
    }
}

fn judgements(text: &str) -> Result<HashMap<String, Judgements>> {
    let mut all: HashMap<String, Judgements> = HashMap::new();
    for (line, number) in text.lines().zip(1..) {
        let number: usize = number;
        if line.is_empty() || (number == 1 && line.starts_with("qid\t")) {
            continue;
        }
        let fields: Vec<&str> = line.split('\t').collect();
        let &[query, document, section, grade] = fields.as_slice() else {
            bail!("qrels.tsv:{number}: expected four fields: qid, docid, section, grade");
        };
        let grade: u32 = grade
            .parse()
            .with_context(|| format!("qrels.tsv:{number}: the grade is no number"))?;
        let of_query = all.entry(query.to_owned()).or_default();
        let best = of_query.documents.entry(document.to_owned()).or_default();
        *best = grade.max(*best);
        if !matches!(section, "*" | "") {
            let key = (document.to_owned(), plain(section));
            let best = of_query.sections.entry(key).or_default();
            *best = grade.max(*best);
        }
    }
    Ok(all)
}

/// A heading without marks, links and case.
pub(super) fn plain(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading;
    // `{#anchor}`, the address of `[text](address)` and tags say nothing.
    while let Some(at) = rest.find(['{', '(', '<']) {
        let close = match rest.as_bytes()[at] {
            b'{' if rest[at..].starts_with("{#") => '}',
            b'(' if rest[..at].ends_with(']') => ')',
            b'<' => '>',
            _ => {
                text.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
                continue;
            }
        };
        text.push_str(&rest[..at]);
        text.push(' ');
        rest = rest[at..]
            .find(close)
            .map_or("", |end| &rest[at + end + 1..]);
    }
    text.push_str(rest);
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join(" ")
}

#[test]
fn headings_are_compared_by_their_words() {
    for (heading, expected) in [
        (
            "Alert Name: \"KubeNodeNotReady\"",
            "alert name kubenodenotready",
        ),
        ("Fix it {#fix}", "fix it"),
        (
            "See [the docs](https://example.com/x) now",
            "see the docs now",
        ),
        ("Meaning (short)", "meaning short"),
    ] {
        assert_eq!(plain(heading), expected);
    }
}

#[test]
fn a_line_of_judgements_that_is_wrong_is_named() {
    let read =
        judgements("qid\tdocid\tsection\tgrade\nq1\ta.md\tFix\t2\nq1\ta.md\t*\t1\n").unwrap();
    assert_eq!(read["q1"].documents["a.md"], 2);
    assert_eq!(
        read["q1"].sections[&("a.md".to_owned(), "fix".to_owned())],
        2
    );
    let error = judgements("qid\tdocid\tsection\tgrade\nq1\ta.md\t2\n").unwrap_err();
    assert!(error.to_string().contains("qrels.tsv:2"), "{error}");
}
