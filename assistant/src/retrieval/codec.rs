//! Numbers ↔ bytes of the saved index, little-endian, in blocks, so that an index of gigabytes needs no second copy in
//! memory. Both ends sum up what passes. Reading is total: what does not fit gives nothing.

use std::io::{self, Read, Write};

use crate::hash::checksum;

/// Bytes that are summed up at once.
const BLOCK: usize = 1 << 16;

pub(super) struct Writer<W> {
    out: W,
    sum: u64,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            sum: 0,
            block: Vec::with_capacity(BLOCK),
        }
    }

    pub(super) fn u64(&mut self, value: u64) -> io::Result<()> {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn u128(&mut self, value: u128) -> io::Result<()> {
        self.put(&value.to_le_bytes())
    }

    /// With their number in front, as all that follow.
    pub(super) fn bytes(&mut self, values: &[u8]) -> io::Result<()> {
        self.values(values, |value| [value])
    }

    pub(super) fn i8s(&mut self, values: &[i8]) -> io::Result<()> {
        self.values(values, i8::to_le_bytes)
    }

    pub(super) fn u32s(&mut self, values: &[u32]) -> io::Result<()> {
        self.values(values, u32::to_le_bytes)
    }

    pub(super) fn f32s(&mut self, values: &[f32]) -> io::Result<()> {
        self.values(values, f32::to_le_bytes)
    }

    pub(super) fn u128s(&mut self, values: &[u128]) -> io::Result<()> {
        self.values(values, u128::to_le_bytes)
    }

    /// Writes the sum, and hands back where all went.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&self.sum.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn values<T: Copy, const SIZE: usize>(
        &mut self,
        values: &[T],
        to_bytes: impl Fn(T) -> [u8; SIZE],
    ) -> io::Result<()> {
        self.u64(values.len() as u64)?;
        for part in values.chunks(BLOCK / SIZE) {
            let mut block = std::mem::take(&mut self.block);
            block.clear();
            block.extend(part.iter().flat_map(|value| to_bytes(*value)));
            let written = self.put(&block);
            self.block = block;
            written?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = add(self.sum, bytes);
        self.out.write_all(bytes)
    }
}

pub(super) struct Reader<R> {
    input: R,
    sum: u64,
    /// Bytes that are still to come, without the sum.
    left: u64,
}

impl<R: Read> Reader<R> {
    /// `size`: of all that there is to read.
    pub(super) fn new(input: R, size: u64) -> Self {
        Self {
            input,
            sum: 0,
            left: size.saturating_sub(8),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Whether all that was read is what was written.
    pub(super) fn ends_well(mut self) -> bool {
        let mut sum = [0; 8];
        let is_read = self.input.read_exact(&mut sum).is_ok();
        is_read && self.left == 0 && u64::from_le_bytes(sum) == self.sum
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.get(&mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        let mut bytes = [0; 16];
        self.get(&mut bytes)?;
        Some(u128::from_le_bytes(bytes))
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        self.values(|[byte]| byte)
    }

    pub(super) fn i8s(&mut self) -> Option<Vec<i8>> {
        self.values(i8::from_le_bytes)
    }

    pub(super) fn u32s(&mut self) -> Option<Vec<u32>> {
        self.values(u32::from_le_bytes)
    }

    pub(super) fn f32s(&mut self) -> Option<Vec<f32>> {
        self.values(f32::from_le_bytes)
    }

    pub(super) fn u128s(&mut self) -> Option<Vec<u128>> {
        self.values(u128::from_le_bytes)
    }

    fn values<T, const SIZE: usize>(&mut self, of: impl Fn([u8; SIZE]) -> T) -> Option<Vec<T>> {
        let count = usize::try_from(self.u64()?).ok()?;
        // A turned bit must not make us ask for all the memory there is.
        if u64::try_from(count.checked_mul(SIZE)?).ok()? > self.left {
            return None;
        }
        let mut values = Vec::with_capacity(count);
        let mut block = vec![0; (BLOCK / SIZE).min(count) * SIZE];
        while values.len() < count {
            let size = (BLOCK / SIZE).min(count - values.len()) * SIZE;
            let block = &mut block[..size];
            self.get(block)?;
            values.extend(block.as_chunks().0.iter().map(|bytes| of(*bytes)));
        }
        Some(values)
    }

    fn get(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.left = self.left.checked_sub(bytes.len() as u64)?;
        self.input.read_exact(bytes).ok()?;
        self.sum = add(self.sum, bytes);
        Some(())
    }
}

fn add(sum: u64, bytes: &[u8]) -> u64 {
    (sum.rotate_left(5) ^ checksum(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
