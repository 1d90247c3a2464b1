"""JPEG files to RGB in one pass of libjpeg-turbo, wherever that gives exactly the pixels that Pillow gives.

Pillow decodes through a buffer of 4 bytes a pixel and hands a copy of a copy to numpy; simplejpeg writes into the array
itself. Both do the same arithmetic (libjpeg-turbo, accurate integer DCT, smooth upsampling). What is not plain, or not
clean, is left to Pillow, so that what is refused, and how, does not depend on which of the two decodes.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow decodes all
    simplejpeg = None

_SCALES = (8, 4, 2)
_SMALLEST_SIDE = 64
"""Pixels. Below it two scales may lead to the same size, of which libjpeg-turbo takes the smaller; and nothing is to be
won.
"""


def decode_clean(data: bytes, size: tuple[int, int], at_least: int | None = None) -> NDArray[np.uint8] | None:
    """Decode a JPEG to (h, w, 3) uint8 RGB, C-contiguous; or return None if Pillow is to decode it.

    That is so if its colours are not YCbCr, or libjpeg-turbo warns of anything (a file cut short, damaged data) or sees
    another size than ``size``, (width, height) in pixels, which the caller has judged. ``at_least``: as in
    ``runners.pictures.decode``; the scale is the one that Pillow's ``draft`` takes. Computes without the GIL.
    """
    if simplejpeg is None or min(size) < _SMALLEST_SIDE:
        return None
    width, height = size
    scale = next((scale for scale in _SCALES if at_least is not None and min(size) // scale >= at_least), 1)
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (found_width, found_height, colours) != (width, height, "YCbCr"):
            return None
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // scale), min_width=-(-width // scale))
    except ValueError:
        return None
    return cast(NDArray[np.uint8], pixels)
