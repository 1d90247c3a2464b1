"""Views of a picture for the detector of faces: turned by quarters, within a border, or a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32
from runners.faces.alignment import Pixels
from runners.faces.detection import MAX_FACES, MAX_OVERLAP, Detections, non_maximum_suppression


@dataclass(frozen=True, slots=True)
class View:
    """A picture as the detector is to see it, on a canvas of its own size or smaller."""

    canvas: Pixels
    turns: int
    """Quarter turns to the left that were made of the picture."""
    shift: tuple[int, int]
    """Place of the picture's top left corner on the canvas, x and y in pixels."""
    size: tuple[int, int]
    """Width and height of the picture on the canvas, before it was turned."""


def nothing() -> Detections:
    """Return the detections of a picture without faces."""
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


def views_of(picture: Pixels, size: tuple[int, int], turned: Sequence[tuple[int, float]]) -> list[View]:
    """Show ``picture`` on canvases of ``size``.

    ``turned``: quarter turns to the left, and border in widths of the picture, of each.
    """
    height, width = picture.shape[:2]
    scaled: dict[tuple[int, int], Pixels] = {}
    views = []
    for turns, border in turned:
        room = size if turns % 2 == 0 else size[::-1]
        scale = min(room[0] / width, room[1] / height) / (1 + 2 * border)
        shown = max(1, round(width * scale)), max(1, round(height * scale))
        if shown not in scaled:  # views of one size are turned copies of each other
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            scaled[shown] = np.asarray(cv2.resize(picture, shown, interpolation=how), np.uint8)
        small = np.rot90(scaled[shown], turns)
        canvas = np.zeros((size[1], size[0], 3), np.uint8)
        left, top = round(shown[0] * border), round(shown[1] * border)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        views.append(View(canvas, turns, (left, top), shown))
    return views


def in_picture(found: Detections, view: View, picture: tuple[int, int]) -> Detections:
    """Return what was found in ``view`` in pixels of a picture of the size ``picture``, (width, height)."""
    corners = _points(found.boxes.reshape(-1, 2, 2), view, picture)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return Detections(boxes, found.scores, _points(found.landmarks, view, picture))


def shifted(found: Detections, by: tuple[int, int]) -> Detections:
    """Return the faces of a part of a picture whose top left corner is at ``by``, in pixels of the whole."""
    return Detections(
        (found.boxes + np.array([*by, *by], np.float32)).astype(np.float32),
        found.scores,
        (found.landmarks + np.array(by, np.float32)).astype(np.float32),
    )


def joined(parts: Sequence[Detections]) -> Detections:
    """Return the faces of all ``parts``, at least one, each face once: the best of those that overlap."""
    boxes, scores = np.concatenate([one.boxes for one in parts]), np.concatenate([one.scores for one in parts])
    landmarks = np.concatenate([one.landmarks for one in parts])
    kept: NDArray[np.intp] = non_maximum_suppression(boxes, scores, MAX_OVERLAP)[:MAX_FACES]
    return Detections(boxes[kept], scores[kept], landmarks[kept])


def _points(points: Float32, view: View, picture: tuple[int, int]) -> Float32:
    """Return ``points``, (n, k, 2), of a canvas in pixels of the picture."""
    x, y = points[..., 0] - view.shift[0], points[..., 1] - view.shift[1]
    width, height = view.size
    turned = [(x, y), (width - y, x), (width - x, height - y), (y, height - x)][view.turns]
    scale = np.array(picture, np.float32) / np.array(view.size, np.float32)
    return np.asarray(np.stack(turned, axis=-1) * scale, np.float32)
