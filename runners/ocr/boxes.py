"""Boxes of text lines from a map of probabilities.

This is the box formation of DB (Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", AAAI
2020, arXiv:1911.08947, section 3.5).

The network is trained on shrunk text regions. Each connected region above a threshold becomes a rectangle, which is
scored by the mean probability inside it and grown back by the offset D = A * r / L (area, unclip ratio, perimeter).
Thresholds, filters and rounding are those of RapidOCR 3.10, whose boxes these equal within a pixel, but for the order
of the corners of what leans, and for how many there are at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32

SMALLEST_SIDE = 4
"""Pixels of the picture; boxes with a shorter side are left out."""
_THRESHOLD = 0.3
"""Probability above which a pixel belongs to a region."""
_UNCLIP_RATIO = 1.6
_MIN_REGION_SIDE, _MIN_BOX_SIDE = 3, 5
"""Pixels of the map, before and after growing."""
_DILATION = np.ones((2, 2), np.uint8)


@dataclass(frozen=True, slots=True)
class TextBoxes:
    """Lines of text found in one picture, in no particular order."""

    boxes: Float32
    """(n, 4, 2) float32: corners clockwise from the top left, x and y in pixels of the picture."""
    scores: Float32
    """(n,) float32, 0 to 1: mean probability of text inside the box."""
    left_out: int = 0
    """Regions that were not looked at, because the picture has more than are."""


def find_boxes(probabilities: Float32, size: tuple[int, int], min_score: float, max_boxes: int) -> TextBoxes:
    """Find the text lines in ``probabilities``, (h, w) float32, 0 to 1, of a picture of ``size`` (width, height).

    The map is scaled to the picture. Boxes that score below ``min_score`` (0 to 1) are left out. Of more than
    ``max_boxes`` regions as many are looked at, spread evenly over the picture.
    """
    regions = cv2.dilate((probabilities > _THRESHOLD).astype(np.uint8), _DILATION)
    contours, _ = cv2.findContours(regions, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    looked_at, left_out = _thinned(contours, max_boxes)
    found = list(_boxes(looked_at, probabilities, size, min_score))
    return text_boxes([box for box, _ in found], [score for _, score in found], left_out)


def text_boxes(boxes: Sequence[Float32], scores: Sequence[float], left_out: int = 0) -> TextBoxes:
    """Collect ``boxes``, (4, 2) each, and their scores, as many."""
    return TextBoxes(
        np.asarray(boxes, np.float32).reshape(-1, 4, 2), np.asarray(scores, np.float32).reshape(-1), left_out
    )


def _thinned(contours: Sequence[NDArray[np.int32]], most: int) -> tuple[Sequence[NDArray[np.int32]], int]:
    """Return at most ``most`` of the contours, and how many more there are that are large enough for a box.

    OpenCV lists them from the bottom of the picture to its top, so that every n-th of them are everywhere.
    """
    if len(contours) <= most:
        return contours, 0
    large = [contour for contour in contours if min(cv2.boundingRect(contour)[2:]) > _MIN_REGION_SIDE]
    if len(large) <= most:
        return large, 0
    return [large[place] for place in np.linspace(0, len(large) - 1, most).round().astype(int)], len(large) - most


def _boxes(
    contours: Sequence[NDArray[np.int32]], probabilities: Float32, size: tuple[int, int], min_score: float
) -> Iterator[tuple[Float32, float]]:
    height, width = probabilities.shape
    scale = np.array([size[0] / width, size[1] / height])
    for contour in contours:
        _, sides, _ = core = cv2.minAreaRect(contour)
        if min(sides) < _MIN_REGION_SIDE:
            continue
        corners = cv2.boxPoints(core)
        score = _mean_inside(probabilities, corners)
        if score < min_score:
            continue
        grown, grown_sides = _grow(corners, sides)
        if min(grown_sides) < _MIN_BOX_SIDE:
            continue
        box = np.clip(np.round(clockwise(grown * scale)), 0, np.array(size) - 1)
        if min(int(np.linalg.norm(box[0] - box[1])), int(np.linalg.norm(box[0] - box[3]))) >= SMALLEST_SIDE:
            yield box.astype(np.float32), score


def _mean_inside(probabilities: Float32, corners: NDArray[np.floating]) -> float:
    """Return the mean of ``probabilities`` inside the quadrilateral ``corners``, (4, 2)."""
    height, width = probabilities.shape
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width - 1, height - 1))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(corners - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(probabilities[top : bottom + 1, left : right + 1], mask)[0])


def _grow(corners: NDArray[np.floating], sides: Sequence[float]) -> tuple[NDArray[np.floating], Sequence[float]]:
    """Move all sides of a rectangle outwards; return its corners and sides. Corners are first cut to whole pixels."""
    offset = sides[0] * sides[1] * _UNCLIP_RATIO / (2 * (sides[0] + sides[1]))
    centre, (width, height), angle = cv2.minAreaRect(corners.astype(np.int32))
    grown = width + 2 * offset, height + 2 * offset
    return cv2.boxPoints((centre, grown, angle)), grown


def clockwise(corners: NDArray[np.floating]) -> NDArray[np.floating]:
    """Order the corners of a rectangle, (4, 2), given one after another in either sense, clockwise from its top left.

    Its top is the side that is least steep, seen from left to right: a rectangle keeps its top however it leans, up to
    45 degrees either way.
    """
    (ax, ay), (bx, by), (cx, cy), _ = corners.tolist()
    if (bx - ax) * (cy - by) < (by - ay) * (cx - bx):  # y is downwards: they run counter-clockwise
        corners = corners[::-1]
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = np.maximum(np.hypot(sides[:, 0], sides[:, 1]), 1e-9)
    return np.roll(corners, -int(np.argmax(sides[:, 0] / lengths)), axis=0)
