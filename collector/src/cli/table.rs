//! Text in columns, with colour where a person looks at it.

use std::fmt::Write;
use std::io::IsTerminal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Good,
    Warn,
    Bad,
}

pub(super) struct Cell {
    text: String,
    colour: Colour,
}

pub(super) fn cell(text: impl Into<String>) -> Cell {
    coloured(text, Colour::Plain)
}

pub(super) fn coloured(text: impl Into<String>, colour: Colour) -> Cell {
    Cell {
        text: text.into(),
        colour,
    }
}

/// Whether standard output shows colours to someone who wants them.
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Columns two spaces apart, each as wide as its widest cell.
pub(super) fn render(rows: &[Vec<Cell>], colours: bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        (rows.iter().filter_map(|row| row.get(column)))
            .map(|cell| cell.text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let code = match cell.colour {
                Colour::Good => "32",
                Colour::Warn => "33",
                Colour::Bad => "31",
                Colour::Plain => "",
            };
            let paint = colours && !code.is_empty();
            let text = &cell.text;
            _ = match paint {
                true => write!(out, "\x1b[{code}m{text}\x1b[0m"),
                false => write!(out, "{text}"),
            };
            if column != last {
                let pad = widths[column] - text.chars().count() + 2;
                _ = write!(out, "{:pad$}", "");
            }
        }
        out.push('\n');
    }
    out
}

#[test]
fn columns_line_up_and_colour_takes_no_room() {
    let rows = [
        vec![coloured("on", Colour::Good), cell("dns")],
        vec![cell("failed"), cell("tcp")],
    ];
    assert_eq!(render(&rows, false), "on      dns\nfailed  tcp\n");
    assert_eq!(
        render(&rows, true),
        "\x1b[32mon\x1b[0m      dns\nfailed  tcp\n"
    );
}
