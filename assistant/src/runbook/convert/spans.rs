//! Table cells that cover several columns or rows → one text for each place, as Markdown needs it. In a row further down the
//! text stands again, because each row is read alone; to the right of it nothing does.

use std::iter::Peekable;

/// Wider ones only lay out a page.
pub(super) const MAX_COLUMNS: usize = 32;
const MAX_ROWS: usize = 1000;

/// A page must not grow without end: bytes of repeated texts, and columns of a row that are covered and left empty for that.
const MAX_REPEATED: usize = 4096;
const MAX_EMPTY: usize = 16;

#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) line: usize,
    pub(super) text: String,
    /// 0 counts as 1 for both.
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The rows of one table, from the top.
pub(super) struct Grid {
    /// For each column the text that covers it from above, and for how many more rows.
    above: Vec<(usize, String)>,
    /// Bytes that may still be repeated.
    left: usize,
    /// Columns of this row that may still be left empty.
    empty: usize,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            above: Vec::new(),
            left: MAX_REPEATED,
            empty: 0,
        }
    }
}

impl Grid {
    /// Takes cells until the row is full, or where nobody knows how wide it is, until there are none.
    pub(super) fn row(
        &mut self,
        cells: &mut Peekable<impl Iterator<Item = Cell>>,
        width: Option<usize>,
    ) -> Vec<String> {
        let mut row = Vec::new();
        self.empty = MAX_EMPTY;
        while width.is_none_or(|width| row.len() < width) {
            if let Some(text) = self.take_above(row.len()) {
                row.push(text);
                continue;
            }
            let Some(cell) = cells.next() else {
                if !self.is_covered_from(row.len()) {
                    break;
                }
                row.push(String::new());
                continue;
            };
            let room = width.map_or(MAX_COLUMNS, |width| width - row.len());
            let columns = cell.columns.clamp(1, room.min(MAX_COLUMNS));
            let below = cell.rows.clamp(1, MAX_ROWS) - 1;
            self.left += 1 + cell.text.len();
            for column in row.len()..row.len() + columns {
                let text = match column == row.len() {
                    true => cell.text.clone(),
                    false => String::new(),
                };
                if below > 0 {
                    let place = (below, text);
                    self.above
                        .resize(self.above.len().max(column + 1), (0, String::new()));
                    self.above[column] = place;
                }
            }
            row.push(cell.text);
            row.resize(row.len() + columns - 1, String::new());
        }
        row
    }

    fn take_above(&mut self, column: usize) -> Option<String> {
        let (rows, text) = self.above.get_mut(column).filter(|(rows, _)| *rows > 0)?;
        *rows -= 1;
        let text = match (self.left.checked_sub(text.len() + 1), self.empty) {
            (Some(left), _) => {
                self.left = left;
                text.clone()
            }
            (None, 1..) => {
                self.empty -= 1;
                String::new()
            }
            (None, 0) => {
                self.above.clear();
                return None;
            }
        };
        Some(text)
    }

    fn is_covered_from(&self, column: usize) -> bool {
        self.above.iter().skip(column).any(|(rows, _)| *rows > 0)
    }
}
