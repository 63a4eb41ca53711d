//! In the place of the postings, without tantivy.

use std::io::{self, Read, Write};

use super::codec::{Reader, Writer};

/// Lengths and files as `assistant/src/retrieval/postings.rs` has them. There a checksum guards the files before tantivy sees them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Postings {
    lengths: Vec<u32>,
    files: Vec<u8>,
}

impl Postings {
    pub(super) fn build(texts: impl Iterator<Item = impl AsRef<str>>) -> anyhow::Result<Self> {
        let lengths = texts.map(|text| u32::try_from(text.as_ref().len()).unwrap_or(u32::MAX));
        Ok(Self {
            lengths: lengths.collect(),
            files: Vec::new(),
        })
    }

    pub(super) fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    pub(super) fn encode<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        writer.u32s(&self.lengths)?;
        writer.bytes(&self.files)
    }

    pub(super) fn decode<R: Read>(reader: &mut Reader<R>) -> Option<Self> {
        Some(Self {
            lengths: reader.u32s()?,
            files: reader.bytes()?,
        })
    }
}
