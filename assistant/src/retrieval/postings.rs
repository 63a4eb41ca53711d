//! Word → the texts that have it, and how often: one segment of tantivy in memory. Built once, never changed.
//!
//! tantivy gives the dictionary and the packed lists. The lengths are our own, because it keeps them to three significant
//! bits, and so are the statistics (`lexical`): they are of the texts that are not gone, over all segments.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tantivy::directory::{Directory, OwnedBytes, RamDirectory};
use tantivy::index::SegmentComponent;
use tantivy::postings::TermInfo;
use tantivy::schema::{IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::store::Compressor;
use tantivy::tokenizer::{TextAnalyzer, TokenizerManager, WhitespaceTokenizer};
use tantivy::{Index, IndexSettings, InvertedIndexReader, Segment, SegmentReader};

use super::codec::{Reader, Writer};
use super::words::words;
use crate::hash::checksum;

/// What tantivy sizes its tables by while it builds; it takes more where more is needed.
const BUILD_BYTES: usize = 4 << 20;

const FIELD: &str = "words";
const META: &str = "meta.json";
/// What every segment is called.
const SEGMENT: &str = "00000000000000000000000000000001";

#[derive(Default)]
pub(super) struct Postings {
    /// Words of each text.
    lengths: Vec<u32>,
    /// The segment's files. None, and no index, where there is no text.
    files: Vec<(String, OwnedBytes)>,
    index: Option<Arc<InvertedIndexReader>>,
}

/// Where the texts of a word are listed.
pub(super) struct List(TermInfo);

impl List {
    /// In how many texts the word is.
    pub(super) fn count(&self) -> usize {
        self.0.doc_freq as usize
    }
}

impl Postings {
    /// Texts are numbered in their order.
    pub(super) fn build<'a>(
        texts: impl Iterator<Item = impl AsRef<str> + 'a>,
    ) -> anyhow::Result<Self> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(FIELD)
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::WithFreqs);
        let options = TextOptions::default().set_indexing_options(indexing);
        let field = schema.add_text_field(FIELD, options);
        // Our words hold no spaces, and spaces are all that this takes apart by.
        let tokenizers = TokenizerManager::new();
        tokenizers.register(FIELD, TextAnalyzer::from(WhitespaceTokenizer::default()));
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let directory = RamDirectory::create();
        let mut writer = Index::builder()
            .schema(schema.build())
            .settings(settings)
            .tokenizers(tokenizers)
            .single_segment_index_writer(directory.clone(), BUILD_BYTES)?;
        let mut lengths = Vec::new();
        for text in texts {
            let words = words(text.as_ref());
            lengths.push(u32::try_from(words.len()).unwrap_or(u32::MAX));
            writer.add_document(tantivy::doc!(field => words.join(" ")))?;
        }
        if lengths.is_empty() {
            return Ok(Self::default());
        }
        let index = writer.finalize()?;
        let directory =
            renamed(&index, &directory).context("cannot read the words just indexed")?;
        Self::of(lengths, &directory)
    }

    fn of(lengths: Vec<u32>, directory: &RamDirectory) -> anyhow::Result<Self> {
        let index = Index::open(directory.clone())?;
        let field = index.schema().get_field(FIELD)?;
        let segments = index.searchable_segments()?;
        let segment = segments.first().context("an index without a segment")?;
        let words = SegmentReader::open(segment)?.inverted_index(field)?;
        let mut files = Vec::new();
        for path in paths(segment) {
            if directory.exists(&path)? {
                let bytes = directory.open_read(&path)?.read_bytes()?;
                files.push((path.to_string_lossy().into_owned(), bytes));
            }
        }
        Ok(Self {
            lengths,
            files,
            index: Some(words),
        })
    }

    pub(super) fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    pub(super) fn find(&self, word: &str) -> Option<List> {
        let found = self.index.as_ref()?.terms().get(word.as_bytes());
        found.ok().flatten().map(List)
    }

    /// Every word in alphabetical order.
    pub(super) fn each_word(&self, mut say: impl FnMut(&str, &List)) {
        let Some(index) = &self.index else { return };
        let Ok(mut words) = index.terms().stream() else {
            return;
        };
        while let Some((word, info)) = words.next() {
            if let Ok(word) = std::str::from_utf8(word) {
                say(word, &List(info.clone()));
            }
        }
    }

    /// Texts and their frequencies, in the order of the texts, some dozens at a time.
    pub(super) fn each_block(&self, list: &List, mut say: impl FnMut(&[u32], &[u32])) {
        let option = IndexRecordOption::WithFreqs;
        let read = |index: &Arc<InvertedIndexReader>| {
            index
                .read_block_postings_from_terminfo(&list.0, option)
                .ok()
        };
        let Some(mut block) = self.index.as_ref().and_then(read) else {
            return;
        };
        while block.block_len() > 0 {
            say(block.docs(), block.freqs());
            block.advance();
        }
    }

    pub(super) fn encode<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        writer.u32s(&self.lengths)?;
        writer.u64(self.files.len() as u64)?;
        for (name, bytes) in &self.files {
            writer.bytes(name.as_bytes())?;
            writer.u64(checksum(bytes))?;
            writer.bytes(bytes)?;
        }
        Ok(())
    }

    pub(super) fn decode<R: Read>(reader: &mut Reader<R>) -> Option<Self> {
        let lengths = reader.u32s()?;
        let directory = RamDirectory::create();
        let files = reader.u64()?;
        for _ in 0..files {
            let name = String::from_utf8(reader.bytes()?).ok()?;
            let sum = reader.u64()?;
            let bytes = reader.bytes()?;
            // tantivy trusts its files: damage must not get as far as that.
            if checksum(&bytes) != sum {
                return None;
            }
            directory.atomic_write(Path::new(&name), &bytes).ok()?;
        }
        match files {
            0 => lengths.is_empty().then(Self::default),
            _ => Self::of(lengths, &directory).ok(),
        }
    }
}

/// The files of an index with one segment.
fn paths(segment: &Segment) -> Vec<PathBuf> {
    use SegmentComponent::{FastFields, FieldNorms, Positions, Postings, Store, Terms};
    let parts = [Terms, Postings, Positions, FieldNorms, FastFields, Store];
    let mut paths: Vec<PathBuf> = parts.map(|part| segment.relative_path(part)).into();
    paths.push(META.into());
    paths.sort();
    paths
}

/// The same index with its segment under the same name always: tantivy draws one, and the same texts must give the same bytes.
fn renamed(index: &Index, directory: &RamDirectory) -> anyhow::Result<RamDirectory> {
    let segments = index.searchable_segments()?;
    let segment = segments.first().context("an index without a segment")?;
    let drawn = segment.id().uuid_string();
    let renamed = RamDirectory::create();
    for path in paths(segment) {
        if !directory.exists(&path)? {
            continue;
        }
        let bytes = directory.open_read(&path)?.read_bytes()?;
        if path == Path::new(META) {
            let meta = String::from_utf8(bytes.to_vec())?;
            let meta = meta.replace(&hyphened(&drawn), &hyphened(SEGMENT));
            renamed.atomic_write(&path, meta.as_bytes())?;
        } else {
            let name = path.to_string_lossy().replace(&drawn, SEGMENT);
            renamed.atomic_write(Path::new(&name), &bytes)?;
        }
    }
    Ok(renamed)
}

/// As identifiers stand in the metadata.
fn hyphened(id: &str) -> String {
    let ends = [8, 12, 16, 20, 32];
    let starts = [0, 8, 12, 16, 20];
    let parts = starts.iter().zip(ends).map(|(&start, end)| &id[start..end]);
    parts.collect::<Vec<_>>().join("-")
}

impl std::fmt::Debug for Postings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Postings of {} texts", self.lengths.len())
    }
}

impl PartialEq for Postings {
    fn eq(&self, other: &Self) -> bool {
        let files = |postings: &Self| -> Vec<(String, Vec<u8>)> {
            let owned = |(name, bytes): &(String, OwnedBytes)| (name.clone(), bytes.to_vec());
            postings.files.iter().map(owned).collect()
        };
        self.lengths == other.lengths && files(self) == files(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read_again(texts in prop::collection::vec("[a-d]{1,2}( [a-d]{1,2}){0,9}", 0..300)) {
            let postings = Postings::build(texts.iter()).unwrap();
            let mut writer = Writer::new(Vec::new());
            postings.encode(&mut writer).unwrap();
            let bytes = writer.finish().unwrap();
            let mut reader = Reader::new(bytes.as_slice(), bytes.len() as u64);
            let read = Postings::decode(&mut reader);
            prop_assert_eq!(read.as_ref(), Some(&postings));
            prop_assert!(reader.ends_well());
            let mut reader = Reader::new(bytes.as_slice(), bytes.len() as u64 - 1);
            prop_assert_eq!(Postings::decode(&mut reader), None);
            let mut seen = Vec::new();
            postings.each_word(|word, list| {
                let expected: Vec<(u32, u32)> = (0..)
                    .zip(&texts)
                    .map(|(at, text)| (at, words(text).iter().filter(|known| *known == word).count() as u32))
                    .filter(|(_, frequency)| *frequency > 0)
                    .collect();
                assert_eq!(list.count(), expected.len());
                let mut listed = Vec::new();
                postings.each_block(list, |texts, frequencies| {
                    assert_eq!(texts.len(), frequencies.len());
                    listed.extend(texts.iter().copied().zip(frequencies.iter().copied()));
                });
                assert_eq!(listed, expected);
                assert_eq!(postings.find(word).map(|list| list.count()), Some(list.count()));
                seen.push(word.to_owned());
            });
            let mut expected: Vec<String> = texts.iter().flat_map(|text| words(text)).collect();
            expected.sort();
            expected.dedup();
            prop_assert_eq!(seen, expected);
            prop_assert!(postings.find("zebra").is_none());
        }
    }
}
