"""Encoded bytes from outside to pixels: what is read at all, how large it may be, and how it is decoded.

Everything here treats its bytes as hostile: the header is read and judged before a single pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from errors import ErrorCode, ServiceError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are read, by the names of Pillow's plugins (its JPEG plugin also opens MPO). Immich only ever sends JPEG and WebP."""

# Our own limits replace Pillow's: its warning would be an error for pictures that we accept, and no error below 178 MP.
Image.MAX_IMAGE_PIXELS = None


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

    Raises ``ServiceError``: UNREADABLE_PICTURE if it is no picture of a format in ``FORMATS``; PICTURE_TOO_LARGE above ``max_pixels``.
    """
    with _open(data, max_pixels) as image:
        return Header(format=image.format or "?", width=image.width, height=image.height)


def decode(data: bytes, *, max_pixels: int, at_least: int | None = None) -> Picture:
    """Decode the first frame of a picture to RGB.

    ``at_least``: the short side, in pixels, that the caller needs; a JPEG is then decoded at 1/2, 1/4 or 1/8 scale as long as
    both sides stay at least that large. Orientation tags and colour profiles are ignored, as Immich's own server does
    (its previews are upright). Transparency is dropped, as ``Image.convert("RGB")`` does.

    Raises ``ServiceError``: UNREADABLE_PICTURE (also where the file is cut short), PICTURE_TOO_LARGE.
    """
    image, width, height = _load(data, max_pixels, at_least, frozenset())
    return Picture(pixels=np.array(image, dtype=np.uint8, order="C"), width=width, height=height)


def decode_image(data: bytes, *, max_pixels: int, at_least: int | None = None, keep_modes: Collection[str] = ()) -> Image.Image:
    """Decode as ``decode`` does, to a loaded Pillow image: RGB, or the file's own mode where that is one of ``keep_modes``.

    For models whose reference resizes a picture in its own colour mode before it converts it.
    """
    return _load(data, max_pixels, at_least, keep_modes)[0]


def _load(data: bytes, max_pixels: int, at_least: int | None, keep_modes: Collection[str]) -> tuple[Image.Image, int, int]:
    """The decoded image, and the width and height that the file has."""
    with _open(data, max_pixels) as image:
        width, height = image.size
        try:
            if at_least is not None and image.format in ("JPEG", "MPO"):
                image.draft("RGB", (at_least, at_least))
            image.load()
            # Never used here, and a palette with one per colour would make ``convert`` warn.
            image.info.pop("transparency", None)
            return (image if image.mode in keep_modes else _to_rgb(image)), width, height
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, ArithmeticError, TypeError) as error:
            # What Pillow's decoders raise on damaged files is not documented; these are the ones seen by fuzzing.
            raise _unreadable(f"its {image.format} data is damaged or cut short ({error})") from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise _unreadable("it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is never used here
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unreadable("it is not a picture of a format that is read here (" + ", ".join(FORMATS) + ")") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, ArithmeticError, TypeError, KeyError) as error:
        raise _unreadable(f"its header is damaged ({error})") from error
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height}"
        image.close()
        raise ServiceError(
            ErrorCode.PICTURE_TOO_LARGE,
            f"The picture says that it is {size} pixels, more than the {max_pixels:,} that are decoded here. "
            "Raise MAX_PICTURE_PIXELS if it is to be read.",
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit grey at 255, which turns most of it white.
        wide = np.asarray(image)
        return Image.fromarray((wide >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _unreadable(why: str) -> ServiceError:
    return ServiceError(ErrorCode.UNREADABLE_PICTURE, f"The picture cannot be read: {why}.")
