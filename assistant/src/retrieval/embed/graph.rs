//! The BERT encoder as an ONNX graph, written from the weights in a safetensors file. The model is published without
//! such a graph in the package we install from, and a graph is a few hundred messages: no tool is needed to make one.
//!
//! Protobuf field numbers are those of `onnx.proto`, IR version 9, operator set 20.

use super::weights::{Matrix, Weights, quantize_rows};
use super::{HEADS, Precision};

mod proto;
#[cfg(test)]
pub(super) mod reference;

use proto::{Graph, Input};

/// Reads safetensors and writes the model. Names of inputs and outputs are those that fastembed expects.
pub(super) fn build(safetensors: &[u8], precision: Precision) -> Result<Vec<u8>, String> {
    let weights = Weights::parse(safetensors)?;
    let mut graph = Graph::default();
    let words = weights.matrix("embeddings.word_embeddings.weight")?;
    let hidden = words.columns;
    if hidden % HEADS != 0 {
        return Err(format!(
            "{hidden} hidden units do not divide into {HEADS} heads"
        ));
    }

    let positions = weights.positions()?;
    let embedded = match precision {
        Precision::Float32 => {
            let shape = [words.rows, hidden];
            graph.floats("words", &shape, &words.values);
            graph.node("Gather", &["words", "input_ids"], &[])
        }
        Precision::Int8 => {
            let (values, scales) = quantize_rows(&words.values, hidden);
            graph.int8("words", &[words.rows, hidden], &values);
            graph.floats("word_scales", &[words.rows, 1], &scales);
            let values = graph.node("Gather", &["words", "input_ids"], &[]);
            let values = graph.node("Cast", &[&values], &[("to", Input::Int(proto::FLOAT))]);
            let scales = graph.node("Gather", &["word_scales", "input_ids"], &[]);
            graph.node("Mul", &[&values, &scales], &[])
        }
    };
    graph.floats("positions", &[positions.rows, hidden], &positions.values);
    let length = graph.node(
        "Shape",
        &["input_ids"],
        &[("start", Input::Int(1)), ("end", Input::Int(2))],
    );
    graph.integers("zero", &[1], &[0]);
    let positions = graph.node("Slice", &["positions", "zero", &length, "zero"], &[]);
    let sum = graph.node("Add", &[&embedded, &positions], &[]);
    let mut state = normalise(&mut graph, &weights, &sum, "embeddings.LayerNorm")?;

    // 0 where there is a token, and so far below any score elsewhere that softmax makes it 0.
    let mask = graph.node(
        "Cast",
        &["attention_mask"],
        &[("to", Input::Int(proto::FLOAT))],
    );
    graph.floats("one", &[], &[1.0]);
    graph.floats("never", &[], &[-10_000.0]);
    graph.integers("middle", &[2], &[1, 2]);
    let absent = graph.node("Sub", &["one", &mask], &[]);
    let absent = graph.node("Mul", &[&absent, "never"], &[]);
    let mask = graph.node("Unsqueeze", &[&absent, "middle"], &[]);

    let size = hidden / HEADS;
    graph.integers("split", &[3], &[hidden, hidden, hidden]);
    graph.integers("by_head", &[4], &[0, 0, HEADS, size]);
    graph.integers("joined", &[3], &[0, 0, hidden]);
    let mut layer = 0;
    while weights.has(&format!("encoder.layer.{layer}.output.dense.weight")) {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        let (matrix, bias) = weights.attention_inputs(layer, size)?;
        let name = at("attention.self");
        let all = product(&mut graph, &state, &name, &matrix, &bias, precision);
        let options = [("axis", Input::Int(2))];
        let projected = graph.outputs("Split", &[&all, "split"], &options, 3);
        let by_head = |graph: &mut Graph, input: &str, order: [i64; 4]| {
            let shaped = graph.node("Reshape", &[input, "by_head"], &[]);
            graph.node("Transpose", &[&shaped], &[("perm", Input::Ints(&order))])
        };
        let query = by_head(&mut graph, &projected[0], [0, 2, 1, 3]);
        let key = by_head(&mut graph, &projected[1], [0, 2, 3, 1]);
        let value = by_head(&mut graph, &projected[2], [0, 2, 1, 3]);
        let scores = graph.node("MatMul", &[&query, &key], &[]);
        let scores = graph.node("Add", &[&scores, &mask], &[]);
        let shares = graph.node("Softmax", &[&scores], &[("axis", Input::Int(-1))]);
        let mixed = graph.node("MatMul", &[&shares, &value], &[]);
        let mixed = graph.node(
            "Transpose",
            &[&mixed],
            &[("perm", Input::Ints(&[0, 2, 1, 3]))],
        );
        let mixed = graph.node("Reshape", &[&mixed, "joined"], &[]);

        let attended = linear(
            &mut graph,
            &weights,
            &mixed,
            &at("attention.output.dense"),
            precision,
        )?;
        let sum = graph.node("Add", &[&state, &attended], &[]);
        state = normalise(
            &mut graph,
            &weights,
            &sum,
            &at("attention.output.LayerNorm"),
        )?;

        let wide = linear(
            &mut graph,
            &weights,
            &state,
            &at("intermediate.dense"),
            precision,
        )?;
        let wide = graph.node("Gelu", &[&wide], &[]);
        let narrow = linear(&mut graph, &weights, &wide, &at("output.dense"), precision)?;
        let sum = graph.node("Add", &[&state, &narrow], &[]);
        state = normalise(&mut graph, &weights, &sum, &at("output.LayerNorm"))?;
        layer += 1;
    }
    if layer == 0 {
        return Err("it has no encoder layers".into());
    }
    graph.rename_last_output("last_hidden_state");
    Ok(graph.finish(
        &["input_ids", "attention_mask"],
        "last_hidden_state",
        hidden,
    ))
}

fn linear(
    graph: &mut Graph,
    weights: &Weights,
    input: &str,
    name: &str,
    precision: Precision,
) -> Result<String, String> {
    let matrix = weights.matrix(&format!("{name}.weight"))?;
    let bias = weights.vector(&format!("{name}.bias"))?;
    Ok(product(graph, input, name, &matrix, &bias, precision))
}

/// `input · matrixᵀ + bias`: PyTorch keeps a row for each output, ONNX wants a column.
fn product(
    graph: &mut Graph,
    input: &str,
    name: &str,
    matrix: &Matrix,
    bias: &[f32],
    precision: Precision,
) -> String {
    let shape = [matrix.columns, matrix.rows];
    let weight_name = format!("{name}.weight");
    let product = match precision {
        Precision::Float32 => {
            let values = transpose(&matrix.values, matrix.columns);
            graph.floats(&weight_name, &shape, &values);
            graph.node("MatMul", &[input, &weight_name], &[])
        }
        Precision::Int8 => {
            let (values, scales) = quantize_rows(&matrix.values, matrix.columns);
            graph.int8(&weight_name, &shape, &transpose(&values, matrix.columns));
            let scale_name = format!("{name}.scale");
            graph.floats(&scale_name, &[matrix.rows], &scales);
            let zeros_name = format!("{name}.zero");
            graph.int8(&zeros_name, &[matrix.rows], &vec![0; matrix.rows]);
            let quantized = graph.outputs("DynamicQuantizeLinear", &[input], &[], 3);
            let product = graph.node(
                "MatMulInteger",
                &[&quantized[0], &weight_name, &quantized[2], &zeros_name],
                &[],
            );
            let product = graph.node("Cast", &[&product], &[("to", Input::Int(proto::FLOAT))]);
            let scale = graph.node("Mul", &[&quantized[1], &scale_name], &[]);
            graph.node("Mul", &[&product, &scale], &[])
        }
    };
    let bias_name = format!("{name}.bias");
    graph.floats(&bias_name, &[bias.len()], bias);
    graph.node("Add", &[&product, &bias_name], &[])
}

fn normalise(
    graph: &mut Graph,
    weights: &Weights,
    input: &str,
    name: &str,
) -> Result<String, String> {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    for name in [&weight, &bias] {
        let values = weights.vector(name)?;
        graph.floats(name, &[values.len()], &values);
    }
    let options = [("axis", Input::Int(-1)), ("epsilon", Input::Float(1e-12))];
    Ok(graph.node("LayerNormalization", &[input, &weight, &bias], &options))
}

fn transpose<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend(values.iter().skip(column).step_by(columns));
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
    }
}
