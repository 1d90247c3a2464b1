"""Where text is: PP-OCR's detector (DB, differentiable binarization, Liao et al. 2020, arXiv:1911.08947) over a
``Session``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidocr.ch_ppocr_det.utils import DBPostProcess

from runners.contract import Float32
from runners.engine.session import Session

STRIDE = 32
"""The network halves its input five times: both sides are multiples of this."""
MAX_PIXELS = 2**24
"""Pixels of the resized picture. 736 on the short side of a 1080 x 20000 screenshot is 10 million; only stranger shapes
are capped.
"""
MAX_TILE_PIXELS = 2**21
"""Pixels that the network sees at once; it takes about 250 bytes of memory for each (half a gigabyte in all)."""
TILE_SIDE = 1440
TILE_MARGIN = 96
"""Pixels at a cut whose answer is taken from the neighbouring tile, because the network saw too little around them."""
RATIOS = (1, 9 / 8, 5 / 4, 4 / 3, 3 / 2, 5 / 3, 16 / 9, 2, 13 / 6, 5 / 2, 3, 7 / 2)
"""Long side to short side of the shapes that the network sees: those of cameras and screens, and some between them.

OpenVINO keeps 4 to 5 MB for each shape that it has met (59 shapes: 274 MB), so there must be few."""
SMALLEST_SIDE = 4
"""Pixels. The post-processing drops boxes with a side of up to 3, so a picture this narrow never has any."""


@dataclass(frozen=True, slots=True)
class TextBoxes:
    """Lines of text found in one picture, in no particular order."""

    boxes: Float32
    """(n, 4, 2) float32: corners clockwise from the top left, x and y in pixels of the picture."""
    scores: Float32
    """(n,) float32, 0 to 1: mean probability of text inside the box."""


def detect(session: Session, pixels: NDArray[np.uint8], *, max_resolution: int, min_score: float) -> TextBoxes:
    """Find the lines of text in ``pixels``, (h, w, 3) uint8 RGB.

    ``max_resolution``: see ``detection_size``. Boxes that score below ``min_score`` (0 to 1) are left out.
    """
    height, width = pixels.shape[:2]
    if min(height, width) <= SMALLEST_SIDE:
        return _text_boxes([], [])
    size = detection_size(width, height, max_resolution)
    probabilities = text_probabilities(session, _resize(pixels, size))
    # RapidOCR's values (config.yaml, Det). A new one for every call, because its threshold is this job's own.
    find_boxes = DBPostProcess(
        thresh=0.3, box_thresh=min_score, max_candidates=1000, unclip_ratio=1.6, score_mode="fast", use_dilation=True
    )
    boxes, scores = find_boxes(probabilities[None, None], (height, width))
    return _text_boxes(boxes, scores)


def detection_size(width: int, height: int, max_resolution: int) -> tuple[int, int]:
    """Width and height, in pixels, at which text is looked for in a picture of ``width`` x ``height``.

    As in Immich the short side becomes ``max_resolution``, up or down. Both sides are then rounded to multiples of
    ``STRIDE``, and the area is held below ``MAX_PIXELS`` by shrinking both sides alike, until the short one is
    ``STRIDE``; from there the long one alone.
    """
    scale = max_resolution / min(width, height)
    scale = min(scale, math.sqrt(MAX_PIXELS / (width * height)))
    short, long = (max(STRIDE, round(int(side * scale) / STRIDE) * STRIDE) for side in sorted((width, height)))
    long = max(STRIDE, min(long, MAX_PIXELS // short // STRIDE * STRIDE))
    return (short, long) if width <= height else (long, short)


def text_probabilities(session: Session, pixels: NDArray[np.uint8]) -> Float32:
    """(h, w) float32, 0 to 1: how likely each pixel of ``pixels``, (h, w, 3) uint8 RGB, belongs to a text's core.

    A picture above ``MAX_TILE_PIXELS`` is seen in overlapping tiles of one shape, whose answers are joined in the
    middle of their overlaps. The join is one of probabilities, before boxes are sought, so a line that crosses it stays
    one line. Pictures are not stacked into a batch: on a CPU that is no faster (70, 73 and 73 ms a picture in OpenVINO
    for 1, 2 and 4 at 736 x 992), and memory grows.
    """
    height, width = pixels.shape[:2]
    tile_height, tile_width = tile_size(height, width)
    name = session.inputs[0].name
    joined = np.empty((height, width), np.float32)
    for top, y_from, y_to in _spans(height, tile_height):
        for left, x_from, x_to in _spans(width, tile_width):
            tile = pixels[top : top + tile_height, left : left + tile_width]
            answer = session.run({name: _normalise(tile, padded_size(tile_height, tile_width))})[0][0, 0]
            joined[y_from:y_to, x_from:x_to] = answer[y_from - top : y_to - top, x_from - left : x_to - left]
    return joined


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the tiles that a ``height`` x ``width`` picture is seen in; the picture's own where it is
    small enough.
    """
    if height * width <= MAX_TILE_PIXELS:
        return height, width
    if min(height, width) > TILE_SIDE:
        return TILE_SIDE, TILE_SIDE
    long = MAX_TILE_PIXELS // min(height, width) // STRIDE * STRIDE
    return (height, long) if height <= width else (long, width)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of what the network is shown for a tile of ``height`` x ``width``: one of few, and hardly
    larger.

    The long side grows to the next of ``RATIOS`` times the short one, and beyond those to what ``MAX_TILE_PIXELS``
    allows.
    """
    short, long = sorted((height, width))
    longest = MAX_TILE_PIXELS // short // STRIDE * STRIDE
    sides = (round(short * ratio / STRIDE) * STRIDE for ratio in RATIOS)
    padded = next((side for side in sides if long <= side <= longest), longest)
    return (short, padded) if height <= width else (padded, short)


def _spans(length: int, tile: int) -> Iterator[tuple[int, int, int]]:
    """Start of each tile along an axis, and the range of pixels, from and to, that is taken from it. The ranges cover
    the axis once.
    """
    count = 1 if tile >= length else math.ceil((length - 2 * TILE_MARGIN) / (tile - 2 * TILE_MARGIN))
    starts = [round(index * (length - tile) / max(1, count - 1)) for index in range(count)]
    cuts = [0, *((start + before + tile) // 2 for before, start in pairwise(starts)), length]
    yield from ((start, *span) for start, span in zip(starts, pairwise(cuts), strict=True))


def _resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    # Bilinear is what PP-OCR was trained with. Beyond a factor of two it skips pixels, and thin strokes with them.
    shrinks = pixels.shape[1] > 2 * size[0] or pixels.shape[0] > 2 * size[1]
    return np.asarray(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), dtype=np.uint8
    )


def _normalise(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Float32:
    """(1, 3, *size) float32, -1 to 1, blue first: PP-OCR is trained on what OpenCV reads.

    Right of and below ``pixels`` is mid grey (0), which is what a convolution sees past the edge of a picture anyway.
    """
    height, width = pixels.shape[:2]
    whole = (height, width) == size
    planes = np.empty((1, 3, *size), np.float32) if whole else np.zeros((1, 3, *size), np.float32)
    # Plane by plane: numpy is twice as fast on contiguous ones.
    for plane, channel in zip(planes[0, ::-1, :height, :width], cv2.split(pixels), strict=True):
        np.multiply(channel, np.float32(1 / 127.5), out=plane)
        plane -= 1
    return planes


def _text_boxes(boxes: object, scores: object) -> TextBoxes:
    return TextBoxes(
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4, 2), scores=np.asarray(scores, np.float32).reshape(-1)
    )
