//! What was measured, as JSON and as Markdown. A piece that is measured again takes its own place among the others.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::Machine;

/// Where the section in the Markdown file begins; it ends where the next one does.
const HEADING: &str = "## Collector";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) title: String,
    /// What was done, and what the columns mean.
    pub(super) method: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// What is to be kept in mind of these figures.
    pub(super) notes: Vec<String>,
    /// The figures as numbers.
    pub(super) figures: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    command: String,
    machine: Machine,
    #[serde(flatten)]
    piece: Piece,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    pieces: Vec<Measured>,
}

impl Results {
    /// What the file has; none if there is no such file yet.
    pub(super) fn read(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} holds no results: remove it, or name another file",
                file.display()
            )
        })
    }

    /// `order` is that of all pieces there are.
    pub(super) fn put(&mut self, piece: Piece, machine: Machine, command: String, order: &[&str]) {
        self.pieces
            .retain(|measured| measured.piece.name != piece.name);
        self.pieces.push(Measured {
            command,
            machine,
            piece,
        });
        self.pieces
            .sort_by_key(|measured| order.iter().position(|name| *name == measured.piece.name));
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Puts the section into the file, in the place of an older one.
    pub(super) fn write_section(&self, file: &Path) -> Result<()> {
        let before = fs::read_to_string(file).unwrap_or_else(|_| "# Measured\n".to_owned());
        let text = replace_section(&before, &self.markdown());
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "{HEADING}\n\nMade by `make bench`. Figures are medians of repeats, with the least and the most in brackets.\n"
        );
        for Measured {
            command,
            machine,
            piece,
        } in &self.pieces
        {
            let _ = write!(text, "\n### {}\n\n{}\n\n", piece.title, piece.method);
            text += &table(&piece.columns, &piece.rows);
            for note in &piece.notes {
                let _ = write!(text, "\n{note}\n");
            }
            let _ = write!(text, "\n`{command}` on {machine}\n");
        }
        text
    }
}

pub(super) fn table(columns: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = columns.iter().map(|_| "---".to_owned()).collect();
    let rows = rows.iter().map(|row| line(row));
    line(columns) + &line(&rule).replace(' ', "") + &rows.collect::<String>()
}

fn replace_section(text: &str, section: &str) -> String {
    let Some(start) = find_heading(text, 0, HEADING) else {
        return format!("{}\n\n{section}", text.trim_end());
    };
    let end = find_heading(text, start + HEADING.len(), "## ").unwrap_or(text.len());
    let (before, after) = (&text[..start], &text[end..]);
    let gap = if after.is_empty() { "" } else { "\n" };
    format!("{before}{section}{gap}{after}")
}

/// Where a line begins with `heading`, and is no longer than it if it is a whole one.
fn find_heading(text: &str, from: usize, heading: &str) -> Option<usize> {
    let mut at = from;
    for line in text[from..].split_inclusive('\n') {
        let is_heading = if heading.ends_with(' ') {
            line.starts_with(heading)
        } else {
            line.trim_end() == heading
        };
        if is_heading {
            return Some(at);
        }
        at += line.len();
    }
    None
}

#[test]
fn a_section_takes_the_place_of_the_older_one() {
    let section = "## Collector\n\nnew\n";
    for (before, after) in [
        ("# Measured\n", "# Measured\n\n## Collector\n\nnew\n"),
        (
            "# M\n\n## Collector\n\nold\n",
            "# M\n\n## Collector\n\nnew\n",
        ),
        (
            "# M\n\n## Collector\n\nold\n\n### Part\n\n## Search\n\nkept\n",
            "# M\n\n## Collector\n\nnew\n\n## Search\n\nkept\n",
        ),
        (
            "## Collector: what was tried\n\nkept\n",
            "## Collector: what was tried\n\nkept\n\n## Collector\n\nnew\n",
        ),
    ] {
        assert_eq!(replace_section(before, section), after);
    }
}
