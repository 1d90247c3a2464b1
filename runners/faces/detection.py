"""Face detection with SCRFD (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021).

Own code; numbers agree with insightface 2.1 (``model_zoo/scrfd.py``), whose rounding is followed where it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from errors import ModelUnavailable
from runners.contract import Float32
from runners.engine import Session
from runners.engine.buffers import Buffers
from runners.faces.alignment import Pixels
from runners.faces.graph import PictureGraph

MAX_OVERLAP = 0.4
"""Of two boxes whose intersection over union is larger, the one with the lower score is dropped."""

MAX_FACES = 1000
"""Faces in one picture, at most; the best are kept. Below a score of about 0.01 every anchor counts as a face."""

_DEFAULT_SIZE = (640, 640)
_STD = 128.0
_BATCH = 4
# Measured on 2 cores with scrfd_500m: 9.1 ms per picture at 1, 7.2 at 2, 7.9 at 4, 10.7 at 8; memory grows all the way.

LEAST_LIKELY = 0.05
"""Score below which a place is not among the likeliest of a picture in which no face was found."""
_HIGHEST = 64
"""Scores among which these are sought."""
_APART = 24
"""Pixels of the canvas between two of these places, at least."""

# Number of outputs -> strides of the levels, anchors at each point. Outputs are the scores of all levels, then their
# boxes, then their landmarks. Graphs with two kinds of output (6 and 10) have no landmarks.
_LAYOUTS = {9: ((8, 16, 32), 2), 15: ((8, 16, 32, 64, 128), 1)}
_WITHOUT_LANDMARKS = (6, 10)


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces found in one picture, best score first; all arrays have the same length n."""

    boxes: Float32
    """(n, 4) float32: x1, y1, x2, y2 in pixels of the picture; may reach past its edges."""
    scores: Float32
    """(n,) float32, 0 to 1."""
    landmarks: Float32
    """(n, 5, 2) float32: x, y in pixels of left eye, right eye, nose, left and right corner of the mouth."""
    best: float = 0.0
    """Highest score of any place in the picture, be it a face or not; 0 to 1."""
    places: Float32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(k, 3) float32: x, y and score of the likeliest places, best first, where no face was found; else (0, 3).

    A place scores ``LEAST_LIKELY`` at least."""


class Detector:
    """SCRFD over one session. Thread-safe."""

    def __init__(self, session: Session) -> None:
        """Take over ``session``.

        Raises ``ModelUnavailable`` where the graph is no SCRFD with landmarks, which recognition needs.
        """
        outputs = len(session.outputs)
        if outputs in _WITHOUT_LANDMARKS:
            raise ModelUnavailable(
                "the detection graph finds no landmarks (eyes, nose, mouth), without which faces cannot be recognised"
            )
        if outputs not in _LAYOUTS:
            raise ModelUnavailable(f"the detection graph is no SCRFD: it has {outputs} outputs, not 9 or 15")
        self._graph = PictureGraph(session, default_size=_DEFAULT_SIZE, std=_STD, at_most=_BATCH)
        self._layout = strides, _ = _LAYOUTS[outputs]
        self._buffers = Buffers()
        self._levels = len(strides)
        self._points, self._strides = anchors(self._graph.size, *self._layout)

    @property
    def batch(self) -> int:
        """Return the number of pictures in one call of the graph, at most."""
        return self._graph.batch

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the pictures that the graph takes; others are scaled to fit."""
        return self._graph.size

    def detect(self, pictures: Sequence[Pixels], min_scores: Sequence[float]) -> list[Detections]:
        """Return the faces of each picture that score at least that picture's value in ``min_scores``."""
        if not pictures:
            return []
        width, height = self.size
        with self._buffers.borrow((len(pictures), height, width, 3), np.uint8) as canvases:
            scales = [letterbox(picture, canvas) for picture, canvas in zip(pictures, canvases, strict=True)]
            outputs = self._graph.run(list(canvases))
        # (n, anchors of the level, k) each, or one after the other without a batch axis; joined, (n, all anchors, k).
        scores, distances, offsets = (
            np.concatenate([level.reshape(len(pictures), -1, k) for level in outputs[i : i + self._levels]], axis=1)
            for i, k in ((0, 1), (self._levels, 4), (2 * self._levels, 10))
        )
        return [
            self._faces(scores[i, :, 0], distances[i], offsets[i], min_score=min_score, scale=scale)
            for i, (min_score, scale) in enumerate(zip(min_scores, scales, strict=True))
        ]

    def of_size(self, size: tuple[int, int]) -> Detector:
        """Return a detector over the same graph for pictures of another size; of this size where the graph fixes it.

        Closing this one closes both.
        """
        other = copy(self)
        other._graph = self._graph.of_size(size)
        other._points, other._strides = anchors(other._graph.size, *self._layout)
        return other

    def close(self) -> None:
        """Free the graph."""
        self._graph.close()

    def _faces(
        self, scores: Float32, distances: Float32, offsets: Float32, *, min_score: float, scale: float
    ) -> Detections:
        """Decode one picture's faces.

        ``scores``: (anchors,). ``distances``: (anchors, 4), to the sides of the box. ``offsets``: (anchors, 10), to the
        landmarks. Both are in strides.
        """
        near = np.flatnonzero(scores >= min_score)
        points, strides, shrunk = self._points[near], self._strides[near, np.newaxis], np.float32(scale)
        reach = distances[near] * strides
        boxes = np.hstack([points - reach[:, :2], points + reach[:, 2:]]) / shrunk
        landmarks = (points[:, np.newaxis] + (offsets[near] * strides).reshape(-1, 5, 2)) / shrunk
        kept = non_maximum_suppression(boxes, scores[near], MAX_OVERLAP)[:MAX_FACES]
        places = np.zeros((0, 3), np.float32) if kept.size else self._places(scores, distances, shrunk)
        return Detections(
            boxes[kept], scores[near][kept], landmarks[kept], best=float(scores.max(initial=0)), places=places
        )

    def _places(self, scores: Float32, distances: Float32, scale: np.float32) -> Float32:
        """Return ``Detections.places``: the middles of the highest scores' boxes, a little apart from each other."""
        likely = np.flatnonzero(scores >= LEAST_LIKELY)
        highest = likely[np.argsort(-scores[likely], kind="stable")][:_HIGHEST]
        reach = distances[highest] * self._strides[highest, np.newaxis]
        middles = self._points[highest] + (reach[:, 2:] - reach[:, :2]) / 2
        kept: list[tuple[float, float, float]] = []
        for x, y, score in np.column_stack([middles, scores[highest]]).tolist():
            if all(max(abs(x - other[0]), abs(y - other[1])) >= _APART for other in kept):
                kept.append((x, y, score))
        places = np.array(kept, np.float32).reshape(-1, 3)
        places[:, :2] /= scale
        return places


def letterbox(picture: Pixels, canvas: Pixels) -> float:
    """Scale a picture to fit ``canvas``, write it to its top left and black beside it; return the scale.

    As in the reference, the side that does not fill the canvas is rounded down, and the scale is that of the height for
    both axes (for a 9000 x 1000 panorama, x is off by 0.15 %). A side never falls below one pixel, where the reference
    fails.
    """
    height, width = canvas.shape[:2]
    ratio = picture.shape[0] / picture.shape[1]
    if ratio > height / width:
        width = max(1, int(height / ratio))
    else:
        height = max(1, int(width * ratio))
    cv2.resize(picture, (width, height), dst=canvas[:height, :width])
    canvas[height:] = 0
    canvas[:height, width:] = 0
    return float(height / picture.shape[0])


def anchors(size: tuple[int, int], strides: Sequence[int], per_point: int) -> tuple[Float32, Float32]:
    """Return the anchors of a canvas of ``size`` (width, height), in the order of the graph's outputs.

    Returns (n, 2) float32 x, y in pixels of the canvas, and (n,) float32, the stride of each.
    """
    levels = []
    for stride in strides:
        y, x = np.mgrid[: size[1] // stride, : size[0] // stride]
        levels.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2) * stride, per_point, axis=0))
    points = np.concatenate(levels).astype(np.float32)
    return points, np.repeat(np.array(strides, np.float32), [len(level) for level in levels])


def non_maximum_suppression(boxes: Float32, scores: Float32, max_overlap: float) -> NDArray[np.intp]:
    """Return the indices of the boxes that are kept, best score first (equal scores: in the order given).

    ``boxes``: (n, 4) x1, y1, x2, y2 in whole pixels' corners: a box of one pixel has x1 == x2, hence the + 1 (the
    convention of Fast R-CNN's code, which SCRFD keeps). A box is dropped where its intersection over union with a
    better one that was kept is above ``max_overlap``.
    """
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = boxes[order].T
    areas = (right - left + 1) * (bottom - top + 1)
    waiting = np.arange(len(order))
    kept = []
    while waiting.size:
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        shared = width.clip(0) * height.clip(0)
        with np.errstate(divide="ignore", invalid="ignore"):  # a graph may answer boxes without area
            overlap = shared / (areas[best] + areas[rest] - shared)
        waiting = rest[overlap <= max_overlap]
    return order[np.array(kept, np.intp)]
