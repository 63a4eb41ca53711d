//! As much of ONNX' protobuf as a graph of ours needs, written directly.

pub(super) const FLOAT: i64 = 1;
const INT8: i64 = 3;
const INT64: i64 = 7;

const IR_VERSION: i64 = 9;
const OPERATOR_SET: i64 = 20;

/// The value of a node's attribute.
pub(super) enum Input<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    /// Encoded `GraphProto.initializer` fields.
    initializers: Vec<u8>,
    names: usize,
}

struct Node {
    operator: &'static str,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Encoded `NodeProto.attribute` fields.
    attributes: Vec<u8>,
}

impl Graph {
    /// Adds a node and gives the name of its output.
    pub(super) fn node(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: &[(&str, Input)],
    ) -> String {
        self.outputs(operator, inputs, attributes, 1).swap_remove(0)
    }

    pub(super) fn outputs(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: &[(&str, Input)],
        count: usize,
    ) -> Vec<String> {
        let outputs: Vec<String> = (0..count)
            .map(|_| {
                self.names += 1;
                format!("t{}", self.names)
            })
            .collect();
        let mut encoded = Vec::new();
        for (name, value) in attributes {
            let mut attribute = Vec::new();
            bytes(&mut attribute, 1, name.as_bytes());
            match value {
                Input::Float(value) => {
                    key(&mut attribute, 2, 5);
                    attribute.extend(value.to_le_bytes());
                    integer(&mut attribute, 20, 1);
                }
                Input::Int(value) => {
                    integer(&mut attribute, 3, *value);
                    integer(&mut attribute, 20, 2);
                }
                Input::Ints(values) => {
                    for value in *values {
                        integer(&mut attribute, 8, *value);
                    }
                    integer(&mut attribute, 20, 7);
                }
            }
            bytes(&mut encoded, 5, &attribute);
        }
        self.nodes.push(Node {
            operator,
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: outputs.clone(),
            attributes: encoded,
        });
        outputs
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.initializer(name, shape, FLOAT, &raw);
    }

    pub(super) fn int8(&mut self, name: &str, shape: &[usize], values: &[i8]) {
        let raw: Vec<u8> = values.iter().map(|value| value.cast_unsigned()).collect();
        self.initializer(name, shape, INT8, &raw);
    }

    pub(super) fn integers(&mut self, name: &str, shape: &[usize], values: &[usize]) {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|&value| (value as u64).to_le_bytes())
            .collect();
        self.initializer(name, shape, INT64, &raw);
    }

    fn initializer(&mut self, name: &str, shape: &[usize], data_type: i64, raw: &[u8]) {
        let mut tensor = Vec::with_capacity(raw.len() + 64);
        for &dimension in shape {
            integer(&mut tensor, 1, dimension as i64);
        }
        integer(&mut tensor, 2, data_type);
        bytes(&mut tensor, 8, name.as_bytes());
        bytes(&mut tensor, 9, raw);
        bytes(&mut self.initializers, 5, &tensor);
    }

    pub(super) fn rename_last_output(&mut self, name: &str) {
        if let Some(output) = self
            .nodes
            .last_mut()
            .and_then(|node| node.outputs.first_mut())
        {
            name.clone_into(output);
        }
    }

    /// The whole `ModelProto`. Inputs are integers of shape batch × sequence, the output has `hidden` floats for each.
    pub(super) fn finish(self, inputs: &[&str], output: &str, hidden: usize) -> Vec<u8> {
        let mut graph = Vec::with_capacity(self.initializers.len() + (1 << 16));
        for node in &self.nodes {
            let mut encoded = Vec::new();
            for input in &node.inputs {
                bytes(&mut encoded, 1, input.as_bytes());
            }
            for output in &node.outputs {
                bytes(&mut encoded, 2, output.as_bytes());
            }
            bytes(&mut encoded, 4, node.operator.as_bytes());
            encoded.extend(&node.attributes);
            bytes(&mut graph, 1, &encoded);
        }
        bytes(&mut graph, 2, b"encoder");
        graph.extend(&self.initializers);
        for input in inputs {
            bytes(&mut graph, 11, &value_info(input, INT64, None));
        }
        bytes(&mut graph, 12, &value_info(output, FLOAT, Some(hidden)));

        let mut operators = Vec::new();
        bytes(&mut operators, 1, b"");
        integer(&mut operators, 2, OPERATOR_SET);

        let mut model = Vec::with_capacity(graph.len() + 64);
        integer(&mut model, 1, IR_VERSION);
        bytes(&mut model, 7, &graph);
        bytes(&mut model, 8, &operators);
        model
    }
}

fn value_info(name: &str, data_type: i64, last: Option<usize>) -> Vec<u8> {
    let mut shape = Vec::new();
    for free in ["batch", "sequence"] {
        let mut dimension = Vec::new();
        bytes(&mut dimension, 2, free.as_bytes());
        bytes(&mut shape, 1, &dimension);
    }
    if let Some(size) = last {
        let mut dimension = Vec::new();
        integer(&mut dimension, 1, size as i64);
        bytes(&mut shape, 1, &dimension);
    }
    let mut tensor = Vec::new();
    integer(&mut tensor, 1, data_type);
    bytes(&mut tensor, 2, &shape);
    let mut of_type = Vec::new();
    bytes(&mut of_type, 1, &tensor);
    let mut info = Vec::new();
    bytes(&mut info, 1, name.as_bytes());
    bytes(&mut info, 2, &of_type);
    info
}

fn key(to: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(to, field << 3 | wire_type);
}

fn integer(to: &mut Vec<u8>, field: u64, value: i64) {
    key(to, field, 0);
    varint(to, value.cast_unsigned());
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(to, field, 2);
    varint(to, value.len() as u64);
    to.extend_from_slice(value);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_those_of_protobuf() {
        for (value, expected) in [(0_u64, &[0_u8][..]), (127, &[127]), (300, &[0xac, 0x02])] {
            let mut encoded = Vec::new();
            varint(&mut encoded, value);
            assert_eq!(encoded, expected);
        }
        let mut minus_one = Vec::new();
        integer(&mut minus_one, 3, -1);
        assert_eq!(minus_one.len(), 11);
    }
}
