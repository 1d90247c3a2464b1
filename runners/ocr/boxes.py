"""Boxes of text lines from a map of probabilities.

This is the box formation of DB (Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", AAAI
2020, arXiv:1911.08947, section 3.5).

The network is trained on shrunk text regions. Each connected region above a threshold becomes a rectangle, which is
scored by the mean probability inside it and grown back by the offset D = A * r / L (area, unclip ratio, perimeter).
Thresholds, filters and rounding are those of RapidOCR 3.10, whose boxes these equal within a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32

MAX_BOXES = 1000
"""Regions that are looked at in one picture."""
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


def find_boxes(probabilities: Float32, size: tuple[int, int], min_score: float) -> TextBoxes:
    """Find the text lines in ``probabilities``, (h, w) float32, 0 to 1, of a picture of ``size`` (width, height).

    The map is scaled to the picture. Boxes that score below ``min_score`` (0 to 1) are left out.
    """
    found = list(_boxes(probabilities, size, min_score))
    return text_boxes([box for box, _ in found], [score for _, score in found])


def text_boxes(boxes: Sequence[Float32], scores: Sequence[float]) -> TextBoxes:
    """Collect ``boxes``, (4, 2) each, and their scores, as many."""
    return TextBoxes(np.asarray(boxes, np.float32).reshape(-1, 4, 2), np.asarray(scores, np.float32).reshape(-1))


def _boxes(probabilities: Float32, size: tuple[int, int], min_score: float) -> Iterator[tuple[Float32, float]]:
    height, width = probabilities.shape
    scale = np.array([size[0] / width, size[1] / height])
    regions = cv2.dilate((probabilities > _THRESHOLD).astype(np.uint8), _DILATION)
    contours, _ = cv2.findContours(regions, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours[:MAX_BOXES]:
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
        box = np.clip(np.round(grown * scale), 0, size)
        box = _clockwise(np.minimum(box, np.array(size) - 1))
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


def _clockwise(corners: NDArray[np.floating]) -> NDArray[np.floating]:
    """Order corners clockwise from the top left: of the two leftmost the upper first, likewise of the two rightmost."""
    by_column = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = (pair[np.argsort(pair[:, 1], kind="stable")] for pair in (by_column[:2], by_column[2:]))
    return np.array([left[0], right[0], right[1], left[1]])
