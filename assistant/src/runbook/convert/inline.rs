//! Marks inside a line → those of Markdown. What is not understood stays as it is.

use super::references::References;

/// reStructuredText: ``` ``literal`` ```, `` :role:`text` ``, `` `text <address>`_ ``, `|substitution|`.
pub(super) fn of_rst(line: &str, references: &References) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        let (before, from) = rest.split_at(at);
        let (mark, is_literal) = match from.starts_with("``") {
            true => ("``", true),
            false => ("`", false),
        };
        let inner = &from[mark.len()..];
        let Some(end) = inner.find(mark) else {
            break;
        };
        let text = &inner[..end];
        rest = &inner[end + mark.len()..];
        if is_literal {
            references.put_into(before, &mut out);
            out.push_str(&format!("`{text}`"));
            continue;
        }
        let (before, role) = without_role(before);
        references.put_into(before, &mut out);
        rest = rest.trim_start_matches('_');
        let named = text
            .strip_suffix('>')
            .and_then(|text| text.rsplit_once('<'));
        let link = role.and_then(|role| match named {
            Some((text, target)) => references.link(role, Some(text), target),
            None => references.link(role, None, text),
        });
        if let Some(link) = link {
            out.push_str(&link);
            continue;
        }
        match named {
            Some((text, address)) if address.starts_with("http") => {
                out.push_str(&format!("[{}]({address})", text.trim()));
            }
            Some((text, address)) if text.trim().is_empty() => out.push_str(address),
            Some((text, _)) => out.push_str(text.trim()),
            None if role.is_some() => {
                out.push_str(&format!("`{}`", text.trim_start_matches('~')));
            }
            None => out.push_str(text),
        }
    }
    references.put_into(rest, &mut out);
    out
}

/// Cuts a `:role:` off the end, and gives its name.
fn without_role(text: &str) -> (&str, Option<&str>) {
    let role = text.strip_suffix(':').and_then(|text| {
        let start = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || "-+.:".contains(c)));
        let start = start.map_or(0, |at| {
            at + text[at..].chars().next().map_or(1, char::len_utf8)
        });
        let name = &text[start..];
        (name.starts_with(':') && name.len() > 1).then(|| (start, &name[1..]))
    });
    match role {
        Some((start, name)) => (
            &text[..start],
            Some(name.strip_prefix("std:").unwrap_or(name)),
        ),
        None => (text, None),
    }
}

/// AsciiDoc: `https://address[text]`, `link:address[text]`, `xref:page[text]`, `<<anchor,text>>`.
pub(super) fn of_asciidoc(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    // What is not closed once is not looked for again: a line may have a million open ones.
    let (mut last_angle, mut last_bracket) = (line.rfind(">>"), line.rfind(']'));
    while let Some(at) = rest.find(['<', '[']) {
        let offset = line.len() - rest.len() + at;
        last_angle = last_angle.filter(|last| *last > offset);
        last_bracket = last_bracket.filter(|last| *last > offset);
        if rest[at..].starts_with("<<")
            && last_angle.is_some()
            && let Some(end) = rest[at..].find(">>")
        {
            let target = &rest[at + 2..at + end];
            let text = target.split_once(',').map_or(target, |(_, text)| text);
            out.push_str(&rest[..at]);
            out.push_str(text.trim());
            rest = &rest[at + end + 2..];
            continue;
        }
        let (before, from) = rest.split_at(at);
        let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        // What white space ends may be of several bytes; then it is not the space before an address.
        let target = before.get(start..).unwrap_or_default();
        let address = ["link:", "xref:", "mailto:"]
            .iter()
            .find_map(|scheme| target.strip_prefix(scheme))
            .or_else(|| target.starts_with("http").then_some(target));
        let is_closed = address.is_some() && from.starts_with('[') && last_bracket.is_some();
        let end = is_closed.then(|| from.find(']')).flatten();
        match (address, end) {
            (Some(address), Some(end)) if !address.is_empty() => {
                let text = from[1..end].split(',').next().unwrap_or_default().trim();
                let text = if text.is_empty() { address } else { text };
                out.push_str(&before[..start]);
                out.push_str(&format!("[{}]({address})", text.trim_end_matches('^')));
                rest = &from[end + 1..];
            }
            _ => {
                out.push_str(before);
                out.push_str(&from[..1]);
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out
}
