"""Face detection with SCRFD (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021).

Own code; numbers agree with insightface 2.1 (``model_zoo/scrfd.py``), whose rounding is followed where it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
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

SIZE = (640, 640)
"""Width and height of the pictures that a graph is shown which leaves them open, as in the reference."""
_STD = 128.0
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

    def __init__(self, session: Session, *, size: tuple[int, int] = SIZE) -> None:
        """Take over ``session``.

        ``size``: width and height of the pictures that the graph is shown, where it leaves them open.

        Raises ``ModelUnavailable`` where the graph is no SCRFD with landmarks, which recognition needs.
        """
        outputs = len(session.outputs)
        if outputs in _WITHOUT_LANDMARKS:
            raise ModelUnavailable(
                "the detection graph finds no landmarks (eyes, nose, mouth), without which faces cannot be recognised"
            )
        if outputs not in _LAYOUTS:
            raise ModelUnavailable(f"the detection graph is no SCRFD: it has {outputs} outputs, not 9 or 15")
        self._graph = PictureGraph(session, default_size=size, std=_STD, at_most=1)
        self._layout = strides, _ = _LAYOUTS[outputs]
        self._buffers = Buffers()
        self._levels = len(strides)
        self._points, self._strides = anchors(self._graph.size, *self._layout)

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the pictures that the graph takes; others are scaled to fit."""
        return self._graph.size

    def detect(self, picture: Pixels, min_score: float) -> Detections:
        """Return the faces of ``picture`` that score at least ``min_score``."""
        width, height = self.size
        with self._buffers.borrow((height, width, 3), np.uint8) as canvas:
            scale = letterbox(picture, canvas)
            outputs = self._graph.run([canvas])
        # (1, anchors of the level, k) each, or without the first axis.
        scores, distances, offsets = (
            [level.reshape(-1, k) for level in outputs[i : i + self._levels]]
            for i, k in ((0, 1), (self._levels, 4), (2 * self._levels, 10))
        )
        return self._faces(np.concatenate(scores)[:, 0], distances, offsets, min_score=min_score, scale=scale)

    def close(self) -> None:
        """Free the graph."""
        self._graph.close()

    def _faces(
        self,
        scores: Float32,
        distances: Sequence[Float32],
        offsets: Sequence[Float32],
        *,
        min_score: float,
        scale: float,
    ) -> Detections:
        """Decode one picture's faces.

        ``scores``: (anchors,), of all levels. ``distances``: (anchors, 4) of each level, to the sides of the box.
        ``offsets``: (anchors, 10) of each level, to the landmarks. Both are in strides.
        """
        near = np.flatnonzero(scores >= min_score)
        points, strides, shrunk = self._points[near], self._strides[near, np.newaxis], np.float32(scale)
        reach = _rows(distances, near) * strides
        boxes = np.hstack([points - reach[:, :2], points + reach[:, 2:]]) / shrunk
        landmarks = (points[:, np.newaxis] + (_rows(offsets, near) * strides).reshape(-1, 5, 2)) / shrunk
        kept = non_maximum_suppression(boxes, scores[near], MAX_OVERLAP)[:MAX_FACES]
        places = np.zeros((0, 3), np.float32) if kept.size else self._places(scores, distances, shrunk)
        return Detections(
            boxes[kept], scores[near][kept], landmarks[kept], best=float(scores.max(initial=0)), places=places
        )

    def _places(self, scores: Float32, distances: Sequence[Float32], scale: np.float32) -> Float32:
        """Return ``Detections.places``: the middles of the highest scores' boxes, a little apart from each other."""
        likely = np.flatnonzero(scores >= LEAST_LIKELY)
        highest = likely[np.argsort(-scores[likely], kind="stable")][:_HIGHEST]
        reach = _rows(distances, highest) * self._strides[highest, np.newaxis]
        middles = self._points[highest] + (reach[:, 2:] - reach[:, :2]) / 2
        near = np.abs(middles[:, np.newaxis] - middles).max(axis=2) < _APART
        kept: list[int] = []
        waiting = np.ones(len(highest), bool)
        while waiting.any():
            best = int(waiting.argmax())
            kept.append(best)
            waiting &= ~near[best]
            waiting[best] = False  # a graph may answer boxes that are no numbers, which are near nothing
        return np.column_stack([middles[kept] / scale, scores[highest[kept]]]).astype(np.float32, copy=False)


def _rows(levels: Sequence[Float32], places: NDArray[np.intp]) -> Float32:
    """Return the rows ``places`` of what ``levels`` are one after the other, without joining them."""
    rows = np.empty((len(places), levels[0].shape[1]), np.float32)
    start = 0
    for level in levels:
        inside = (places >= start) & (places < start + len(level))
        rows[inside] = level[places[inside] - start]
        start += len(level)
    return rows


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
