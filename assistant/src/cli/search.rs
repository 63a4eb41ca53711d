//! `search TEXT`: the passages that answer, for a person in a terminal or as JSON.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use crate::config::{Config, ConfigError, Settings};
use crate::retrieval::{Filters, Retriever, SearchResponse};

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// A sentence, an alert's name, or a line from a log
    text: String,

    /// Print the answer as `POST /search` gives it
    #[arg(long)]
    json: bool,

    /// How many passages
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,

    #[command(flatten)]
    pub(super) settings: Settings,
}

/// Lines shown of one passage; the reference says where the rest is.
const LINES_SHOWN: usize = 12;

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(args: &SearchArgs, config: &Config) -> anyhow::Result<ExitCode> {
    if args.text.trim().is_empty() {
        return Err(ConfigError::value(
            "TEXT",
            "is empty; give a sentence, an alert's name or an error line",
        )
        .into());
    }
    let retriever = Retriever::open(config)?;
    retriever.refresh()?;
    let response = retriever.search(&args.text, usize::from(args.limit), &Filters::default())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&response)?);
    } else {
        print!("{}", readable(&response, Style::of_stdout()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Escape codes, or nothing where they would end up in a file.
pub(super) struct Style {
    bold: &'static str,
    faint: &'static str,
    plain: &'static str,
}

impl Style {
    pub(super) fn of_stdout() -> Self {
        let wanted = std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted { Self::COLOURED } else { Self::PLAIN }
    }

    const COLOURED: Self = Self {
        bold: "\x1b[1m",
        faint: "\x1b[2m",
        plain: "\x1b[0m",
    };
    const PLAIN: Self = Self {
        bold: "",
        faint: "",
        plain: "",
    };
}

fn readable(response: &SearchResponse, style: Style) -> String {
    let Style { bold, faint, plain } = style;
    let mut text = String::new();
    if !response.answerable {
        text.push_str("Nothing in the runbooks is about that. The nearest passages:\n\n");
    }
    for result in &response.results {
        let section = &result.section;
        let headings = section.heading_path.join(" > ");
        let reference = format!("{}:{}", result.runbook.path, section.line_start);
        text.push_str(&format!(
            "{bold}{}. {headings}{plain}\n   {faint}{reference}  score {:.2}{plain}\n",
            result.rank, result.score
        ));
        let lines: Vec<&str> = result.text.lines().collect();
        for line in lines.iter().take(LINES_SHOWN) {
            // A page must not be able to drive the terminal.
            let line: String = line
                .chars()
                .filter(|c| !c.is_control() || *c == '\t')
                .collect();
            text.push_str(&format!("   {line}\n"));
        }
        if lines.len() > LINES_SHOWN {
            text.push_str(&format!(
                "   {faint}… {} more lines{plain}\n",
                lines.len() - LINES_SHOWN
            ));
        }
        text.push('\n');
    }
    text
}
