//! Word → the texts that have it, and how often. Built once, never changed.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use super::codec::{Reader, Writer};
use super::words::words;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Postings {
    /// Words of each text.
    lengths: Vec<u32>,
    /// All words in alphabetical order, one after the other, and where each ends.
    words: Vec<u8>,
    word_ends: Vec<u32>,
    /// Texts that have each word.
    counts: Vec<u32>,
    /// For each word its texts in order: the distance to the one before and the frequency, in as few bytes as they need.
    /// And where each list ends: four gigabytes are more than a segment ever has.
    lists: Vec<u8>,
    list_ends: Vec<u32>,
}

impl Postings {
    /// Texts are numbered in their order.
    pub(super) fn build<'a>(texts: impl Iterator<Item = impl AsRef<str> + 'a>) -> Self {
        let mut lengths = Vec::new();
        let mut lists: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
        for (text, number) in texts.zip(0_u32..) {
            let words = words(text.as_ref());
            lengths.push(to_u32(words.len()));
            for word in words {
                let list = match lists.get_mut(&word) {
                    Some(list) => list,
                    None => lists.entry(word).or_default(),
                };
                match list.last_mut() {
                    Some((last, frequency)) if *last == number => *frequency += 1,
                    _ => list.push((number, 1)),
                }
            }
        }
        let mut lists: Vec<_> = lists.into_iter().collect();
        lists.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut postings = Self {
            lengths,
            ..Self::default()
        };
        for (word, list) in lists {
            postings.words.extend(word.as_bytes());
            postings.word_ends.push(to_u32(postings.words.len()));
            postings.counts.push(to_u32(list.len()));
            let mut before = 0;
            for (text, frequency) in list {
                write_number(&mut postings.lists, text - before);
                write_number(&mut postings.lists, frequency);
                before = text;
            }
            postings.list_ends.push(to_u32(postings.lists.len()));
        }
        postings
    }

    pub(super) fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// The word's number.
    pub(super) fn find(&self, word: &str) -> Option<usize> {
        let mut from = 0;
        let mut to = self.counts.len();
        while from < to {
            let middle = from.midpoint(to);
            match self.word(middle).cmp(word.as_bytes()) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    pub(super) fn word_count(&self) -> usize {
        self.counts.len()
    }

    pub(super) fn word(&self, number: usize) -> &[u8] {
        let start = match number {
            0 => 0,
            _ => self.word_ends[number - 1] as usize,
        };
        &self.words[start..self.word_ends[number] as usize]
    }

    /// In how many texts.
    pub(super) fn count(&self, number: usize) -> u32 {
        self.counts[number]
    }

    /// Texts and frequencies.
    pub(super) fn list(&self, number: usize) -> impl Iterator<Item = (usize, u32)> {
        let start = match number {
            0 => 0,
            _ => self.list_ends[number - 1] as usize,
        };
        let mut bytes = self.lists[start..self.list_ends[number] as usize].iter();
        let mut text = 0_u32;
        std::iter::from_fn(move || {
            text = text.wrapping_add(read_number(&mut bytes)?);
            Some((text as usize, read_number(&mut bytes)?))
        })
    }

    pub(super) fn encode<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        writer.u32s(&self.lengths)?;
        writer.bytes(&self.words)?;
        writer.u32s(&self.word_ends)?;
        writer.u32s(&self.counts)?;
        writer.bytes(&self.lists)?;
        writer.u32s(&self.list_ends)
    }

    pub(super) fn decode<R: Read>(reader: &mut Reader<R>) -> Option<Self> {
        let postings = Self {
            lengths: reader.u32s()?,
            words: reader.bytes()?,
            word_ends: reader.u32s()?,
            counts: reader.u32s()?,
            lists: reader.bytes()?,
            list_ends: reader.u32s()?,
        };
        let ends_fit = |ends: &[u32], whole: usize| {
            ends.len() == postings.counts.len()
                && ends.is_sorted()
                && ends.last().map_or(0, |&end| end as usize) == whole
        };
        let fits = ends_fit(&postings.word_ends, postings.words.len())
            && ends_fit(&postings.list_ends, postings.lists.len());
        fits.then_some(postings)
    }
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Seven bits a byte, the highest says that more follow.
fn write_number(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[inline]
fn read_number(bytes: &mut std::slice::Iter<u8>) -> Option<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.next()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(texts in prop::collection::vec("[a-d]{1,2}( [a-d]{1,2}){0,9}", 0..300)) {
            let postings = Postings::build(texts.iter());
            let mut writer = Writer::new(Vec::new());
            postings.encode(&mut writer).unwrap();
            let bytes = writer.finish().unwrap();
            let mut reader = Reader::new(bytes.as_slice(), bytes.len() as u64);
            let read = Postings::decode(&mut reader);
            prop_assert_eq!(read.as_ref(), Some(&postings));
            prop_assert!(reader.ends_well());
            let mut reader = Reader::new(bytes.as_slice(), bytes.len() as u64 - 1);
            prop_assert_eq!(Postings::decode(&mut reader), None);
            for at in 0..postings.word_count() {
                let word = std::str::from_utf8(postings.word(at)).unwrap();
                prop_assert_eq!(postings.find(word), Some(at));
                let expected: Vec<(usize, u32)> = texts
                    .iter()
                    .map(|text| words(text).iter().filter(|known| *known == word).count() as u32)
                    .enumerate()
                    .filter(|(_, frequency)| *frequency > 0)
                    .collect();
                prop_assert_eq!(postings.count(at) as usize, expected.len());
                prop_assert_eq!(postings.list(at).collect::<Vec<_>>(), expected);
            }
            prop_assert_eq!(postings.find("zebra"), None);
        }
    }

    #[test]
    fn numbers_of_any_size_are_kept() {
        for value in [0, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, value);
            assert_eq!(read_number(&mut bytes.iter()), Some(value));
        }
    }
}
