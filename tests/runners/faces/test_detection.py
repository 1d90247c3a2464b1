"""SCRFD's pieces, and graphs of other shapes than the one whose weights are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from errors import ModelUnavailable
from runners.engine import TensorSpec
from runners.faces.detection import MAX_FACES, Detections, Detector, anchors, letterbox, non_maximum_suppression
from tests.runners.faces.reference import FILES, T1, opened, pixels, reference_detections

sides = st.integers(0, 30)
boxes = st.lists(st.tuples(sides, sides, sides, sides, st.integers(0, 20)), max_size=40)


class Variant:
    """The real graph, changed at its borders to look like another export of it."""

    def __init__(self, *, batch_axis: int | None, flat: bool, side: int | None = None) -> None:
        self._real = opened(FILES["detection/model.onnx"])
        spec = self._real.inputs[0]
        self.inputs: Sequence[TensorSpec] = (replace(spec, shape=(batch_axis, 3, side, side)),)
        self.outputs: Sequence[TensorSpec] = self._real.outputs
        self.metadata: Mapping[str, str] = {}
        self._flat = flat
        self.calls: list[tuple[int, ...]] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        shape = feeds["input.1"].shape
        self.calls.append(shape)
        outputs = self._real.run(feeds)
        if not self._flat:
            return outputs
        # insightface's own export: permute(2, 3, 0, 1).reshape(-1, k), which lays the pictures of a batch between each
        # other.
        return [
            output.reshape(shape[0], -1, 2, output.shape[-1]).swapaxes(0, 1).reshape(-1, output.shape[-1])
            for output in outputs
        ]

    def close(self) -> None:
        self._real.close()


def assert_same(ours: Detections, reference: tuple[Any, Any]) -> None:
    found, landmarks = reference
    np.testing.assert_allclose(ours.boxes, found[:, :4], atol=0.01)
    np.testing.assert_allclose(ours.scores, found[:, 4], atol=1e-5)
    np.testing.assert_allclose(ours.landmarks, landmarks, atol=0.01)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(batch_axis=None, flat=False),
        Variant(batch_axis=None, flat=True),
        Variant(batch_axis=1, flat=True),
        Variant(batch_axis=1, flat=False),
        Variant(batch_axis=None, flat=False, side=640),
    ],
)
def test_every_export_of_a_graph_finds_the_same_faces(variant: Variant) -> None:
    t1 = pixels(T1)
    detector = Detector(variant)
    for picture in (t1, np.ascontiguousarray(t1[:, :700]), np.ascontiguousarray(np.rot90(t1)), t1[:100, :100]):
        assert_same(detector.detect(picture, 0.3), reference_detections(picture, 0.3))


def test_a_graph_for_another_size_gets_pictures_of_that_size() -> None:
    variant = Variant(batch_axis=None, flat=False, side=320)
    found = Detector(variant).detect(pixels(T1), 0.5)
    assert variant.calls[-1] == (1, 3, 320, 320)
    assert len(found.scores) == 6


class Constant:
    """A graph of 15 outputs that answers the same for every picture: one face at the fifth level's last point."""

    metadata: Mapping[str, str] = {}

    def __init__(self, *, outputs: int = 15, shape: tuple[int | None, ...] = (None, 3, 640, 640)) -> None:
        self.inputs: Sequence[TensorSpec] = (TensorSpec("in", np.dtype(np.float32), shape),)
        self.outputs: Sequence[TensorSpec] = (TensorSpec("out", np.dtype(np.float32), (None, None, None)),) * outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        batch = len(feeds["in"])
        arrays = [
            np.zeros((batch, (640 // stride) ** 2, k), np.float32)
            for k in (1, 4, 10)
            for stride in (8, 16, 32, 64, 128)
        ]
        arrays[4][:, -1] = 0.9
        arrays[9][:, -1] = 0.5
        arrays[14][:, -1] = 0.25
        return arrays

    def close(self) -> None: ...


def test_a_graph_of_five_levels_is_decoded() -> None:
    found = Detector(Constant()).detect(np.zeros((1280, 1280, 3), np.uint8), 0.5)
    np.testing.assert_array_equal(found.boxes, [[896, 896, 1152, 1152]])
    np.testing.assert_array_equal(found.landmarks, np.full((1, 5, 2), 2 * (512 + 0.25 * 128)))


@pytest.mark.parametrize(
    ("outputs", "what"), [(6, "no landmarks"), (10, "no landmarks"), (1, "no SCRFD"), (12, "no SCRFD")]
)
def test_a_graph_that_cannot_serve_recognition_is_refused(outputs: int, what: str) -> None:
    with pytest.raises(ModelUnavailable, match=what):
        Detector(Constant(outputs=outputs))


def test_a_graph_that_takes_no_picture_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match=r"shape \(n, 3, height, width\)"):
        Detector(Constant(shape=(None, 52)))


def test_a_threshold_of_nothing_ends_with_the_best_faces_only() -> None:
    found = Detector(opened(FILES["detection/model.onnx"])).detect(pixels(T1), 0.0)
    assert len(found.scores) == MAX_FACES
    assert_same(
        Detections(found.boxes[:6], found.scores[:6], found.landmarks[:6]), reference_detections(pixels(T1), 0.5)
    )


@settings(deadline=None)
@given(boxes)
def test_suppression_agrees_with_insightface(rows: list[tuple[int, int, int, int, int]]) -> None:
    from insightface.model_zoo.scrfd import SCRFD

    reference = SCRFD.__new__(SCRFD)
    reference.nms_thresh = 0.4
    dets = np.array([(x, y, x + w, y + h, score / 20) for x, y, w, h, score in rows], np.float32).reshape(-1, 5)
    assert non_maximum_suppression(dets[:, :4], dets[:, 4], 0.4).tolist() == [int(i) for i in reference.nms(dets)]


@settings(deadline=None)
@given(boxes, st.floats(0, 1))
def test_boxes_that_stay_overlap_little_and_those_that_went_overlap_a_better_one(
    rows: list[tuple[int, int, int, int, int]], most: float
) -> None:
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[4] for row in rows], np.float32)
    kept = non_maximum_suppression(corners, scores, most).tolist()

    def overlap(i: int, j: int) -> float:
        cells = [
            {(x, y) for x in range(int(a), int(c) + 1) for y in range(int(b), int(d) + 1)}
            for a, b, c, d in corners[[i, j]]
        ]
        return len(cells[0] & cells[1]) / len(cells[0] | cells[1])

    slack = 1e-6
    assert all((np.diff(scores[kept]) <= 0).tolist())
    assert all(overlap(i, j) <= most + slack for n, i in enumerate(kept[:6]) for j in kept[:n])
    for gone in list(set(range(len(rows))) - set(kept))[:6]:
        assert any(scores[i] >= scores[gone] and overlap(i, gone) > most - slack for i in kept)


@settings(deadline=None)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_a_letterbox_fits_and_keeps_the_shape(width: int, height: int) -> None:
    canvas = np.full((640, 640, 3), 7, np.uint8)
    scale = letterbox(np.full((height, width, 3), 255, np.uint8), canvas)
    assert set(np.unique(canvas)) <= {0, 255}
    filled = canvas.any(axis=(1, 2)).sum(), canvas.any(axis=(0, 2)).sum()
    assert max(filled) == 640
    assert canvas[: filled[0], : filled[1]].all()
    assert abs(min(filled) - max(1, 640 * min(width, height) / max(width, height))) < 1.000001
    assert scale == filled[0] / height


def test_anchors_run_along_the_rows_with_all_of_a_point_together() -> None:
    points, strides = anchors((32, 16), (8, 16), 2)
    x_y = [(x, y) for y in (0, 8) for x in (0, 8, 16, 24)] + [(0, 0), (16, 0)]
    np.testing.assert_array_equal(points, np.repeat(np.array(x_y, np.float32), 2, axis=0))
    np.testing.assert_array_equal(strides, [8] * 16 + [16] * 4)
