//! A table with a title, as plain text and as Markdown; pure.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// What a reader must know to read it rightly; may be empty.
    pub(crate) note: String,
}

impl Sheet {
    pub(crate) fn new(title: &str, header: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            header: header.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn text(&self) -> String {
        let mut widths = vec![0; self.header.len()];
        for row in self.all_rows() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = format!("{}\n", self.title);
        for row in self.all_rows() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "  {cell:width$}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "  {}", self.note);
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        text.push_str(&line(&self.header));
        let _ = writeln!(text, "|{}", "---|".repeat(self.header.len()));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "\n{}", self.note);
        }
        text
    }

    fn all_rows(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.header).chain(&self.rows)
    }
}

#[test]
fn both_forms_hold_every_cell() {
    let mut sheet = Sheet::new("Right", &["family", "first"]);
    sheet.row(["dns".to_owned(), "1|2".to_owned()]);
    sheet.note = "Few.".to_owned();
    assert_eq!(
        sheet.text(),
        "Right\n  family  first\n  dns     1|2\n  Few.\n"
    );
    assert_eq!(
        sheet.markdown(),
        "## Right\n\n| family | first |\n|---|---|\n| dns | 1\\|2 |\n\nFew.\n"
    );
}
