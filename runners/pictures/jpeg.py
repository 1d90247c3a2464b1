"""Decoding of JPEGs in one pass of libjpeg-turbo, where that gives exactly the pixels that Pillow gives.

Pillow decodes through a buffer of 4 bytes a pixel, which is copied twice on the way to numpy; simplejpeg writes into
the array. Both do the same arithmetic (libjpeg-turbo, accurate integer DCT, smooth upsampling). Unusual and damaged
files are left to Pillow, so that it alone decides which are refused, and how.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from runners.pictures.metadata import with_end

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: Pillow decodes all
    simplejpeg = None

_COLOURS = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}
"""What simplejpeg decodes to, by the file's colours, where that is not RGB."""
_SCALES = (8, 4, 2)
_SMALLEST_SIDE = 64
"""Pixels. Below it two scales may give the same size, of which libjpeg-turbo takes the smaller."""


def decode_clean(data: bytes, size: tuple[int, int], at_least: int | None = None) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG, (h, w, 3) uint8 RGB, C-contiguous; None where Pillow must decode it.

    That is where its colours are not YCbCr, libjpeg-turbo warns (a file cut short, damaged data) or sees a size other
    than ``size``, (width, height) in pixels, which the caller has judged. ``at_least``: as in
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


def lacks_only_its_end(data: bytes) -> bool:
    """Return whether all pixels of a JPEG are there that has no end-of-image marker. Decodes it.

    False where libjpeg-turbo is not at hand, which alone warns of missing pixels.
    """
    if simplejpeg is None:
        return False
    whole = with_end(data)
    try:
        colours = simplejpeg.decode_jpeg_header(whole)[2]
        simplejpeg.decode_jpeg(whole, _COLOURS.get(colours, "RGB"), min_height=1, min_width=1)
    except ValueError:
        return False
    return True
