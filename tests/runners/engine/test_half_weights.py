"""Weights in fp16."""

from __future__ import annotations

import openvino as ov
from onnx import helper

from runners.engine.half_weights import with_half_weights
from tests.runners.engine.graphs import model_of, random


def test_weights_are_halved() -> None:
    nodes = [helper.make_node("Conv", ["x", "w1"], ["a"]), helper.make_node("Conv", ["a", "w2"], ["y"])]
    model = with_half_weights(model_of(nodes, {"w1": random(4, 3, 3, 3), "w2": random(4, 4, 1, 1)}, ["n", 3, "h", "w"]))
    kinds = [
        node.get_output_element_type(0)
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 4
    ]
    assert kinds == [ov.Type.f16] * 2
