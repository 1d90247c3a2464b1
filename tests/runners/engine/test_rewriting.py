"""Rewritten graphs answer as the graphs that they were made of, and what is not meant is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from runners.engine import EnginePlan, open_session
from runners.engine.openvino_core import core
from runners.engine.rewriting import rewrite, with_picture_size
from tests.runners.engine.graphs import model_of, random, run, types
from tests.runners.ocr.test_model import FILES


def _head(channels: int, middle: int, last: int, scale: int) -> ov.Model:
    """Return what DB's detector ends with: two transposed convolutions, each with a bias and an activation, and
    identities in between.
    """
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w1"], ["a"], strides=[scale, scale], kernel_shape=[scale, scale]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Add", ["b", "b1"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Identity", ["d"], ["e"]),
        helper.make_node("ConvTranspose", ["e", "w2"], ["f"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("Add", ["f", "b2"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["y"]),
    ]
    constants = {
        "w1": random(channels, middle, scale, scale), "b1": random(1, middle, 1, 1),
        "w2": random(middle, last, 2, 2), "b2": random(1, last, 1, 1),
    }  # fmt: skip
    return model_of(nodes, constants, ["n", channels, "h", "w"])


@settings(deadline=None, max_examples=25)
@given(
    channels=st.integers(1, 5), middle=st.integers(1, 6), last=st.integers(1, 7), scale=st.integers(1, 3),
    n=st.integers(1, 2), h=st.integers(1, 7), w=st.integers(1, 7),
)  # fmt: skip
def test_an_upsampling_head_answers_as_before(
    channels: int, middle: int, last: int, scale: int, n: int, h: int, w: int
) -> None:
    x = random(n, channels, h, w, seed=3)
    expected = run(_head(channels, middle, last, scale), x)
    model = _head(channels, middle, last, scale)
    places = rewrite(model)
    assert places == (1 if last <= 4 else 2), "the second is computed in the grain of the first where it is small"
    assert "ConvolutionBackpropData" not in types(model)
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2], "kernel_shape": [3, 3]},
        {"strides": [1, 1], "kernel_shape": [2, 2]},
        {"strides": [2, 2], "kernel_shape": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "kernel_shape": [2, 2], "output_padding": [1, 1]},
        {"strides": [2, 2], "kernel_shape": [2, 2], "dilations": [2, 2]},
        {"strides": [2, 2], "kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 3], "kernel_shape": [2, 3]},
    ],
)
def test_transposed_convolutions_of_other_kinds_are_left_alone(attributes: dict[str, Any]) -> None:
    weights = random(3, 2, *attributes["kernel_shape"])
    model = model_of(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)], {"w": weights}, ["n", 3, "h", "w"]
    )
    assert rewrite(model) == 0
    assert "ConvolutionBackpropData" in types(model)


def test_what_several_ask_for_is_still_there() -> None:
    """The first answer is used twice, so what follows it must not be drawn in."""
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["a"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    x, constants = random(1, 3, 4, 5), {"w": random(3, 2, 2, 2)}
    expected = run(model_of(nodes, constants, ["n", 3, "h", "w"]), x)
    model = model_of(nodes, constants, ["n", 3, "h", "w"])
    assert rewrite(model) == 1
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-5, atol=1e-5)


def _gated(*, factor: list[int | str], swapped: bool) -> ov.Model:
    """Return ``x + x * s``, with s the mean of each channel, or of the whole."""
    axes = [2, 3] if factor[1] != 1 else [1, 2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["s"], axes=axes, keepdims=1),
        helper.make_node("Mul", ["s", "x"] if swapped else ["x", "s"], ["p"]),
        helper.make_node("Add", ["p", "x"] if swapped else ["x", "p"], ["y"]),
    ]
    return model_of(nodes, {}, ["n", 3, "h", "w"])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("factor", [["n", 3, 1, 1], ["n", 1, 1, 1]])
def test_a_gate_with_a_shortcut_is_one_product(factor: list[int | str], swapped: bool) -> None:
    x = random(2, 3, 6, 5)
    model = _gated(factor=factor, swapped=swapped)
    expected = run(_gated(factor=factor, swapped=swapped), x)
    assert rewrite(model) == 1
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-5, atol=1e-6)


def test_a_product_with_another_or_of_full_size_is_left_alone() -> None:
    full = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Mul", ["x", "s"], ["p"]),
        helper.make_node("Add", ["x", "p"], ["y"]),
    ]
    assert rewrite(model_of(full, {}, ["n", 3, "h", "w"])) == 0
    other = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceMean", ["x"], ["s"], axes=[2, 3], keepdims=1),
        helper.make_node("Mul", ["r", "s"], ["p"]),
        helper.make_node("Add", ["x", "p"], ["y"]),
    ]
    assert rewrite(model_of(other, {}, ["n", 3, "h", "w"])) == 0


def test_graphs_in_fp16_are_left_alone() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], kernel_shape=[2, 2])
    weights = {"w": random(3, 2, 2, 2).astype(np.float16)}
    model = model_of([node], weights, ["n", 3, "h", "w"], dtype=TensorProto.FLOAT16)
    assert rewrite(model) == 0


def test_pp_ocrs_detector_answers_as_onnxruntime_does(tmp_path: Path) -> None:
    path = FILES["detection/model.onnx"]
    model = core().read_model(str(path))
    assert rewrite(model) == 9, "eight gates with a shortcut, and the head"
    assert not {"ConvolutionBackpropData", "Identity"} & set(types(model))
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 96, 160)).astype(np.float32)
    reference = open_session(path, EnginePlan("cpu", 2))
    ours = open_session(path, EnginePlan("cpu", 2, engine="openvino", compiled=tmp_path))
    assert [spec.name for spec in ours.inputs] == [spec.name for spec in reference.inputs]
    assert [spec.name for spec in ours.outputs] == [spec.name for spec in reference.outputs]
    (expected,), (found,) = (session.run({session.inputs[0].name: x}) for session in (reference, ours))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["n", 3, "h", "w"], [1, 9, 12, 3]), (["n", 3, 7, "w"], [1, 7, 12, 3]), ([1, 3, 7, 8], [1, 7, 8, 3])],
)
def test_a_graph_for_pictures_of_one_size_takes_rows_of_pixels(given: list[int | str], expected: list[int]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)]
    graph = model_of(nodes, {"w": random(5, 3, 3, 3)}, given)
    model = with_picture_size(model_of(nodes, {"w": random(5, 3, 3, 3)}, given), (12, 9))
    assert list(model.input(0).get_shape()) == expected
    assert model.input(0).get_names() == {"x"}
    x = random(*expected, seed=1)
    np.testing.assert_allclose(run(model, x), run(graph, np.ascontiguousarray(x.transpose(0, 3, 1, 2))), atol=1e-5)


@pytest.mark.parametrize("given", [["n", 4, "h", "w"], ["n", "c", "h", "w"], ["n", 3]])
def test_a_graph_for_anything_else_keeps_its_input(given: list[int | str]) -> None:
    model = with_picture_size(model_of([helper.make_node("Relu", ["x"], ["y"])], {}, given), (12, 9))
    assert model.input(0).get_partial_shape().is_dynamic
