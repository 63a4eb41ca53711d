//! Safetensors: eight bytes of length, a JSON header that names each tensor's place, then the numbers.

use std::collections::HashMap;

use serde::Deserialize;

pub(super) struct Weights<'a> {
    tensors: HashMap<String, Tensor>,
    data: &'a [u8],
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Row by row.
#[derive(Default)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

impl<'a> Weights<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, String> {
        let (length, rest) = file.split_first_chunk::<8>().ok_or("it is too short")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| e.to_string())?;
        let (header, data) = rest
            .split_at_checked(length)
            .ok_or("its header is longer than the file")?;
        let header: HashMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
        let tensors = header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, value)| Ok((name, serde_json::from_value(value)?)))
            .collect::<Result<_, serde_json::Error>>()
            .map_err(|error| format!("its header: {error}"))?;
        Ok(Self { tensors, data })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn matrix(&self, name: &str) -> Result<Matrix, String> {
        let (shape, values) = self.read(name)?;
        match *shape {
            [rows, columns] if columns > 0 => Ok(Matrix {
                rows,
                columns,
                values,
            }),
            _ => Err(format!("`{name}` is no matrix")),
        }
    }

    pub(super) fn vector(&self, name: &str) -> Result<Vec<f32>, String> {
        Ok(self.read(name)?.1)
    }

    fn read(&self, name: &str) -> Result<(&[usize], Vec<f32>), String> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| format!("`{name}` is missing"))?;
        if tensor.dtype != "F32" {
            return Err(format!("`{name}` is {} and not F32", tensor.dtype));
        }
        let (start, end) = tensor.data_offsets;
        let values: Vec<f32> = self
            .data
            .get(start..end)
            .ok_or_else(|| format!("`{name}` lies outside the file"))?
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        if values.len() != tensor.shape.iter().product::<usize>() {
            return Err(format!(
                "`{name}` has not as many numbers as its shape says"
            ));
        }
        Ok((&tensor.shape, values))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn damage_is_told_and_never_a_panic() {
        let header = br#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[9],"data_offsets":[4,40]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend([0, 0, 128, 63, 0, 0, 0, 64]);
        let weights = Weights::parse(&file).unwrap();
        assert_eq!(weights.matrix("a").unwrap().values, [1.0, 2.0]);
        assert!(weights.vector("b").unwrap_err().contains("outside"));
        assert!(weights.vector("c").unwrap_err().contains("missing"));
        assert!(Weights::parse(b"short").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Weights::parse(&bytes);
        }
    }
}
