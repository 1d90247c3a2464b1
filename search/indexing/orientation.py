"""A camera's picture as ``/predict`` wants it: with its top at the top. Immich sends upright previews, so the tag is
ignored there.
"""

from __future__ import annotations

import io

from PIL import Image

from runners.pictures.decode import decode
from runners.pictures.header import FORMATS, read_header

_ORIENTATION = 0x0112
"""EXIF tag (Exif 2.32, 4.6.4 A): 1 upright, 2 to 8 turned or mirrored."""
_QUALITY = 95
"""JPEG quality of a picture that had to be encoded again. Fine print loses nothing that a reader could tell."""


def upright(data: bytes, *, max_pixels: int) -> bytes:
    """Return ``data`` itself, or the picture turned by its EXIF orientation as JPEG.

    Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE.
    """
    read_header(data, max_pixels=max_pixels)
    if orientation(data) == 1:
        return data
    return to_jpeg(Image.fromarray(decode(data, max_pixels=max_pixels, upright=True).pixels))


def upright_pixels(data: bytes, *, max_pixels: int, at_least: int) -> Image.Image:
    """Return the picture, RGB, turned by its EXIF orientation; a JPEG may come smaller, with no side below
    ``at_least`` pixels.

    Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE.
    """
    return Image.fromarray(decode(data, max_pixels=max_pixels, at_least=at_least, upright=True).pixels)


def orientation(data: bytes) -> int:
    """Return the picture's EXIF orientation, 1 to 8; 1 if it names none, or nothing that can be read."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - what Pillow raises on damaged metadata is not documented; the picture itself may be whole
        return 1
    return value if value in range(1, 9) else 1


def to_jpeg(image: Image.Image) -> bytes:
    """Return ``image``, RGB, as JPEG without chroma subsampling."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
