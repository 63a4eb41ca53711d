"""Writes model.onnx beside it: a cross-encoder for tests, as small as one can be. Needs `onnx` from PyPI.

It reads question and passage together, as any cross-encoder does, and its logit grows with the share of the question's
tokens that the passage has: 8 · share − 4. Good enough to show that what it says counts; of quality it says nothing.
"""

import pathlib

import onnx
from onnx import TensorProto, helper

# Below are BERT's marks: [CLS], [SEP], [PAD] and unused ones.
FIRST_WORD = 999


def constant(name, kind, shape, values):
    return helper.make_tensor(name, kind, shape, values)


nodes = [
    helper.make_node("Greater", ["input_ids", "first_word"], ["is_word"]),
    helper.make_node("Cast", ["is_word"], ["word"], to=TensorProto.FLOAT),
    helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
    helper.make_node("Cast", ["token_type_ids"], ["second"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["word", "there"], ["real"]),
    helper.make_node("Mul", ["real", "second"], ["of_passage"]),
    helper.make_node("Sub", ["real", "of_passage"], ["of_question"]),
    helper.make_node("Unsqueeze", ["input_ids", "two"], ["down"]),
    helper.make_node("Unsqueeze", ["input_ids", "one"], ["across"]),
    helper.make_node("Equal", ["down", "across"], ["is_same"]),
    helper.make_node("Cast", ["is_same"], ["same"], to=TensorProto.FLOAT),
    helper.make_node("Unsqueeze", ["of_passage", "one"], ["passage_across"]),
    helper.make_node("Mul", ["same", "passage_across"], ["hits"]),
    helper.make_node("ReduceMax", ["hits", "two"], ["hit"], keepdims=0),
    helper.make_node("Mul", ["hit", "of_question"], ["found"]),
    helper.make_node("ReduceSum", ["found", "one"], ["sum_found"], keepdims=1),
    helper.make_node("ReduceSum", ["of_question", "one"], ["sum_asked"], keepdims=1),
    helper.make_node("Max", ["sum_asked", "float_one"], ["asked"]),
    helper.make_node("Div", ["sum_found", "asked"], ["share"]),
    helper.make_node("Mul", ["share", "eight"], ["scaled"]),
    helper.make_node("Sub", ["scaled", "four"], ["logits"]),
]
shape = ["batch", "sequence"]
inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ["input_ids", "attention_mask", "token_type_ids"]]
outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])]
constants = [
    constant("first_word", TensorProto.INT64, [], [FIRST_WORD]),
    constant("one", TensorProto.INT64, [1], [1]),
    constant("two", TensorProto.INT64, [1], [2]),
    constant("float_one", TensorProto.FLOAT, [], [1.0]),
    constant("eight", TensorProto.FLOAT, [], [8.0]),
    constant("four", TensorProto.FLOAT, [], [4.0]),
]
graph = helper.make_graph(nodes, "overlap", inputs, outputs, constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, pathlib.Path(__file__).with_name("model.onnx"))
