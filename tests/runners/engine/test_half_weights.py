"""Weights in fp16, and which convolutions stay in fp32."""

from __future__ import annotations

import openvino as ov
import pytest
from onnx import helper

from runners.engine.half_weights import with_half_weights
from tests.runners.engine.graphs import model_of, random


def _two_in_a_row_and_one_beside() -> ov.Model:
    """Return two convolutions one after the other, and one beside the first, whose answers are put together."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Conv", ["x", "w2"], ["b"], name="beside"),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["y"], name="second"),
    ]
    constants = {"w1": random(4, 3, 3, 3), "w2": random(4, 3, 3, 3), "w3": random(4, 8, 1, 1)}
    return model_of(nodes, constants, ["n", 3, "h", "w"])


@pytest.mark.parametrize("exact_start", [True, False])
def test_only_the_first_convolutions_stay_exact(exact_start: bool) -> None:
    model = with_half_weights(_two_in_a_row_and_one_beside(), exact_start=exact_start)
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert len(convolutions) == 3
    marked = {node.get_friendly_name() for node in convolutions if dict(node.get_rt_info())}
    assert marked == ({"first", "beside"} if exact_start else set())


def test_weights_are_halved() -> None:
    model = with_half_weights(_two_in_a_row_and_one_beside(), exact_start=False)
    kinds = {
        node.get_output_element_type(0)
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 4
    }
    assert kinds == {ov.Type.f16}
