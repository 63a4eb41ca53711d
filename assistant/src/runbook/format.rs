//! How a page is written, by the end of its file's name.

use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    Markdown,
    ReStructuredText,
    AsciiDoc,
    Html,
    Text,
    Mdx,
}

impl Format {
    /// `None`: not a page.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "md" | "markdown" => Self::Markdown,
            "rst" | "rest" => Self::ReStructuredText,
            "adoc" | "asciidoc" | "asc" => Self::AsciiDoc,
            "html" | "htm" | "xhtml" => Self::Html,
            "txt" | "text" => Self::Text,
            "mdx" => Self::Mdx,
            _ => return None,
        })
    }
}
