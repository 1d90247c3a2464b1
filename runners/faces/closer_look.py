"""A closer look at the places of a picture where small faces are most likely.

A face that is shrunk to some 15 to 30 pixels is found by the detector with too low a score, and if it is turned with
nearly none; yet it mostly is among the highest scores of a picture in which no face was found. So the surroundings of
these places are cut out of the picture itself, less shrunk, and shown to the detector side by side, in one small
picture: upright where the first look was in doubt. Of large pictures the likeliest places are shown in all four turns
before, still smaller, and looked at larger as a face shows in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from runners.faces.alignment import Pixels
from runners.faces.detection import Detections, Detector
from runners.faces.views import View, in_picture, joined, nothing, shifted

_DOUBT = 0.25
"""Score of a first look from which on a place of a picture that is not large is looked at."""
_HINT = 0.3
"""Score in the smaller views at which a place is looked at again."""
_LARGE = 4.5
"""Longer side of a picture, in sides of the detector's input, from which on places are looked at in all turns. Immich's
previews are smaller (2.25 to 4, with short sides of 1440 pixels): for them it took 2 to 7 % of the throughput of faces.
"""
_WINDOW, _TILE = 72, 128
"""Side of what is cut out, in pixels of the first look, and of its place in the small picture."""
_SMALL_WINDOW, _SMALL_TILE = 48, 64
"""The same for places in all turns."""


@dataclass(frozen=True, slots=True)
class _Square:
    """A part of a picture, scaled to the size of a tile."""

    shown: Pixels
    at: tuple[int, int]
    """Its top left corner, x and y in pixels of the picture."""
    side: int
    """Pixels of the picture."""


def closer_look(
    detector: Detector, overview: Detector, picture: Pixels, first: Detections, min_score: float
) -> Detections:
    """Return the faces of ``picture`` that score at least ``min_score`` around the places of ``first``.

    There may be none. ``overview``: the detector for small pictures. ``first``: what the first look at the whole
    picture found, which is no face.
    """
    height, width = picture.shape[:2]
    shrunk = max(width / detector.size[0], height / detector.size[1])
    scores = first.places[:, 2]
    if shrunk < _LARGE:
        wanted = [(place, 0) for place in np.flatnonzero(scores >= _DOUBT).tolist()]
    else:
        places = range(min(len(scores), _room(overview, _SMALL_TILE) // 4))
        squares = [_square(picture, first, place, _SMALL_WINDOW * shrunk, _SMALL_TILE) for place in places]
        turned = [(place, turns) for place in places for turns in range(4)]
        shown = _found(overview, [(squares[place], turns) for place, turns in turned], min(_HINT, min_score))
        wanted = [one for one, here in zip(turned, shown, strict=True) if len(here.scores)]
    parts = [
        (_square(picture, first, place, _WINDOW * shrunk, _TILE), turns)
        for place, turns in wanted[: _room(overview, _TILE)]
    ]
    return joined(_found(overview, parts, min_score)) if parts else nothing()


def _square(picture: Pixels, first: Detections, place: int, side: float, tile: int) -> _Square:
    """Cut out a square of about ``side`` pixels around a place, and scale it to ``tile`` pixels."""
    height, width = picture.shape[:2]
    whole = max(1, min(round(side), width, height))
    x, y, _ = first.places[place].tolist()
    left, top = max(0, min(round(x - whole / 2), width - whole)), max(0, min(round(y - whole / 2), height - whole))
    # Averaging twice as many pixels as are shown is enough, and a quarter of the work in a large picture.
    step = max(1, whole // (2 * tile))
    part = picture[top : top + whole : step, left : left + whole : step]
    shown = cv2.resize(part, (tile, tile), interpolation=cv2.INTER_AREA if whole > tile else cv2.INTER_LINEAR)
    return _Square(np.asarray(shown, np.uint8), (left, top), whole)


def _room(detector: Detector, tile: int) -> int:
    """Return how many tiles of ``tile`` pixels fit on the canvas of ``detector``."""
    return (detector.size[0] // tile) * (detector.size[1] // tile)


def _found(detector: Detector, parts: Sequence[tuple[_Square, int]], min_score: float) -> list[Detections]:
    """Show all squares, each turned to the left by so many quarters, in one picture; return the faces of each.

    These are in pixels of the picture from which the squares are. All squares are shown at one size.
    """
    if not parts:
        return []
    tile = len(parts[0][0].shown)
    columns = detector.size[0] // tile
    canvas = np.zeros((detector.size[1], detector.size[0], 3), np.uint8)
    corners = [(number % columns * tile, number // columns * tile) for number in range(len(parts))]
    for (square, turns), (x, y) in zip(parts, corners, strict=True):
        canvas[y : y + tile, x : x + tile] = np.rot90(square.shown, turns)
    found = detector.detect(canvas, min_score)
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    faces = []
    for (square, turns), (x, y) in zip(parts, corners, strict=True):
        inside = ((middles >= (x, y)) & (middles < (x + tile, y + tile))).all(axis=1)
        if not inside.any():
            faces.append(nothing())
            continue
        here = shifted(Detections(found.boxes[inside], found.scores[inside], found.landmarks[inside]), (-x, -y))
        view = View(square.shown, turns, (0, 0), (tile, tile))
        faces.append(shifted(in_picture(here, view, (square.side, square.side)), square.at))
    return faces
