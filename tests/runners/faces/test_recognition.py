"""ArcFace over graphs that take many faces a call, and graphs that do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from errors import ModelUnavailable
from runners.engine import TensorSpec
from runners.faces.recognition import Recognizer
from tests.runners.faces.reference import FILES, opened


class Graph:
    """Answers the mean of each channel; ``flaw`` names what is wrong with its batch axis."""

    metadata: Mapping[str, str] = {}

    def __init__(
        self,
        *,
        batch_axis: int | None = None,
        side: int | None = 112,
        outputs: int = 1,
        flaw: str = "",
        dtype: Any = np.float32,
    ) -> None:
        self.inputs = (TensorSpec("in", np.dtype(dtype), (batch_axis, 3, side, side)),)
        self.outputs = (TensorSpec("out", np.dtype(dtype), (1, 3)),) * outputs
        self.calls: list[NDArray[Any]] = []
        self._flaw = flaw

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        faces = feeds["in"]
        self.calls.append(faces)
        means = faces.mean(axis=(2, 3))
        if len(faces) > 1 and self._flaw == "raises":
            raise RuntimeError("Got invalid dimensions for input")
        if len(faces) > 1 and self._flaw == "answers the first only":
            means = means[:1]
        if len(faces) > 1 and self._flaw == "repeats the first":
            means = means[:1].repeat(len(faces), axis=0)
        if self._flaw == "answers a map":
            return [faces]
        return [means]

    def close(self) -> None: ...


def faces(count: int) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 112, 112, 3)).astype(np.uint8))


def test_pixels_reach_the_graph_as_rgb_from_minus_one_to_one() -> None:
    graph = Graph()
    face = np.zeros((112, 112, 3), np.uint8)
    face[..., 0], face[..., 1] = 255, 51
    Recognizer(graph).embed([face])
    assert graph.calls[-1].dtype == np.float32
    np.testing.assert_allclose(graph.calls[-1][0].mean(axis=(1, 2)), [1, -0.6, -1], atol=1e-6)


def test_a_graph_in_half_precision_is_fed_and_answers_as_float32() -> None:
    graph = Graph(dtype=np.float16)
    embeddings = Recognizer(graph).embed(faces(2))
    assert graph.calls[-1].dtype == np.float16
    assert embeddings.dtype == np.float32


def test_many_faces_go_in_calls_of_bounded_size_and_come_back_in_order() -> None:
    graph = Graph()
    recognizer = Recognizer(graph)
    graph.calls.clear()
    crops = faces(70)
    embeddings = recognizer.embed(crops)
    assert [len(call) for call in graph.calls] == [8] * 8 + [6]
    means = np.array([crop.mean(axis=(0, 1)) for crop in crops]) / 127.5 - 1
    np.testing.assert_allclose(embeddings, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("flaw", ["raises", "answers the first only", "repeats the first"])
def test_a_graph_whose_batch_axis_is_not_real_gets_one_face_a_call(flaw: str) -> None:
    graph = Graph(flaw=flaw)
    embeddings = Recognizer(graph).embed(faces(5))
    np.testing.assert_array_equal(embeddings, Recognizer(Graph(batch_axis=1)).embed(faces(5)))


def test_a_graph_for_one_face_is_not_tried_with_two() -> None:
    graph = Graph(batch_axis=1)
    Recognizer(graph).embed(faces(3))
    assert {len(call) for call in graph.calls} == {1}


def test_a_face_without_any_signal_is_a_vector_of_zeros_not_of_nan() -> None:
    class Silent(Graph):
        def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
            return [np.zeros((len(feeds["in"]), 3), np.float32)]

    np.testing.assert_array_equal(Recognizer(Silent()).embed(faces(2)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("graph", "what"),
    [
        (Graph(outputs=2), "one output, not 2"),
        (Graph(side=96), "96 x 96"),
        (Graph(flaw="answers a map", batch_axis=1), "one vector per face"),
    ],
)
def test_a_graph_that_is_no_recogniser_is_refused(graph: Graph, what: str) -> None:
    with pytest.raises(ModelUnavailable, match=what):
        Recognizer(graph)


def test_real_weights_answer_a_batch_as_they_answer_each_face() -> None:
    recognizer = Recognizer(opened(FILES["recognition/model.onnx"]))
    crops = faces(37)
    together, alone = recognizer.embed(crops), np.concatenate([recognizer.embed([crop]) for crop in crops])
    assert ((together * alone).sum(axis=1) > 0.99999).all()
    assert recognizer.embed([]).shape == (0, 512)
