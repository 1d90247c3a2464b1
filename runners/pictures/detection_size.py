"""The size at which OCR looks for text in a picture. Needs no pixels and no engine: it also decides what OCR costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

STRIDE = 32
"""OCR's network halves its input five times: both sides are multiples of this."""
MAX_PIXELS = 2**24
"""Pixels of the picture that OCR looks at. 736 on the short side of a 1080 x 20000 screenshot is 10 million; only
stranger shapes are capped.
"""
MAX_TILE_PIXELS = 2**21
"""Pixels that OCR's network sees at once; it takes about 250 bytes of memory for each (half a gigabyte in all)."""


@dataclass(frozen=True, slots=True)
class DetectionSize:
    """Width and height, in pixels, at which text is looked for."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Return the number of pixels."""
        return self.width * self.height


def detection_size(width: int, height: int, max_resolution: int) -> DetectionSize:
    """Return the size at which text is looked for in a picture of ``width`` x ``height`` pixels.

    As in Immich the short side becomes ``max_resolution``, and a picture is never enlarged, but for rounding both sides
    to multiples of ``STRIDE``. The area is held below ``MAX_PIXELS`` by shrinking both sides alike, until the short one
    is ``STRIDE``; from there the long one alone.
    """
    return _scaled(width, height, min(1.0, max_resolution / min(width, height)), MAX_PIXELS)


def enlarged_detection_size(width: int, height: int, max_resolution: int) -> DetectionSize | None:
    """Return the size for a second look at a picture that was seen smaller than ``max_resolution``, else None.

    The short side becomes ``max_resolution``, as in RapidOCR, within the pixels of one tile.
    """
    if min(width, height) >= max_resolution:
        return None
    first = detection_size(width, height, max_resolution)
    second = _scaled(width, height, max_resolution / min(width, height), MAX_TILE_PIXELS)
    return second if second.pixels > first.pixels else None


def _scaled(width: int, height: int, scale: float, most_pixels: int) -> DetectionSize:
    scale = min(scale, math.sqrt(most_pixels / (width * height)))
    short, long = (max(STRIDE, round(int(side * scale) / STRIDE) * STRIDE) for side in sorted((width, height)))
    long = max(STRIDE, min(long, most_pixels // short // STRIDE * STRIDE))
    return DetectionSize(short, long) if width <= height else DetectionSize(long, short)
