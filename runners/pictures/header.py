"""Format and size of an encoded picture, read in a few milliseconds without decoding it.

All bytes are treated as hostile. Nothing that decodes pixels is imported here but Pillow's own plugins.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from PIL import Image

from errors import ErrorCode, ServiceError
from runners.pictures.metadata import (
    MAX_TIFF_PIECES,
    jpeg_without_metadata,
    png_without_metadata,
    tiff_directory,
    with_end,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are read, by the names of Pillow's plugins (its JPEG plugin also opens MPO). Immich only ever sends JPEG
and WebP.
"""

# Plugins warn of odd metadata, which is never used here. (Once for all, as ``warnings.catch_warnings`` is not for
# several threads.) The warning of Pillow's own limit on pixels, in PIL.Image, stays.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(\w+ImagePlugin|ImageFile)")

DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError),
    RuntimeError,  # AVIF
    *(AttributeError, AssertionError, struct.error, zlib.error),
)
"""What Pillow's decoders raise on damaged files is not documented: these were seen by fuzzing, or stand in its code."""

_PLUGINS = {
    "JPEG": ("JpegImagePlugin", "jpeg_factory"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
}
_TIFF_MARKS = (b"II*\0", b"II\0*", b"MM*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
_MAX_HEADER_READS = 2_500
"""Calls of ``read`` while a header is parsed: at least one for each segment, chunk, tag or stray byte."""
_FEW_PIECES = 2_000
"""Strips or tiles of a TIFF that Pillow lists within 5 ms."""


@dataclass(frozen=True, slots=True)
class Header:
    """Format and size that a picture declares."""

    format: str
    width: int
    height: int


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Return format and size of an encoded picture, without decoding it.

    Takes at most some 20 ms, whatever the file holds. Raises ``ServiceError``: UNREADABLE_PICTURE if it is no picture
    of a format in ``FORMATS``; PICTURE_TOO_LARGE above ``max_pixels``.
    """
    directory = tiff_directory(data) if data.startswith(_TIFF_MARKS) else None
    if directory is not None and directory.is_acceptable and directory.pieces > _FEW_PIECES and all(directory.size):
        _check_size(*max(directory.size, directory.tile, key=_area), max_pixels)
        return Header("TIFF", *directory.size)
    with open_picture(data, max_pixels=max_pixels, header_only=True) as image:
        return Header(format=image.format or "?", width=image.width, height=image.height)


def open_picture(data: bytes, *, max_pixels: int, header_only: bool = False) -> Image.Image:
    """Open a picture with Pillow and judge its size, without decoding it. Metadata that is not used is left out.

    ``header_only``: the picture will not be decoded. Pillow's own limit on pixels does not apply, ``max_pixels`` does.
    Raises ``ServiceError`` as ``read_header`` does.
    """
    if not data:
        raise unreadable("it is empty")
    kind = _format(data)
    if kind is None:
        raise _not_a_picture()
    file = _BoundedFile(_needed(kind, data, header_only=header_only), _MAX_HEADER_READS)
    try:
        image = _plugin(kind)(file)
        size = _size_in_memory(image)
    except _TooManyReads as error:
        raise unreadable("its header has too many parts") from error
    except Image.DecompressionBombError as error:
        raise _too_large(str(error), max_pixels) from error
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # a plugin's way to say that it is no such file
        raise _not_a_picture() from error
    except DAMAGE as error:
        raise unreadable(f"its header is damaged ({error})") from error
    try:
        _check_size(*size, max_pixels)
    except ServiceError:
        image.close()
        raise
    file.reads_left = sys.maxsize
    return image


def unreadable(why: str) -> ServiceError:
    """Return the error of a picture that cannot be read."""
    return ServiceError(ErrorCode.UNREADABLE_PICTURE, f"The picture cannot be read: {why}.")


def _format(data: bytes) -> str | None:
    """Return the format, in ``FORMATS``, that the first bytes of ``data`` name."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith(_TIFF_MARKS):
        return "TIFF"
    return "AVIF" if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS else None


def _needed(kind: str, data: bytes, *, header_only: bool) -> bytes:
    """Return ``data`` without what is not used of it. Raises ``ServiceError`` where its structure is out of bounds."""
    if kind == "JPEG":
        cleaned = jpeg_without_metadata(data, header_only=header_only)
        if cleaned is None:
            raise unreadable("it has too many segments")
        return cleaned if header_only else with_end(cleaned)
    if kind == "PNG":
        cleaned = png_without_metadata(data, header_only=header_only)
        if cleaned is None:
            raise unreadable("it has too many chunks")
        return cleaned
    directory = tiff_directory(data) if kind == "TIFF" else None
    if directory is not None and not directory.is_acceptable:
        raise unreadable(f"it has too many tags, or more than {MAX_TIFF_PIECES:,} strips or tiles")
    return data


def _plugin(kind: str) -> Callable[[io.BytesIO], Image.Image]:
    """Return Pillow's class for a format. (``Image.open`` would apply its own limit on pixels, one for the process.)"""
    module, name = _PLUGINS[kind]
    return cast(Callable[[io.BytesIO], Image.Image], getattr(import_module(f"PIL.{module}"), name))


def _size_in_memory(image: Image.Image) -> tuple[int, int]:
    """Return width and height of what decoding holds at least: the picture, and of a TIFF in tiles one whole tile."""
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    tile = int(tags.get(322, 0)), int(tags.get(323, 0))
    return max(image.size, tile, key=_area)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(f"it is {width} x {height} pixels", max_pixels)


def _too_large(what: str, max_pixels: int) -> ServiceError:
    return ServiceError(
        ErrorCode.PICTURE_TOO_LARGE,
        f"The picture is too large: {what}, and {max_pixels:,} pixels are decoded here at most. "
        "Raise MAX_PICTURE_PIXELS if it is to be read.",
    )


def _not_a_picture() -> ServiceError:
    return unreadable("it is not a picture of a format that is read here (" + ", ".join(FORMATS) + ")")


class _TooManyReads(Exception):
    """A header takes more calls of ``read`` than are allowed."""


class _BoundedFile(io.BytesIO):
    """A file in memory that can be read from a limited number of times."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self.reads_left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise _TooManyReads
        return super().read(size)
