"""A transformer of an odd number of tokens answers as before when it gets one more; others are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import helper

from models.convert.architecture import Architecture, Bert, VisionTransformer
from models.convert.graph import GraphWriter, Precision
from models.convert.tensor import ArrayTensor
from models.convert.vision_graph import write_vision
from runners.engine.openvino_core import core
from runners.engine.rewriting import rewrite
from tests.runners.engine.graphs import model_of, random, run
from tools.bench.weights import random_weight

BERT = Bert(100, 52, 64, 128, 1, 1)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


def image_half(path: Path, patch: int, precision: Precision = "fp32", side: int = 64) -> ov.Model:
    """Return the image half of a narrow CLIP with random weights, as it is converted."""
    architecture = Architecture(VisionTransformer(side, patch, 128, 3, 2), BERT, 32)
    tensors = {name: ArrayTensor(random_weight(name, shape)) for name, shape in architecture.shapes().items()}
    writer = GraphWriter(None, precision)
    writer.save(path, "vision", write_vision(writer, architecture, tensors), 32)
    model: ov.Model = core().read_model(str(path))
    return model


def vectors(model: ov.Model, pictures: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return np.array(compiled([pictures])[0], np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("patch", [16, 4], ids=["17 tokens", "257 tokens"])
def test_a_clip_answers_as_before(tmp_path: Path, patch: int, precision: Precision) -> None:
    expected = vectors(image_half(tmp_path / "clip.onnx", patch, precision), PICTURES, "f32")
    model = image_half(tmp_path / "clip.onnx", patch, precision)
    assert rewrite(model) == 1
    np.testing.assert_allclose(vectors(model, PICTURES, "f32"), expected, atol=1e-5)
    # In bf16, where the processor computes in it, OpenVINO fuses attention, and must not misread its mask.
    cosines = (vectors(model, PICTURES, "bf16") * expected).sum(axis=1)
    assert cosines.min() > 0.999
    assert abs(expected[0] @ expected[1]) < 0.99


@pytest.mark.parametrize("pictures", [1, 3])
def test_any_number_of_pictures_may_come(tmp_path: Path, pictures: int) -> None:
    plain, model = image_half(tmp_path / "clip.onnx", 16), image_half(tmp_path / "clip.onnx", 16)
    rewrite(model)
    some = PICTURES[:pictures]
    np.testing.assert_allclose(vectors(model, some, "f32"), vectors(plain, some, "f32"), atol=1e-5)


def test_an_even_number_of_tokens_stays(tmp_path: Path) -> None:
    assert rewrite(image_half(tmp_path / "clip.onnx", 16, side=48)) == 0  # nine patches and the class


def test_a_fixed_number_of_pictures_keeps_its_tokens(tmp_path: Path) -> None:
    model = image_half(tmp_path / "clip.onnx", 16)
    model.reshape([1, 64, 64, 3])
    assert rewrite(model) == 0


TOKENS = 5
BEGIN = [
    helper.make_node("Pad", ["x", "sides"], ["padded"]),
    helper.make_node("Add", ["padded", "positions"], ["placed"]),
]
ATTENTION = [
    helper.make_node("Reshape", ["placed", "split"], ["parts"]),
    helper.make_node("Transpose", ["parts"], ["queries"], perm=[0, 2, 1, 3]),
    helper.make_node("Transpose", ["parts"], ["keys"], perm=[0, 2, 3, 1]),
    helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
    helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
    helper.make_node("MatMul", ["shares", "queries"], ["mixed"]),
    helper.make_node("Transpose", ["mixed"], ["rows"], perm=[0, 2, 1, 3]),
    helper.make_node("Reshape", ["rows", "joined"], ["attended"]),
]
FIRST = [helper.make_node("Slice", ["attended", "zero", "one", "one"], ["y"])]
CONSTANTS = {
    "sides": np.array([0, 1, 0, 0, 0, 0]), "positions": random(TOKENS, 8), "zero": np.array([0]), "one": np.array([1]),
    "split": np.array([0, 0, 2, 4]), "joined": np.array([0, 0, 8]), "last": np.array([-1]), "end": np.array([TOKENS]),
    "of five": np.array([0, TOKENS, 2, 4]), "weights": random(1, TOKENS, 1),
}  # fmt: skip
X = random(2, TOKENS - 1, 8, seed=1)


def attention(*nodes: onnx.NodeProto, sides: tuple[int, ...] = (0, 1, 0, 0, 0, 0)) -> ov.Model:
    """Return a graph of ``nodes``, with those of ``CONSTANTS`` that they take."""
    taken = {name for node in nodes for name in node.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in taken}
    return model_of(list(nodes), {**constants, "sides": np.array(sides)}, ["n", TOKENS - 1, 8])


def test_one_layer_of_attention_answers_as_before() -> None:
    nodes = (*BEGIN, *ATTENTION, *FIRST)
    expected, model = run(attention(*nodes), X), attention(*nodes)
    assert rewrite(model) == 1
    np.testing.assert_allclose(run(model, X), expected, atol=1e-5)


@pytest.mark.parametrize(
    "end",
    [
        [helper.make_node("ReduceMean", ["attended"], ["y"], axes=[1])],
        [helper.make_node("Slice", ["attended", "last", "end", "one"], ["y"])],
        [helper.make_node("Identity", ["attended"], ["y"])],
        [
            helper.make_node("Mul", ["attended", "weights"], ["weighed"]),
            helper.make_node("Slice", ["weighed", "zero", "one", "one"], ["y"]),
        ],
    ],
    ids=["the mean", "the last", "all", "one weight a token"],
)  # fmt: skip
def test_what_needs_more_than_the_first_token_stays(end: list[onnx.NodeProto]) -> None:
    assert rewrite(attention(*BEGIN, *ATTENTION, *end)) == 0


def test_what_has_its_number_of_tokens_written_into_a_shape_stays() -> None:
    written = helper.make_node("Reshape", ["placed", "of five"], ["parts"])
    assert rewrite(attention(*BEGIN, written, *ATTENTION[1:], *FIRST)) == 0


def test_what_is_laid_elsewhere_or_without_attention_stays() -> None:
    assert rewrite(attention(*BEGIN, *ATTENTION, *FIRST, sides=(0, 0, 0, 0, 1, 0))) == 0
    plain = helper.make_node("Slice", ["placed", "zero", "one", "one"], ["y"])
    assert rewrite(attention(*BEGIN, plain)) == 0
