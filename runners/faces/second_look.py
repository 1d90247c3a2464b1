"""A second look for faces, at pictures in which the first found none.

SCRFD misses a face that fills its picture, one that lies or stands on its head, and one that shrinks to a few pixels
because its picture is very long. So such a picture is looked at again: with a border, turned by quarters, and in tiles
where it is long. All four views fit into one small picture, in which faces that fill a fifth of theirs show; what shows
is looked at once more as large as can be. Smaller faces that are turned raise the scores of the first look, though it
does not find them: then the four views are shown at the detector's own size.

A picture without faces thus costs one call of the detector on a sixth of its pixels. Where all of this finds nothing,
the likeliest places are looked at more closely (``runners.faces.closer_look``), which of large pictures mostly costs as
much again: 9 % of the CPU time of a JPEG of 12 megapixels, and 2 % of one of 1440 x 1080.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from runners.faces.alignment import Pixels
from runners.faces.closer_look import closer_look
from runners.faces.detection import Detections, Detector
from runners.faces.views import in_picture, joined, shifted, views_of

LONG = 2.5
"""Ratio of the sides from which on a picture is cut into tiles."""
_MOST_TILES = 24
OVERVIEW = (256, 256)
"""Width and height of the small picture of all views."""
_HINT, _SMALL_HINT = 0.5, 0.25
"""Scores in the small picture, and in one of the detector's own size, at which a view is looked at larger."""
_UNSURE = 0.3
"""Best score of a first look from which on there may be small faces that are turned. Measured: 0.31 to 0.71 for four
group photos turned by quarters, below 0.3 for 21 of 23 pictures without faces.
"""
_FILLS = 0.5
"""Share of a view's side above which a face is looked at with a border."""
_BORDER = 0.5
"""Width of the border on each side, in widths of the picture."""


def second_look(
    detector: Detector, overview: Detector, picture: Pixels, first: Detections, min_score: float
) -> Detections:
    """Return the faces of ``picture`` that score at least ``min_score`` in one of the further views, in its own pixels.

    There may be none. ``overview``: the detector for pictures of the size ``OVERVIEW``. ``first``: what the first look
    found.
    """
    height, width = picture.shape[:2]
    if max(height, width) >= LONG * min(height, width):
        return _in_tiles(detector, picture, min_score)
    small = _shrunk(picture, detector.size)  # once for all views
    hints = _hints(overview, small, min(_HINT, min_score))
    if not hints and first.best >= _UNSURE:
        hints = _hints(detector, small, min(_SMALL_HINT, min_score))
    for turns, border in hints:
        (view,) = views_of(small, detector.size, [(turns, border)])
        found = detector.detect(view.canvas, min_score)
        if len(found.scores):
            return in_picture(found, view, (width, height))
    return closer_look(detector, overview, picture, first, min_score)


def _shrunk(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """Return ``picture`` no longer than ``size`` is, which it is never enlarged to."""
    height, width = picture.shape[:2]
    scale = min(1.0, max(size) / max(height, width))
    return np.asarray(cv2.resize(picture, (max(1, round(width * scale)), max(1, round(height * scale)))), np.uint8)


def _hints(detector: Detector, picture: Pixels, min_score: float) -> list[tuple[int, float]]:
    """Return the views in which a face may show, best first: quarter turns to the left, and border.

    The picture upright within a border, and turned by one, two and three quarters, are shown two by two.
    """
    width, height = detector.size[0] // 2, detector.size[1] // 2
    mosaic = np.zeros((2 * height, 2 * width, 3), np.uint8)
    views = views_of(picture, (width, height), [(turns, _BORDER * (turns == 0)) for turns in range(4)])
    for number, view in enumerate(views):
        top, left = (number // 2) * height, (number % 2) * width
        mosaic[top : top + height, left : left + width] = view.canvas
    found = detector.detect(mosaic, min_score)
    hints: dict[int, float] = {}
    for x1, y1, x2, y2 in found.boxes:
        turns = 2 * int((y1 + y2) / 2 >= height) + int((x1 + x2) / 2 >= width)
        fills = max((x2 - x1) / width, (y2 - y1) / height) > _FILLS
        hints.setdefault(turns, _BORDER if turns == 0 or fills else 0.0)
    return list(hints.items())


def _in_tiles(detector: Detector, picture: Pixels, min_score: float) -> Detections:
    """Find faces in tiles of a long picture, which overlap by half and are as wide as it is high, or a little more."""
    height, width = picture.shape[:2]
    long, short = max(height, width), min(height, width)
    count = min(_MOST_TILES, math.ceil(2 * long / short) - 1)
    side = math.ceil(2 * long / (count + 1))
    starts = [round(number * (long - side) / max(1, count - 1)) for number in range(count)]
    found: list[Detections] = []
    for at in starts:
        tile = picture[:, at : at + side] if width >= height else picture[at : at + side]
        found.append(shifted(detector.detect(tile, min_score), (at, 0) if width >= height else (0, at)))
    return joined(found)
