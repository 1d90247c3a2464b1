"""A second look for faces, at pictures in which the first found none.

SCRFD misses a face that fills its picture, one that lies or stands on its head, and one that shrinks to a few pixels
because its picture is very long. So such a picture is looked at again: with a border, turned by quarters, and in tiles
where it is long. All four views fit into one picture of the detector's size, at half of the scale; only what shows
there is looked at once more as large as can be. A picture without faces thus costs one more call of the detector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32
from runners.faces.alignment import Pixels
from runners.faces.detection import MAX_FACES, MAX_OVERLAP, Detections, Detector, non_maximum_suppression

LONG = 2.5
"""Ratio of the sides from which on a picture is cut into tiles."""
_MOST_TILES = 24
_HINT = 0.25
"""Score at which what shows at half of the scale is looked at larger."""
_BORDER = 0.5
"""Width of the border on each side, in widths of the picture."""


@dataclass(frozen=True, slots=True)
class _View:
    """A picture as the detector is to see it, on a canvas of its own size or smaller."""

    canvas: Pixels
    turns: int
    """Quarter turns to the left that were made of the picture."""
    shift: tuple[int, int]
    """Where the picture's top left corner is on the canvas, x and y in pixels."""
    size: tuple[int, int]
    """Width and height of the picture on the canvas, before it was turned."""


def second_look(detector: Detector, picture: Pixels, min_score: float) -> Detections:
    """Return the faces of ``picture`` that score at least ``min_score`` in one of the further views, in its own pixels.

    There may be none.
    """
    height, width = picture.shape[:2]
    if max(height, width) >= LONG * min(height, width):
        return _in_tiles(detector, picture, min_score)
    shrink = min(1.0, max(detector.size) / max(height, width))
    small = cv2.resize(picture, (max(1, round(width * shrink)), max(1, round(height * shrink))))  # once for all views
    views = [_view(small, detector.size, turns, border=_BORDER * (turns == 0)) for turns in range(4)]
    (hints,) = detector.detect([_mosaic([view.canvas for view in views], detector.size)], [min(_HINT, min_score)])
    for place in _likely(hints, detector.size):
        (found,) = detector.detect([views[place].canvas], [min_score])
        if len(found.scores):
            return _in_picture(found, views[place], (width, height))
    return nothing()


def nothing() -> Detections:
    """Return the detections of a picture without faces."""
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


def _view(picture: Pixels, size: tuple[int, int], turns: int, border: float) -> _View:
    """Show ``picture`` on a canvas of ``size``, turned to the left ``turns`` times, with a border (in its widths)."""
    height, width = picture.shape[:2]
    room = size if turns % 2 == 0 else size[::-1]
    scale = min(room[0] / width, room[1] / height) / (1 + 2 * border)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.rot90(cv2.resize(picture, shown, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), turns)
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = round(shown[0] * border), round(shown[1] * border)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return _View(canvas, turns, (left, top), shown)


def _mosaic(canvases: Sequence[Pixels], size: tuple[int, int]) -> Pixels:
    """Return four canvases at half of their scale, two by two on one of ``size``."""
    halves = [cv2.resize(canvas, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA) for canvas in canvases]
    mosaic = np.zeros((size[1], size[0], 3), np.uint8)
    for place, half in enumerate(halves):
        top, left = (place // 2) * half.shape[0], (place % 2) * half.shape[1]
        mosaic[top : top + half.shape[0], left : left + half.shape[1]] = half
    return mosaic


def _likely(hints: Detections, size: tuple[int, int]) -> list[int]:
    """Return the views in which a face may show, by its score in the mosaic."""
    centres = (hints.boxes[:, :2] + hints.boxes[:, 2:]) / 2
    places = 2 * (centres[:, 1] >= size[1] // 2) + (centres[:, 0] >= size[0] // 2)
    return list(dict.fromkeys(places.astype(int).tolist()))


def _in_picture(found: Detections, view: _View, picture: tuple[int, int]) -> Detections:
    """Return what was found in ``view`` in pixels of a picture of the size ``picture``, (width, height)."""
    corners = _points(found.boxes.reshape(-1, 2, 2), view, picture)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return Detections(boxes, found.scores, _points(found.landmarks, view, picture))


def _points(points: Float32, view: _View, picture: tuple[int, int]) -> Float32:
    """Return ``points``, (n, k, 2), of a canvas in pixels of the picture."""
    x, y = points[..., 0] - view.shift[0], points[..., 1] - view.shift[1]
    width, height = view.size
    turned = [(x, y), (width - y, x), (width - x, height - y), (y, height - x)][view.turns]
    scale = np.array(picture, np.float32) / np.array(view.size, np.float32)
    return np.asarray(np.stack(turned, axis=-1) * scale, np.float32)


def _in_tiles(detector: Detector, picture: Pixels, min_score: float) -> Detections:
    """Find faces in tiles of a long picture, which overlap by half and are as wide as it is high, or a little more."""
    height, width = picture.shape[:2]
    long, short = max(height, width), min(height, width)
    count = min(_MOST_TILES, math.ceil(2 * long / short) - 1)
    side = math.ceil(2 * long / (count + 1))
    starts = [round(number * (long - side) / max(1, count - 1)) for number in range(count)]
    found: list[Detections] = []
    for begin in range(0, count, detector.batch):
        some = starts[begin : begin + detector.batch]
        tiles = [picture[:, at : at + side] if width >= height else picture[at : at + side] for at in some]
        found += [
            _shifted(faces, (at, 0) if width >= height else (0, at))
            for at, faces in zip(some, detector.detect(tiles, [min_score] * len(tiles)), strict=True)
        ]
    boxes, scores = np.concatenate([one.boxes for one in found]), np.concatenate([one.scores for one in found])
    landmarks = np.concatenate([one.landmarks for one in found])
    kept: NDArray[np.intp] = non_maximum_suppression(boxes, scores, MAX_OVERLAP)[:MAX_FACES]
    return Detections(boxes[kept], scores[kept], landmarks[kept])


def _shifted(found: Detections, by: tuple[int, int]) -> Detections:
    return Detections(
        (found.boxes + np.array([*by, *by], np.float32)).astype(np.float32),
        found.scores,
        (found.landmarks + np.array(by, np.float32)).astype(np.float32),
    )
