"""Detection of text lines: PP-OCR's detector (DB, differentiable binarization) over a ``Session``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from runners.contract import Float32
from runners.engine.buffers import Buffers
from runners.engine.session import Session
from runners.ocr.boxes import SMALLEST_SIDE, TextBoxes, find_boxes, text_boxes
from runners.pictures.detection_size import MAX_TILE_PIXELS, STRIDE, DetectionSize

TILE_SIDE = 1440
TILE_MARGIN = 96
"""Pixels at a cut whose answer is taken from the neighbouring tile, because the network saw too little around them."""
RATIOS = (1, 9 / 8, 5 / 4, 4 / 3, 3 / 2, 5 / 3, 16 / 9, 2, 13 / 6, 5 / 2, 3, 7 / 2)
"""Long side to short side of the shapes that the network sees: those of cameras and screens, and some between them.

OpenVINO keeps 4 to 5 MB for each shape that it has met (59 shapes: 274 MB), so there must be few."""
_STRIP_GROWTH = 1.4
"""Ratio of one shape to the next beyond those: strips of text, panoramas."""
SHORT_SIDES = (64, 128, 192, 256, 384, 512, 640, 736)
"""Pixels: short sides of shapes up to Immich's default of ``maxResolution``; longer ones are not padded."""
_BUFFERS = Buffers()
# The scaled picture and its channels: arrays of their own for each picture cost 1,400 page faults.
_SEEN, _CHANNELS = Buffers(), Buffers()


def detect(
    session: Session, pixels: NDArray[np.uint8], *, size: DetectionSize, min_score: float, max_boxes: int
) -> TextBoxes:
    """Find the lines of text in ``pixels``, (h, w, 3) uint8 RGB, seen at ``size``.

    Boxes that score below ``min_score`` (0 to 1) are left out. ``max_boxes``: see ``find_boxes``.
    """
    height, width = pixels.shape[:2]
    if min(height, width) <= SMALLEST_SIDE:  # boxes are at least this high and wide
        return text_boxes([], [])
    with _SEEN.borrow((size.height, size.width, 3), np.uint8) as seen:
        _resize(pixels, seen)
        probabilities = text_probabilities(session, seen)
    return find_boxes(probabilities, (width, height), min_score, max_boxes)


def text_probabilities(session: Session, pixels: NDArray[np.uint8]) -> Float32:
    """Return the probability, 0 to 1, that each pixel of ``pixels`` belongs to the core of a text.

    ``pixels``: (h, w, 3) uint8 RGB; the result is (h, w) float32. A picture above ``MAX_TILE_PIXELS`` is seen in
    overlapping tiles of one shape, whose answers are joined in the middle of their overlaps, before boxes are sought,
    so that a line that crosses a join stays one line. Pictures are not stacked into a batch: on a CPU that is no faster
    (70, 73 and 73 ms a picture in OpenVINO for 1, 2 and 4 at 736 x 992), and memory grows.
    """
    height, width = pixels.shape[:2]
    tile_height, tile_width = tile_size(height, width)
    name = session.inputs[0].name
    with _BUFFERS.borrow((1, 3, *padded_size(tile_height, tile_width)), np.float32) as planes:
        if (tile_height, tile_width) == (height, width):
            _normalise(pixels, planes[0])
            return session.run({name: planes})[0][0, 0, :height, :width]
        joined = np.empty((height, width), np.float32)
        for top, y_from, y_to in _spans(height, tile_height):
            for left, x_from, x_to in _spans(width, tile_width):
                _normalise(pixels[top : top + tile_height, left : left + tile_width], planes[0])
                answer = session.run({name: planes})[0][0, 0]
                joined[y_from:y_to, x_from:x_to] = answer[y_from - top : y_to - top, x_from - left : x_to - left]
    return joined


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the tiles of a ``height`` x ``width`` picture: its own where it is small enough."""
    if height * width <= MAX_TILE_PIXELS:
        return height, width
    if min(height, width) > TILE_SIDE:
        return TILE_SIDE, TILE_SIDE
    long = MAX_TILE_PIXELS // min(height, width) // STRIDE * STRIDE
    return (height, long) if height <= width else (long, width)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width that a tile of ``height`` x ``width`` is padded to: one of few, and little larger.

    The short side grows to the next of ``SHORT_SIDES``, the long one to the next of ``RATIOS`` times it or of a
    geometric series beyond, within ``MAX_TILE_PIXELS``.
    """
    short, long = sorted((height, width))
    wanted = next((side for side in SHORT_SIDES if short <= side and side * long <= MAX_TILE_PIXELS), short)
    short = wanted if short < SHORT_SIDES[-1] and wanted <= long else short
    longest = MAX_TILE_PIXELS // short // STRIDE * STRIDE
    if wanted > long:  # nor does the long side grow to where the short one would: that shape is padded to another
        longest = min(longest, wanted - STRIDE)
    sides = (round(short * ratio / STRIDE) * STRIDE for ratio in _ratios(longest / short))
    padded = next((side for side in sides if long <= side <= longest), longest)
    return (short, padded) if height <= width else (padded, short)


def _ratios(largest: float) -> Iterator[float]:
    """Yield ``RATIOS``, then those of strips up to ``largest``."""
    yield from RATIOS
    ratio = RATIOS[-1] * _STRIP_GROWTH
    while ratio <= largest:
        yield ratio
        ratio *= _STRIP_GROWTH


def _spans(length: int, tile: int) -> Iterator[tuple[int, int, int]]:
    """Yield the start of each tile along an axis, and the first and last pixel (exclusive) taken from it.

    The ranges cover the axis once.
    """
    count = 1 if tile >= length else math.ceil((length - 2 * TILE_MARGIN) / (tile - 2 * TILE_MARGIN))
    starts = [round(index * (length - tile) / max(1, count - 1)) for index in range(count)]
    cuts = [0, *((start + before + tile) // 2 for before, start in pairwise(starts)), length]
    yield from ((start, *span) for start, span in zip(starts, pairwise(cuts), strict=True))


def _resize(pixels: NDArray[np.uint8], into: NDArray[np.uint8]) -> None:
    """Scale ``pixels`` to the size of ``into``."""
    height, width = into.shape[:2]
    # Bilinear is what PP-OCR was trained with. Beyond a factor of two it skips pixels, and thin strokes with them.
    shrinks = pixels.shape[1] > 2 * width or pixels.shape[0] > 2 * height
    cv2.resize(pixels, (width, height), dst=into, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _normalise(pixels: NDArray[np.uint8], planes: Float32) -> None:
    """Write ``pixels`` to the top left of ``planes``, (3, h, w) float32, -1 to 1, blue first, as PP-OCR was trained.

    The rest is mid grey (0), which equals the zero padding of a convolution.
    """
    height, width = pixels.shape[:2]
    with _CHANNELS.borrow((height, width), np.uint8) as channel:
        # Plane by plane: numpy is twice as fast on contiguous ones.
        for place, plane in enumerate(planes[::-1, :height, :width]):
            cv2.extractChannel(pixels, place, channel)
            np.multiply(channel, np.float32(1 / 127.5), out=plane)
            plane -= 1
    planes[:, height:] = 0
    planes[:, :height, width:] = 0
