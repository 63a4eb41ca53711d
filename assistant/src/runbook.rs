//! A runbook: a page whose front matter may name failure modes and the PromQL that shows them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;

use convert::Sheet;

pub mod anchor;
pub mod chunk;
pub mod convert;
pub mod format;
pub mod lint;
pub mod load;
pub mod parse;

pub use chunk::Passage;
pub use format::Format;
pub use load::{Library, load};
pub use parse::parse;

/// One file.
#[derive(Debug, Clone, PartialEq)]
pub struct Runbook {
    /// Path below the runbook folder, with `/` and without the extension: unique and stable.
    pub id: String,
    pub title: String,
    /// Where the file is, as a person would type it: for messages and citations.
    pub path: String,
    /// Names of the alerts this page is for.
    pub alerts: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// In the order of the file. A section ends where the next heading of any level begins.
    pub sections: Vec<Section>,
    pub failure_modes: Vec<FailureMode>,
    pub symptoms: Vec<Symptom>,
    pub forecasts: Vec<Forecast>,
    pub format: Format,
    /// The file as it was read, front matter included.
    pub source: String,
    /// Byte offset in `source` where what follows the front matter begins.
    pub body_start: usize,
    /// The same as Markdown, if it is something else.
    pub sheet: Option<Sheet>,
    /// Of the id, the format, the source and the modes that another page defines first: the same as long as none of them changes.
    pub digest: u128,
}

impl Runbook {
    pub fn section(&self, anchor: &str) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.anchor == anchor)
    }

    /// The section that a link to the page means, whichever way its anchor was made: GitHub drops signs, others write a hyphen.
    pub fn section_of_link(&self, anchor: &str) -> Option<&Section> {
        let wanted = anchor::compact(anchor);
        let is_same = |section: &&Section| anchor::compact(&section.anchor) == wanted;
        let spelt_alike = || self.sections.iter().find(is_same);
        self.section(anchor)
            .or_else(|| spelt_alike().filter(|_| !wanted.is_empty()))
    }

    /// The Markdown without its front matter.
    pub fn body(&self) -> &str {
        match &self.sheet {
            Some(sheet) => &sheet.text,
            None => &self.source[self.body_start..],
        }
    }

    /// The same without what no reader sees.
    pub fn visible(&self) -> Cow<'_, str> {
        parse::blanked(self.body())
    }

    /// Line of the file of a place in the body.
    pub fn line_at(&self, offset: usize) -> usize {
        let newlines = |text: &str| text.matches('\n').count();
        match &self.sheet {
            Some(sheet) => {
                let line = newlines(&sheet.text[..offset]);
                sheet.lines.get(line).map_or(1, |line| *line as usize)
            }
            None => 1 + newlines(&self.source[..self.body_start + offset]),
        }
    }

    /// The section that is about an alert of this page, and else the page's first words. A heading that is the name comes
    /// before one that holds it: «DiskFullSoon» is not about `DiskFull` where there is a section for each.
    pub fn section_for_alert(&self, alert: &str) -> Option<&Section> {
        let wanted = anchor::compact(alert);
        let heading = |section: &&Section| {
            let heading = section.heading_path.last();
            heading.map_or_else(String::new, |heading| anchor::compact(heading))
        };
        let below_title = || self.sections.iter().filter(|section| section.level > 1);
        below_title()
            .find(|section| heading(section) == wanted)
            .or_else(|| below_title().find(|section| heading(section).contains(&wanted)))
    }

    /// Numbers of a section and of those below its heading.
    pub fn sections_within(&self, section: usize) -> Range<usize> {
        let level = self.sections[section].level;
        let below = self.sections[section + 1..]
            .iter()
            .take_while(|section| section.level > level);
        section..section + 1 + below.count()
    }
}

/// A heading and the text up to the next heading.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The headings above this one and itself, outermost first. Text before the first heading has the page's title.
    pub heading_path: Vec<String>,
    /// 1 to 6; 0 for text before the first heading.
    pub level: u8,
    /// The heading's `id` on the served page, as GitHub would name it.
    pub anchor: String,
    /// Lines of the file, counted from 1, heading included.
    pub line_start: usize,
    pub line_end: usize,
    /// Line of the file on which `text` begins.
    pub text_line: usize,
    /// Lines of the file of the lines of `text`, where they do not follow each other.
    pub lines: Vec<u32>,
    /// Markdown below the heading, lines ended by `\n` alone.
    pub text: String,
}

impl Section {
    /// Line of the file of a line of `text`, which is counted from 0.
    pub fn line_of(&self, line: usize) -> usize {
        match self.lines.get(line) {
            Some(line) => *line as usize,
            None => self.text_line + line,
        }
    }
}

/// Something that can be wrong, and how one would see it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureMode {
    /// Kebab-case, unique over all runbooks.
    pub id: String,
    pub title: String,
    #[serde(default)]
    pub summary: String,
    /// The section that helps. After parsing it names a heading of the page, unless a warning says otherwise.
    #[serde(default)]
    pub anchor: String,
    #[serde(default)]
    pub verdict: Verdict,
    #[serde(default = "default_prior")]
    pub prior: f64,
    /// How much it hurts, where nothing else decides the order.
    #[serde(default)]
    pub severity: Severity,
    /// Modes whose symptoms this one produces, and with them all that those explain.
    #[serde(default)]
    pub explains: Vec<String>,
    /// Look-alikes, and the evidence that tells this mode from each.
    #[serde(default)]
    pub separates_from: Vec<Separation>,
    #[serde(default)]
    pub evidence: Vec<EvidenceQuery>,
}

fn default_prior() -> f64 {
    0.05
}

/// A tie-breaker: while both modes are possible at one place, evidence of this mode decides. What requires or supports speaks
/// for this mode where it is present and for the other where it is absent; what contradicts, the other way round. Evidence that
/// is unavailable decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Separation {
    /// The other mode.
    pub mode: String,
    /// The id of a piece of this mode's evidence.
    pub by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

/// What it means for the network when a failure mode is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    #[default]
    Fault,
    NoNetworkFault,
}

/// PromQL of the form `LEFT op NUMBER`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceQuery {
    /// Unique within the failure mode.
    pub id: String,
    pub role: Role,
    #[serde(default)]
    pub title: String,
    pub expr: String,
    #[serde(default)]
    pub unit: Option<String>,
    /// Log-odds; the engine has a default for each role.
    #[serde(default)]
    pub weight: Option<f64>,
    #[serde(default)]
    pub at: End,
    /// Requirements of one group are alternatives: one present is enough, and one that is measured speaks for those that are
    /// not.
    #[serde(default)]
    pub group: Option<String>,
    /// It asks for metrics that not every cluster has. Where they are missing it is unavailable, and nothing else follows.
    #[serde(default)]
    pub optional: bool,
    /// The number is compared with the change since earlier, not with the value itself.
    #[serde(default)]
    pub baseline: Option<Baseline>,
}

/// What a value is compared with: `ratio`, `delta`, or a mapping that says the times too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BaselineForm")]
pub struct Baseline {
    pub compare: Compare,
    /// How far back, the nearest first.
    pub offsets: Vec<Duration>,
}

/// How a value is compared with what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// Value divided by baseline.
    Ratio,
    /// Value less baseline.
    Delta,
}

/// An hour, a day and a week: the daily and the weekly rhythm, and what has changed since lunch.
pub const OFFSETS: [Duration; 3] = [
    Duration::from_secs(3600),
    Duration::from_secs(86_400),
    Duration::from_secs(7 * 86_400),
];

#[derive(Deserialize)]
#[serde(untagged)]
enum BaselineForm {
    Compare(Compare),
    Full(FullBaseline),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullBaseline {
    compare: Compare,
    offsets: Vec<String>,
}

impl TryFrom<BaselineForm> for Baseline {
    type Error = String;

    fn try_from(form: BaselineForm) -> Result<Self, String> {
        let (compare, offsets) = match form {
            BaselineForm::Compare(compare) => (compare, OFFSETS.to_vec()),
            BaselineForm::Full(full) => {
                let parse = |text: &String| {
                    promql_parser::util::parse_duration(text)
                        .ok()
                        .filter(|offset| !offset.is_zero())
                        .ok_or_else(|| {
                            format!("`offsets` has `{text}`: write durations such as 10m, 1h or 1d")
                        })
                };
                let offsets: Result<Vec<_>, _> = full.offsets.iter().map(parse).collect();
                (full.compare, offsets?)
            }
        };
        if offsets.is_empty() {
            return Err("`offsets` is empty: leave it out for 1h, 1d and 1w".into());
        }
        let mut offsets = offsets;
        offsets.sort_unstable();
        offsets.dedup();
        Ok(Self { compare, offsets })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Without it the mode cannot be.
    Requires,
    Supports,
    Contradicts,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Requires => "requires",
            Role::Supports => "supports",
            Role::Contradicts => "contradicts",
        })
    }
}

/// Where a series is about: which end one with only one workload's labels must be, or that it is about a machine or one of
/// its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    #[default]
    Pair,
    Src,
    Dst,
    /// By the label `node`, else `instance` without its port.
    Node,
    /// The same, and by the label `device`; with `namespace` and `workload` the link is theirs.
    #[serde(alias = "interface")]
    Link,
}

/// A sign that something is wrong, cause unknown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symptom {
    pub id: String,
    #[serde(default)]
    pub title: String,
    pub expr: String,
    #[serde(default)]
    pub unit: Option<String>,
    /// Which end is meant where a series names only one workload.
    #[serde(default)]
    pub at: End,
}

/// What will be wrong if nobody acts: an alert, and no part of a diagnosis, which is about now.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    pub id: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub summary: String,
    pub expr: String,
    /// Where the page says what to do.
    #[serde(default)]
    pub anchor: String,
}

/// What is wrong with a file. The rest of the file, and every other file, is used all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    pub kind: WarningKind,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.kind)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum WarningKind {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is larger than {} MiB and was left out", load::MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("is a symbolic link out of the runbook folder and was left out")]
    LinkOutside,
    #[error("is not UTF-8 here: the bad bytes were replaced")]
    NotUtf8,
    #[error("a runbook with the id `{id}` was already read from {first}: rename one of the two")]
    DuplicateId { id: String, first: String },
    #[error("front matter has no closing `{end}`: it was read as text")]
    FrontMatterOpen { end: &'static str },
    #[error("front matter is not valid {syntax} and was ignored: {reason}")]
    FrontMatterSyntax {
        syntax: &'static str,
        reason: String,
    },
    #[error("front matter: `{key}` must be {expected}; it was ignored")]
    FrontMatterType { key: String, expected: &'static str },
    #[error("front matter: `{key}[{index}]` was ignored: {reason}")]
    FrontMatterItem {
        key: &'static str,
        index: usize,
        reason: String,
    },
    #[error("failure mode `{mode}`: {reason}")]
    FailureMode { mode: String, reason: String },
    #[error("PromQL in the text: {0}")]
    Block(String),
    #[error(
        "failure mode `{mode}` is already defined in {first}: ids are unique over all runbooks"
    )]
    DuplicateMode { mode: String, first: String },
    #[error("alert `{alert}` already belongs to {first}")]
    DuplicateAlert { alert: String, first: String },
    #[error("link to `{target}` leads nowhere: {reason}")]
    DeadLink { target: String, reason: String },
}
