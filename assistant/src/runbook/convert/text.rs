//! Plain text. A line that is underlined is a heading; what is indented behind a blank line is code.

use super::{Line, Sheet};

const MAX_TITLE_BYTES: usize = 120;

pub(super) fn read(lines: &[Line], sheet: &mut Sheet) {
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if line.is_blank() {
            sheet.blank(line.number);
            at += 1;
            continue;
        }
        let after_blank = at == 0 || lines[at - 1].is_blank();
        if let Some(level) = lines.get(at + 1).and_then(|next| underline(line, next))
            && after_blank
        {
            sheet.heading(line.number, level, line.text, None);
            at += 2;
            continue;
        }
        if line.indent() >= 4 && after_blank {
            let rest = &lines[at..];
            let is_code = |line: &&Line| line.is_blank() || line.indent() >= 4;
            let count = rest.iter().take_while(is_code).count();
            sheet.code("", &rest[..count]);
            at += count;
            continue;
        }
        sheet.prose(line.number, line.text);
        at += 1;
    }
    let is_text = |line: &&Line| !line.is_blank();
    let first = lines.iter().position(|line| is_text(&line));
    if let Some(first) = first
        && lines.get(first + 1).is_none_or(Line::is_blank)
        && lines[first].text.len() <= MAX_TITLE_BYTES
    {
        sheet.title = Some(lines[first].text.trim().to_owned());
    }
}

fn underline(title: &Line, line: &Line) -> Option<usize> {
    let marks = line.text.trim_end();
    let level = match marks.chars().next()? {
        '=' => 1,
        '-' => 2,
        '~' => 3,
        _ => return None,
    };
    let same = marks.bytes().all(|byte| byte == marks.as_bytes()[0]);
    let long_enough = marks.len() >= 3 && marks.len() + 3 >= title.text.trim().chars().count();
    (same && long_enough && title.text.len() <= MAX_TITLE_BYTES).then_some(level)
}
