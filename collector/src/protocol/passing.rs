//! Bytes of others that are looked at and let go: where they were, nothing of them is left.

use std::hint::black_box;
use std::mem;
use std::ops::Deref;

/// Bytes whose memory is overwritten before it is given back, also where it grows or shrinks.
#[derive(Default)]
pub struct PassingBytes(Vec<u8>);

impl PassingBytes {
    pub fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // A vector that grows by itself leaves what it held where it was.
            let mut larger = Vec::with_capacity(needed.max(2 * self.0.capacity()));
            larger.extend_from_slice(&self.0);
            drop(Self(mem::replace(&mut self.0, larger)));
        }
        self.0.extend_from_slice(bytes);
    }

    /// Takes the first `length` bytes away.
    pub fn forget_first(&mut self, length: usize) {
        self.0.copy_within(length.., 0);
        let rest = self.0.len() - length;
        overwrite(&mut self.0[rest..]);
        self.0.truncate(rest);
    }

    pub fn clear(&mut self) {
        drop(mem::take(self));
    }
}

impl From<&[u8]> for PassingBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Deref for PassingBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for PassingBytes {
    fn drop(&mut self) {
        overwrite(&mut self.0);
    }
}

/// Not left out by the compiler, although nobody reads the zeros.
fn overwrite(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[test]
fn what_is_extended_and_forgotten_in_pieces_is_what_a_vector_would_hold() {
    let (mut passing, mut plain) = (PassingBytes::from(&b"abc"[..]), b"abc".to_vec());
    for length in [0, 1, 5, 300, 7] {
        let piece = vec![length as u8; length];
        passing.extend(&piece);
        plain.extend(&piece);
        passing.forget_first(length / 2);
        plain.drain(..length / 2);
        assert_eq!(passing[..], plain);
    }
    passing.clear();
    assert!(passing.is_empty());
}
