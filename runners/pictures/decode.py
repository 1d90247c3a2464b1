"""Decoding of pictures to pixels. The header is read and judged before a single pixel is decoded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from runners.pictures.ground import has_transparency, on_ground
from runners.pictures.header import DAMAGE, open_picture, unreadable
from runners.pictures.metadata import lacks_end

_MAX_JPEG_SCANS = 500
"""A progressive JPEG has some ten; each costs a pass over all pixels, and takes some hundred bytes of file."""


_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)
"""Values of the EXIF tag Orientation of pictures stored with their top at a side (Exif 2.32, 4.6.4 A)."""
_TURNS: dict[Any, tuple[bool, int | None]] = {
    **{1: (False, None), 2: (False, 1), 3: (False, -1), 4: (False, 0)},
    **{5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)},
}
"""By orientation: whether rows and columns change places, then the axes to flip as in ``cv2.flip`` (0 up and down, 1
left and right, -1 both), or None."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: NDArray[np.uint8]
    """(h, w, 3) uint8, RGB, C-contiguous. Smaller than the file's own size where a scaled decode was asked for."""
    width: int
    """Width of the picture in the file, in pixels: results are given in this frame."""
    height: int
    transparent: bool = False
    """True if parts of it are transparent, and were laid on a ground."""


def decode(
    data: bytes,
    *,
    max_pixels: int,
    at_least: int | None = None,
    upright: bool = False,
    other_ground: bool = False,
) -> Picture:
    """Decode the first frame of a picture to RGB.

    ``at_least``: the short side, in pixels, that the caller needs; a JPEG is then decoded at 1/2, 1/4 or 1/8 scale as
    long as both sides stay at least that large. ``upright``: turn the picture by its EXIF orientation; otherwise that
    is ignored, as Immich's own server does (its previews are upright), but for a TIFF, which Pillow turns. Colour
    profiles are ignored. A transparent picture is laid on white, or on black where what is visible of it is light
    (``runners.pictures.ground``); ``other_ground``: on the other one. 16-bit grey keeps its high byte; 32-bit and
    floating-point grey, which have no agreed white, are stretched from their lowest value to their highest.

    Raises ``ServiceError``: UNREADABLE_PICTURE (also where the file is cut short), PICTURE_TOO_LARGE.
    """
    with open_picture(data, max_pixels=max_pixels) as image:
        pixels = _clean_jpeg(data, image, at_least)
        if pixels is None:
            with _damage_told(image.format):
                loaded, width, height = _load(image, at_least, upright)
                laid = on_ground(loaded, other=other_ground)
                rgb = _to_rgb(loaded) if laid is None else laid
            return Picture(np.asarray(rgb, dtype=np.uint8, order="C"), width, height, transparent=laid is not None)
        orientation = _orientation(image) if upright else 1
        width, height = image.size[::-1] if orientation in _LYING else image.size
        return Picture(pixels=_turned(pixels, orientation), width=width, height=height)


def decode_image(
    data: bytes, *, max_pixels: int, at_least: int | None = None, keep_modes: Collection[str] = ()
) -> Image.Image:
    """Decode as ``decode`` does, to a loaded Pillow image: RGB, or the file's own mode where that is one of
    ``keep_modes``. Transparency is dropped, as ``Image.convert("RGB")`` does.

    For CLIP, whose references convert so, some of them after they have resized a picture in its own mode.
    """
    with open_picture(data, max_pixels=max_pixels) as image:
        pixels = _clean_jpeg(data, image, at_least)
        if pixels is not None:
            return Image.fromarray(pixels)
        with _damage_told(image.format):
            loaded, _, _ = _load(image, at_least, upright=False)
            return loaded if loaded.mode in keep_modes else _to_rgb(loaded)


def may_be_transparent(data: bytes, *, max_pixels: int) -> bool:
    """Return whether a picture has an alpha channel or a transparent colour. Decodes nothing. Raises as ``decode``."""
    with open_picture(data, max_pixels=max_pixels) as image:
        return has_transparency(image)


def _clean_jpeg(data: bytes, image: Image.Image, at_least: int | None) -> NDArray[np.uint8] | None:
    """Decode an opened ``image`` that is an RGB JPEG without fault; return None for any other, which Pillow decodes.

    Raises ``ServiceError`` where it is a JPEG of too many scans, or lacks pixels at its end.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    if data.count(b"\xff\xda") > _MAX_JPEG_SCANS:  # start of scan
        raise unreadable(f"it comes in more than {_MAX_JPEG_SCANS} scans")
    from runners.pictures.jpeg import decode_clean, lacks_only_its_end  # not at the top: only JPEGs need the library

    if lacks_end(data) and not lacks_only_its_end(data):
        raise unreadable(f"its {image.format} data is damaged or cut short (it has no end)")
    if image.mode != "RGB":
        return None
    return decode_clean(data, image.size, at_least)


def _load(image: Image.Image, at_least: int | None, upright: bool) -> tuple[Image.Image, int, int]:
    """Decode an opened ``image`` by Pillow; return it with the width and height that the file has (after turning)."""
    width, height = image.size
    if image.format in ("JPEG", "MPO") and at_least is not None:
        image.draft("RGB", (at_least, at_least))
    image.load()
    orientation = _orientation(image) if upright else 1
    if orientation in _LYING:
        width, height = height, width
    return (image if orientation == 1 else ImageOps.exif_transpose(image)), width, height


@contextmanager
def _damage_told(format: str | None) -> Iterator[None]:
    """Turn what Pillow raises of a damaged picture into ``ServiceError`` UNREADABLE_PICTURE."""
    try:
        yield
    except DAMAGE as error:
        raise unreadable(f"its {format} data is damaged or cut short ({error})") from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened picture, 1 to 8; 1 (upright) where it has none, or one that cannot be
    read: the pixels are none the worse for it.
    """
    orientation = 1
    with suppress(*DAMAGE):
        orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if orientation in _TURNS else 1


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn ``pixels`` upright by their EXIF ``orientation``, as ``ImageOps.exif_transpose`` does."""
    transpose, flip = _TURNS[orientation]
    if not transpose and flip is None:
        return pixels
    import cv2  # not at the top: few pictures need it here

    # 12 megapixels take 15 ms here, and 56 in numpy.
    turned = cv2.transpose(pixels) if transpose else pixels
    return np.asarray(turned if flip is None else cv2.flip(turned, flip), np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips wide greys at 255, which turns most of them white.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image))).convert("RGB")
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)  # a palette with one per colour would make ``convert`` warn
    return image.convert("RGB")


def _stretch(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Map grey values linearly to 0 (the lowest) to 255 (the highest). Values that are no numbers become 0."""
    known = np.isfinite(grey)
    if not known.any():
        return np.zeros(grey.shape, np.uint8)
    lowest, highest = float(grey[known].min()), float(grey[known].max())
    if lowest == highest:
        return np.zeros(grey.shape, np.uint8)
    stretched: NDArray[np.float64] = np.interp(np.where(known, grey, lowest), (lowest, highest), (0, 255))
    rounded: NDArray[np.uint8] = stretched.round().astype(np.uint8)
    return rounded
