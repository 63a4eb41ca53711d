//! The parsers of both programs, compiled from their own files, and around them as little as they need.

#[path = "../../assistant/src"]
mod assistant {
    pub mod config;
    pub mod hash;
    pub mod parallel;
    pub mod runbook;

    pub mod diagnosis {
        pub mod bound;
        pub mod comparison;
        pub mod cost;
        pub mod expression;
        pub mod lint;
        pub mod narrow;
        pub mod place;
        pub mod ranges;
        pub mod scope;
        pub mod spine;
        pub mod topology;
        pub mod tree;
        pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);
    }

    pub mod incidents {
        pub mod notification;
        pub use crate::stand_in::incidents::*;
    }

    pub mod prometheus {
        pub mod response;
        pub use crate::stand_in::QueryError;

        /// What an answer to an instant query and to one over a range says.
        pub fn read(body: &[u8]) {
            let _ = response::instant(body);
            let _ = response::range(body);
            let _ = response::refusal(body);
        }
    }

    pub mod retrieval {
        pub mod codec;
        pub mod dense;
        pub mod dot;
        pub mod graph;
        #[path = "../../../fuzz/src/postings.rs"]
        mod postings;
        pub mod segment;
        pub mod texts;
        pub mod top;
        pub mod words;
        pub use crate::stand_in::{GRAPH_FROM, embed, fuse};

        /// A segment as the store reads it, and everything that is asked of one.
        pub fn read_segment(bytes: &[u8]) {
            let mut reader = codec::Reader::new(bytes, bytes.len() as u64);
            let Some(segment) = segment::Segment::decode(&mut reader) else {
                return;
            };
            let mut known = segment::Known::new();
            for page in 0..segment.digests().len() {
                for row in segment.rows(page) {
                    let _ = segment.passage(row);
                }
                segment.add_known(page, &mut known);
            }
            let _ = reader.ends_well();
            let mut written = Vec::new();
            let mut writer = codec::Writer::new(&mut written);
            segment.encode(&mut writer).unwrap();
            let read = segment::Segment::decode(&mut codec::Reader::new(
                &written[..],
                written.len() as u64 + 8,
            ));
            assert!(read.is_some(), "what was written is read again");
        }
    }
}

#[path = "../../collector/src"]
mod collector {
    pub mod protocol;

    pub mod tls {
        pub mod certificate;
        pub mod handshake;
        pub mod hello;
        pub mod names;
        pub mod record;
    }

    pub mod signals {
        pub mod dns {
            pub mod domain;

            /// A name as the kernel hands it over.
            pub fn read(bytes: &[u8]) {
                let Some(name) = domain::from_wire(bytes) else {
                    return;
                };
                assert!(
                    name.len() <= 1024,
                    "a name is no longer than the DNS allows, escaped"
                );
                assert!(!name.chars().any(char::is_control), "{name:?}");
                let _ = (domain::parent(&name), domain::registered(&name));
            }
        }

        pub mod protocol {
            pub mod stream;

            /// Segments in any order: a length, a sequence number, bytes.
            pub fn read(bytes: &[u8]) {
                let Some((start, mut rest)) = bytes.split_first_chunk::<4>() else {
                    return;
                };
                let mut stream = stream::Stream::from(u32::from_be_bytes(*start));
                while let Some((head, after)) = rest.split_first_chunk::<3>() {
                    let length = usize::from(head[0]).min(after.len());
                    let offset = u32::from(u16::from_be_bytes([head[1], head[2]]));
                    let sequence = u32::from_be_bytes(*start).wrapping_add(offset);
                    let _ = stream.push(sequence, &after[..length]);
                    rest = &after[length..];
                }
            }
        }
    }
}

mod stand_in;

pub use assistant::{config, diagnosis, hash, incidents, parallel, prometheus, retrieval, runbook};
pub use stand_in::narrate;
pub use collector::{protocol, signals, tls};

/// Up to three parts of the input, so that one target can feed both sides of a connection.
pub fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.split_first() {
        Some((&cut, rest)) => rest.split_at(usize::from(cut).min(rest.len())),
        None => (&[], &[]),
    }
}
