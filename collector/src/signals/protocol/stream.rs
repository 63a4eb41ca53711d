//! One direction of a connection: pieces as they come → bytes in order.

use crate::protocol::PassingBytes;

/// Pieces that wait for those before them.
const MAX_WAITING: usize = 32 * 1024;

pub(super) struct Stream {
    next: u32,
    waiting: Vec<(u32, PassingBytes)>,
    has_dropped: bool,
}

impl Stream {
    pub(super) fn from(sequence: u32) -> Self {
        Self {
            next: sequence,
            waiting: Vec::new(),
            has_dropped: false,
        }
    }

    /// Bytes were thrown away that the stream may need.
    pub(super) fn has_gap(&self) -> bool {
        self.has_dropped
    }

    /// The bytes that are in order now.
    pub(super) fn push(&mut self, sequence: u32, bytes: &[u8]) -> PassingBytes {
        let mut ready = PassingBytes::default();
        if self.is_ahead(sequence) {
            let waiting: usize = self.waiting.iter().map(|(_, bytes)| bytes.len()).sum();
            if waiting + bytes.len() <= MAX_WAITING {
                self.waiting.push((sequence, bytes.into()));
            } else {
                self.has_dropped = true;
            }
            return ready;
        }
        self.append(sequence, bytes, &mut ready);
        while let Some(at) = (self.waiting.iter()).position(|&(at, _)| !self.is_ahead(at)) {
            let (sequence, bytes) = self.waiting.swap_remove(at);
            self.append(sequence, &bytes, &mut ready);
        }
        ready
    }

    /// Sequence numbers go round.
    fn is_ahead(&self, sequence: u32) -> bool {
        sequence.wrapping_sub(self.next).cast_signed() > 0
    }

    fn append(&mut self, sequence: u32, bytes: &[u8], ready: &mut PassingBytes) {
        let known = self.next.wrapping_sub(sequence) as usize;
        let new = bytes.get(known..).unwrap_or_default();
        ready.extend(new);
        #[expect(clippy::cast_possible_truncation, reason = "a piece of a segment")]
        let length = new.len() as u32;
        self.next = self.next.wrapping_add(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_in_any_order_and_repeated_give_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 1..300),
            start in any::<u32>(),
            mut cuts in proptest::collection::vec((0_usize..300, 1_usize..80), 1..60),
        ) {
            // The last pieces cover everything, whatever came before.
            cuts.extend((0..bytes.len()).step_by(40).rev().map(|at| (at, 40)));
            let mut stream = Stream::from(start);
            let mut read = Vec::new();
            for (at, length) in cuts {
                let at = at.min(bytes.len() - 1);
                let piece = &bytes[at..bytes.len().min(at + length)];
                read.extend_from_slice(&stream.push(start.wrapping_add(at as u32), piece));
            }
            prop_assert_eq!(read, bytes);
        }
    }
}
