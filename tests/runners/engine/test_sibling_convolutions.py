"""Convolutions of one input answer as before when they are joined, and what would not gain by it is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from runners.engine.openvino_core import core
from runners.engine.rewriting import rewrite
from runners.engine.sibling_convolutions import join_siblings
from tests.runners.engine.graphs import model_of, random, run, types
from tests.runners.faces.reference import FILES


def _siblings(counts: list[int], *, biased: list[bool], how: dict[str, Any] | None = None) -> ov.Model:
    """Return convolutions of the same 5 channels, some with a bias; their answers are put together."""
    nodes, constants = [], {}
    for number, (count, with_bias) in enumerate(zip(counts, biased, strict=True)):
        constants[f"w{number}"] = random(count, 5, 3, 3, seed=number)
        inputs = ["x", f"w{number}"]
        if with_bias:
            constants[f"b{number}"] = random(count, seed=number + 10)
            inputs.append(f"b{number}")
        nodes.append(helper.make_node("Conv", inputs, [f"y{number}"], **(how or {})))
    nodes.append(helper.make_node("Concat", [f"y{number}" for number in range(len(counts))], ["y"], axis=1))
    return model_of(nodes, constants, ["n", 5, "h", "w"])


@settings(deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(1, 7), min_size=2, max_size=4), data=st.data(), n=st.integers(1, 2),
    stride=st.integers(1, 2), pad=st.integers(0, 1), dilation=st.integers(1, 2), side=st.integers(7, 11),
)  # fmt: skip
def test_joined_ones_answer_as_before(
    counts: list[int], data: st.DataObject, n: int, stride: int, pad: int, dilation: int, side: int
) -> None:
    biased = data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)))
    how = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2}
    x = random(n, 5, side, side + 2, seed=9)
    expected = run(_siblings(counts, biased=biased, how=how), x)
    model = _siblings(counts, biased=biased, how=how)
    assert rewrite(model) == (1 if sum(counts) <= 16 or len(counts) > 2 else 0)
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("counts", [[16, 16], [120, 120], [9, 9], [40]])
def test_those_that_fill_their_registers_stay_apart(counts: list[int]) -> None:
    model = _siblings(counts, biased=[True] * len(counts))
    assert join_siblings(model) == 0
    assert types(model).count("Convolution") == len(counts)


@pytest.mark.parametrize(
    ("first", "second", "w"),
    [
        ({"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"strides": [2, 2], "pads": [0, 0, 2, 2]}, (3, 5, 3, 3)),
        ({}, {"dilations": [2, 2], "pads": [1, 1, 1, 1]}, (3, 5, 3, 3)),
        ({}, {}, (3, 5, 1, 1)),
    ],
    ids=["borders", "dilation", "kernel"],
)
def test_those_that_differ_in_more_than_their_weights_stay_apart(
    first: dict[str, Any], second: dict[str, Any], w: tuple[int, ...]
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], **first), helper.make_node("Conv", ["x", "w"], ["b"], **second),
        helper.make_node("ReduceMean", ["a"], ["c"], axes=[2, 3]),
        helper.make_node("ReduceMean", ["b"], ["d"], axes=[2, 3]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]  # fmt: skip
    model = model_of(nodes, {"v": random(3, 5, 3, 3), "w": random(*w)}, ["n", 5, 9, 9])
    assert join_siblings(model) == 0


def test_an_addition_that_is_no_bias_stays_behind_the_convolution() -> None:
    """Join one to which a whole map is added, and one that is used twice."""
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"]), helper.make_node("Add", ["a", "map"], ["b"]),
        helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "bias"], ["d"]),
        helper.make_node("Mul", ["c", "d"], ["e"]), helper.make_node("Concat", ["b", "e"], ["y"], axis=1),
    ]  # fmt: skip
    constants = {
        "v": random(3, 5, 3, 3), "w": random(4, 5, 3, 3, seed=1),
        "map": random(1, 3, 4, 4, seed=2), "bias": random(1, 4, 1, 1, seed=3),
    }  # fmt: skip
    x = random(2, 5, 6, 6, seed=4)
    expected = run(model_of(nodes, constants, ["n", 5, 6, 6]), x)
    model = model_of(nodes, constants, ["n", 5, 6, 6])
    assert join_siblings(model) == 1
    model.validate_nodes_and_infer_types()
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-5, atol=1e-5)


def test_scrfd_answers_as_before_under_the_same_names() -> None:
    path = str(FILES["detection/model.onnx"])
    whole, joined = core().read_model(path), core().read_model(path)
    assert rewrite(joined) == 3, "the last convolutions of three levels"
    assert [port.any_name for port in joined.outputs] == [port.any_name for port in whole.outputs]
    picture = random(1, 3, 96, 128, seed=7).clip(-1, 1)
    found = [
        core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([picture]) for model in (whole, joined)
    ]
    for before, after in zip(*(answer.values() for answer in found), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
