"""Encoded bytes from outside to pixels: what is read at all, how large it may be, and how it is decoded.

Everything here treats its bytes as hostile: the header is read and judged before a single pixel is decoded.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from errors import ErrorCode, ServiceError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are read, by the names of Pillow's plugins (its JPEG plugin also opens MPO). Immich only ever sends JPEG
and WebP.
"""

# Our own limits replace Pillow's: its warning would be an error for pictures that we accept, and no error below 178 MP.
Image.MAX_IMAGE_PIXELS = None
# It warns of odd metadata, which is never used here. (Once for all: ``warnings.catch_warnings`` is not for several
# threads.)
warnings.filterwarnings("ignore", module=r"PIL\.")

_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError),
    RuntimeError,  # AVIF
    *(AttributeError, AssertionError, struct.error, zlib.error),
)
"""What Pillow's decoders raise on damaged files is not documented: these were seen by fuzzing, or stand in its code."""
_MAX_JPEG_SCANS = 500
"""A progressive JPEG has some ten; each costs a pass over all pixels, and takes some hundred bytes of file."""
_MAX_TIFF_PIECES = 100_000
"""Strips or tiles; Pillow keeps some 300 bytes for each, in Python. One line a strip is 10,000 for a square 100
megapixels.
"""
_TIFF_PIECES = frozenset({273, 279, 324, 325})
"""Tags: StripOffsets, StripByteCounts, TileOffsets, TileByteCounts (TIFF 6.0)."""
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323


_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)
"""Values of the EXIF tag Orientation of pictures stored with their top at a side (Exif 2.32, 4.6.4 A)."""
_TURNS: dict[Any, tuple[bool, int | None]] = {
    **{1: (False, None), 2: (False, 1), 3: (False, -1), 4: (False, 0)},
    **{5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)},
}
"""Orientation -> whether rows and columns change places, and then the axes to flip as ``cv2.flip`` counts them (0 up
and down, 1 left and right, -1 both)."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture says of itself before it is decoded."""

    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: NDArray[np.uint8]
    """(h, w, 3) uint8, RGB, C-contiguous. Smaller than the file's own size where a scaled decode was asked for."""
    width: int
    """Pixels of the file's own width: results are given in this frame."""
    height: int


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Format and size of an encoded picture, without decoding it.

    Raises ``ServiceError``: UNREADABLE_PICTURE if it is no picture of a format in ``FORMATS``; PICTURE_TOO_LARGE above
    ``max_pixels``.
    """
    with _open(data, max_pixels) as image:
        return Header(format=image.format or "?", width=image.width, height=image.height)


def decode(data: bytes, *, max_pixels: int, at_least: int | None = None, upright: bool = False) -> Picture:
    """Decode the first frame of a picture to RGB.

    ``at_least``: the short side, in pixels, that the caller needs; a JPEG is then decoded at 1/2, 1/4 or 1/8 scale as
    long as both sides stay at least that large. ``upright``: turn the picture by its EXIF orientation; otherwise that
    is ignored, as Immich's own server does (its previews are upright), but for a TIFF, which Pillow turns. Colour
    profiles are ignored. Transparency is dropped, as ``Image.convert("RGB")`` does. 16-bit grey keeps its high byte;
    32-bit and floating-point grey, which have no agreed white, are stretched from their lowest value to their highest.

    Raises ``ServiceError``: UNREADABLE_PICTURE (also where the file is cut short), PICTURE_TOO_LARGE.
    """
    with _open(data, max_pixels) as image:
        pixels = _clean_jpeg(data, image, at_least)
        if pixels is None:
            loaded, width, height = _load(data, image, at_least, frozenset(), upright)
            return Picture(pixels=np.asarray(loaded, dtype=np.uint8, order="C"), width=width, height=height)
        orientation = _orientation(image) if upright else 1
        width, height = image.size[::-1] if orientation in _LYING else image.size
        return Picture(pixels=_turned(pixels, orientation), width=width, height=height)


def decode_image(
    data: bytes, *, max_pixels: int, at_least: int | None = None, keep_modes: Collection[str] = ()
) -> Image.Image:
    """Decode as ``decode`` does, to a loaded Pillow image: RGB, or the file's own mode where that is one of
    ``keep_modes``.

    For models whose reference resizes a picture in its own colour mode before it converts it.
    """
    with _open(data, max_pixels) as image:
        pixels = _clean_jpeg(data, image, at_least)
        return _load(data, image, at_least, keep_modes)[0] if pixels is None else Image.fromarray(pixels)


def _clean_jpeg(data: bytes, image: Image.Image, at_least: int | None) -> NDArray[np.uint8] | None:
    """The pixels of an opened ``image`` that is an RGB JPEG without fault; None of any other, which Pillow is to
    decode.

    Raises ``ServiceError`` where it is a JPEG of too many scans.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    if data.count(b"\xff\xda") > _MAX_JPEG_SCANS:  # start of scan
        raise _unreadable(f"it comes in more than {_MAX_JPEG_SCANS} scans")
    if image.mode != "RGB":
        return None
    from runners.pictures.jpeg import (
        decode_clean,
    )  # not at the top: the gateway, which reads headers alone, is spared the library

    return decode_clean(data, image.size, at_least)


def _load(
    data: bytes, image: Image.Image, at_least: int | None, keep_modes: Collection[str], upright: bool = False
) -> tuple[Image.Image, int, int]:
    """The opened ``image``, decoded by Pillow, and the width and height that the file has (once it is turned, if
    ``upright``).
    """
    width, height = image.size
    try:
        if image.format in ("JPEG", "MPO") and at_least is not None:
            image.draft("RGB", (at_least, at_least))
        image.load()
        # Never used here, and a palette with one per colour would make ``convert`` warn.
        image.info.pop("transparency", None)
        if upright and image.getexif().get(_ORIENTATION, 1) in _LYING:
            width, height = height, width
        if upright:
            image = ImageOps.exif_transpose(image)
        return (image if image.mode in keep_modes else _to_rgb(image)), width, height
    except _DAMAGE as error:
        raise _unreadable(f"its {image.format} data is damaged or cut short ({error})") from error


def _orientation(image: Image.Image) -> int:
    """EXIF's Orientation of an opened picture, 1 to 8; 1 (upright) where it has none, or one that is none.

    Raises ``ServiceError`` where the EXIF data is damaged.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE as error:
        raise _unreadable(f"its {image.format} data is damaged or cut short ({error})") from error
    return orientation if orientation in _TURNS else 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """``pixels`` as they are to be seen, by EXIF's ``orientation``; what ``ImageOps.exif_transpose`` does."""
    transpose, flip = _TURNS[orientation]
    if not transpose and flip is None:
        return pixels
    import cv2  # not at the top, as above

    # 12 megapixels take 15 ms here, and 56 in numpy.
    turned = cv2.transpose(pixels) if transpose else pixels
    return np.asarray(turned if flip is None else cv2.flip(turned, flip), np.uint8)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise _unreadable("it is empty")
    if _tiff_pieces(data) > _MAX_TIFF_PIECES:
        raise _unreadable(f"it comes in more than {_MAX_TIFF_PIECES:,} strips or tiles")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = _size_in_memory(image)
    except UnidentifiedImageError as error:
        raise _unreadable("it is not a picture of a format that is read here (" + ", ".join(FORMATS) + ")") from error
    except _DAMAGE as error:
        raise _unreadable(f"its header is damaged ({error})") from error
    if width * height > max_pixels:
        size = f"{width} x {height}"
        image.close()
        raise ServiceError(
            ErrorCode.PICTURE_TOO_LARGE,
            f"The picture says that it is {size} pixels, more than the {max_pixels:,} that are decoded here. "
            "Raise MAX_PICTURE_PIXELS if it is to be read.",
        )
    return image


def _tiff_pieces(data: bytes) -> int:
    """Strips or tiles that the first directory of a TIFF names; 0 for anything else. Pillow would list them all as it
    reads the header.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 0
    # A directory is a number of entries, then (tag, type, count, value); BigTIFF has wider fields (TIFF 6.0, section
    # 2).
    start, number, entry = (8, "Q", "HHQQ") if 43 in data[2:4] else (4, "H", "HHLL")
    try:
        (offset,) = struct.unpack_from(order + entry[-1], data, start)
        (entries,) = struct.unpack_from(order + number, data, offset)
    except (struct.error, OverflowError):
        return 0
    if entries > _MAX_TIFF_PIECES:  # BigTIFF allows it, and Pillow would read each
        return int(entries)
    offset, size = offset + struct.calcsize(order + number), struct.calcsize(order + entry)
    found = [0]
    for position in range(offset, min(offset + entries * size, len(data) - size + 1), size):
        tag, _, count, _ = struct.unpack_from(order + entry, data, position)
        if tag in _TIFF_PIECES:
            found.append(count)
    return max(found)


def _size_in_memory(image: Image.Image) -> tuple[int, int]:
    """Width and height of what decoding holds at least: the picture, and of a TIFF in tiles one whole tile."""
    width, height = image.size
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if _TIFF_TILE_WIDTH in tags and _TIFF_TILE_LENGTH in tags:
        tile_width, tile_height = int(tags[_TIFF_TILE_WIDTH]), int(tags[_TIFF_TILE_LENGTH])
        if tile_width * tile_height > width * height:
            return tile_width, tile_height
    return width, height


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips wide greys at 255, which turns most of them white.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image))).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretch(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of any range to 0 (its lowest value) to 255 (its highest). What is no number is black."""
    known = np.isfinite(grey)
    if not known.any():
        return np.zeros(grey.shape, np.uint8)
    lowest, highest = float(grey[known].min()), float(grey[known].max())
    if lowest == highest:
        return np.zeros(grey.shape, np.uint8)
    stretched: NDArray[np.float64] = np.interp(np.where(known, grey, lowest), (lowest, highest), (0, 255))
    rounded: NDArray[np.uint8] = stretched.round().astype(np.uint8)
    return rounded


def _unreadable(why: str) -> ServiceError:
    return ServiceError(ErrorCode.UNREADABLE_PICTURE, f"The picture cannot be read: {why}.")
