"""Writes a.onnx and b.onnx beside it: two sentence models for tests, as small as they can be. Needs `onnx` from PyPI.

A token's vector is the sine of its number times some frequencies, a text's the mean of its tokens': the same words give
the same vector, and the two models give different ones, of different lengths. Of meaning they know nothing.
"""

import pathlib

import onnx
from onnx import TensorProto, helper


def write(name, frequencies):
    size = len(frequencies)
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "two"], ["column"]),
        helper.make_node("Mul", ["column", "frequencies"], ["angles"]),
        helper.make_node("Sin", ["angles"], ["last_hidden_state"]),
    ]
    shape = ["batch", "sequence"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ["input_ids", "attention_mask"]]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, size])]
    constants = [
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("frequencies", TensorProto.FLOAT, [size], frequencies),
    ]
    graph = helper.make_graph(nodes, "sines", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, pathlib.Path(__file__).with_name(f"{name}.onnx"))


write("a", [0.1 + 0.37 * at for at in range(16)])
write("b", [0.2 + 0.53 * at for at in range(24)])
