//! Numbers ↔ bytes of the saved index, little-endian. Reading is total: what does not fit gives nothing.

#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.bytes.extend(value.to_le_bytes());
    }

    /// With their number in front, as all that follow.
    pub(super) fn bytes(&mut self, values: &[u8]) {
        self.u64(values.len() as u64);
        self.bytes.extend_from_slice(values);
    }

    pub(super) fn i8s(&mut self, values: &[i8]) {
        self.u64(values.len() as u64);
        self.bytes
            .extend(values.iter().map(|value| value.cast_unsigned()));
    }

    pub(super) fn u32s(&mut self, values: &[u32]) {
        self.u64(values.len() as u64);
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub(super) fn f32s(&mut self, values: &[f32]) {
        self.u64(values.len() as u64);
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub(super) fn u128s(&mut self, values: &[u128]) {
        self.u64(values.len() as u64);
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*value))
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        let (value, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u128::from_le_bytes(*value))
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        Some(self.values::<1>()?.as_flattened().to_vec())
    }

    pub(super) fn i8s(&mut self) -> Option<Vec<i8>> {
        let bytes = self.values::<1>()?.as_flattened();
        Some(bytes.iter().map(|byte| byte.cast_signed()).collect())
    }

    pub(super) fn u32s(&mut self) -> Option<Vec<u32>> {
        let values = self.values()?.iter();
        Some(values.map(|value| u32::from_le_bytes(*value)).collect())
    }

    pub(super) fn f32s(&mut self) -> Option<Vec<f32>> {
        let values = self.values()?.iter();
        Some(values.map(|value| f32::from_le_bytes(*value)).collect())
    }

    pub(super) fn u128s(&mut self) -> Option<Vec<u128>> {
        let values = self.values()?.iter();
        Some(values.map(|value| u128::from_le_bytes(*value)).collect())
    }

    fn values<const SIZE: usize>(&mut self) -> Option<&'a [[u8; SIZE]]> {
        let count = usize::try_from(self.u64()?).ok()?;
        let (values, rest) = self.rest.split_at_checked(count.checked_mul(SIZE)?)?;
        self.rest = rest;
        Some(values.as_chunks().0)
    }
}
