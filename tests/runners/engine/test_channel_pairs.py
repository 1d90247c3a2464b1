"""Convolutions in groups of two channels answer as before when they are split into depthwise ones, and what cannot be
split is left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from runners.engine.channel_pairs import split_channel_pairs
from runners.engine.openvino_core import core
from runners.engine.rewriting import rewrite
from tests.runners.engine.graphs import model_of, random, run, types
from tests.runners.faces.reference import FILES


def _paired(pairs: int, *, activation: str | None, bias: bool, grouped: dict[str, Any]) -> ov.Model:
    """Return a convolution of 3 channels, its bias and activation, and one over pairs of its channels."""
    channels = 2 * pairs
    constants = {
        "w1": random(channels, 3, 3, 3), "b1": random(channels, seed=1),
        "slope": random(channels, 1, 1, seed=2), "w2": random(channels, 2, 3, 3, seed=3),
    }  # fmt: skip
    nodes = [helper.make_node("Conv", ["x", "w1", *(["b1"] if bias else [])], ["a"], strides=[2, 2])]
    if activation is not None:
        nodes.append(helper.make_node(activation, ["a", "slope"], ["b"]))
    nodes.append(helper.make_node("Conv", [nodes[-1].output[0], "w2"], ["y"], group=pairs, **grouped))
    return model_of(nodes, constants, ["n", 3, "h", "w"])


@settings(deadline=None, max_examples=25)
@given(
    pairs=st.integers(2, 9), activation=st.sampled_from([None, "PRelu"]), bias=st.booleans(),
    stride=st.integers(1, 2), pad=st.integers(0, 1), dilation=st.integers(1, 2), side=st.integers(15, 20),
)  # fmt: skip
def test_pairs_that_are_split_answer_as_before(
    pairs: int, activation: str | None, bias: bool, stride: int, pad: int, dilation: int, side: int
) -> None:
    grouped = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2}
    x = random(2, 3, side, side + 3, seed=5)
    expected = run(_paired(pairs, activation=activation, bias=bias, grouped=grouped), x)
    model = _paired(pairs, activation=activation, bias=bias, grouped=grouped)
    assert rewrite(model) == 1
    assert types(model).count("GroupConvolution") == 2
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("nodes", "constants", "channels"),
    [
        ([helper.make_node("Conv", ["x", "w"], ["y"], group=2)], {"w": random(4, 2, 3, 3)}, 4),
        ([helper.make_node("Conv", ["x", "w"], ["y"], group=2)], {"w": random(6, 3, 3, 3)}, 6),
        ([helper.make_node("Conv", ["x", "w"], ["y"], group=4)], {"w": random(4, 1, 3, 3)}, 4),
        (
            [
                helper.make_node("Conv", ["x", "v"], ["a"]),
                helper.make_node("Sigmoid", ["a"], ["b"]),
                helper.make_node("Conv", ["b", "w"], ["y"], group=2),
            ],
            {"v": random(4, 4, 3, 3), "w": random(4, 2, 3, 3)},
            4,
        ),
    ],
    ids=["no convolution before", "threes", "depthwise already", "another activation"],
)
def test_what_cannot_be_split_is_left_alone(nodes: list[Any], constants: dict[str, Any], channels: int) -> None:
    model = model_of(nodes, constants, ["n", channels, "h", "w"])
    before = types(model)
    assert split_channel_pairs(model) == 0
    assert types(model) == before


def test_mobile_facenet_answers_as_before() -> None:
    path = str(FILES["recognition/model.onnx"])
    whole, split = core().read_model(path), core().read_model(path)
    assert rewrite(split) == 1
    faces = random(2, 3, 112, 112, seed=7).clip(-1, 1)
    expected, found = run(whole, faces), run(split, faces)
    cosines = (expected * found).sum(axis=1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999999
