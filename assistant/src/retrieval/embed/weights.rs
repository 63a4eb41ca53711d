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

    /// The tables of positions and of types in one: all tokens are of type 0.
    pub(super) fn positions(&self) -> Result<Matrix, String> {
        let mut positions = self.matrix("embeddings.position_embeddings.weight")?;
        let types = self.matrix("embeddings.token_type_embeddings.weight")?;
        for row in positions.values.chunks_exact_mut(positions.columns) {
            for (value, of_type) in row.iter_mut().zip(&types.values) {
                *value += of_type;
            }
        }
        Ok(positions)
    }

    /// Query, key and value of a layer in one matrix, and their biases. The scores' 1/√size is put into the query's.
    pub(super) fn attention_inputs(
        &self,
        layer: usize,
        size: usize,
    ) -> Result<(Matrix, Vec<f32>), String> {
        let mut all = Matrix::default();
        let mut biases = Vec::new();
        // The sizes of heads are small integers, exact in f32.
        let scale = 1.0 / (size as f32).sqrt();
        for (part, factor) in [("query", scale), ("key", 1.0), ("value", 1.0)] {
            let name = format!("encoder.layer.{layer}.attention.self.{part}");
            let matrix = self.matrix(&format!("{name}.weight"))?;
            let bias = self.vector(&format!("{name}.bias"))?;
            all.columns = matrix.columns;
            all.rows += matrix.rows;
            all.values
                .extend(matrix.values.iter().map(|value| value * factor));
            biases.extend(bias.iter().map(|value| value * factor));
        }
        Ok((all, biases))
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

/// Each row rounded to 8 bits by its own scale, zero staying zero.
pub(super) fn quantize_rows(values: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut quantized = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / columns);
    for row in values.chunks_exact(columns) {
        let largest = row
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        // The quotient lies within ±127.
        quantized.extend(row.iter().map(|value| (value / scale).round() as i8));
        scales.push(scale);
    }
    (quantized, scales)
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

    #[test]
    fn rounding_keeps_zero_and_the_largest() {
        let (values, scales) = quantize_rows(&[0.0, -2.0, 1.0, 0.0, 0.0, 0.0], 3);
        assert_eq!(values, [0, -127, 64, 0, 0, 0]);
        assert_eq!(scales, [2.0 / 127.0, 1.0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Weights::parse(&bytes);
        }
    }
}
