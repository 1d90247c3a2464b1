"""The ground that a transparent picture is laid on before it is searched for text and faces.

White, as paper and most pages are; black where what is visible is light, as white ink would be lost on white.
"""

from __future__ import annotations

from PIL import Image

_MODES = ("RGBA", "RGBa", "LA", "La", "PA", "P", "L", "RGB", "1")
"""Pillow's modes in which a picture may be transparent and can be converted."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_LIGHT = 160
"""Mean luminance, 0 to 255, from which on what is visible counts as light."""
_VISIBLE = 128
"""Least opacity, 0 to 255, of what counts as visible."""


def has_transparency(image: Image.Image) -> bool:
    """Return whether an opened picture has an alpha channel or a transparent colour. Decodes nothing."""
    return image.mode in _MODES and image.has_transparency_data


def on_ground(image: Image.Image, *, other: bool = False) -> Image.Image | None:
    """Return a loaded picture in RGB on the ground that suits it, or on the ``other`` one.

    Returns None where no part of it is transparent, or all of it: some programs leave the alpha channel empty.
    """
    if not has_transparency(image):
        return None
    whole = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = whole.getchannel("A")
    least, most = alpha.getextrema()
    if least == 255 or most == 0:
        return None
    laid = Image.new("RGB", whole.size, _BLACK if _is_light(whole, alpha) != other else _WHITE)
    laid.paste(whole, mask=alpha)
    return laid


def _is_light(image: Image.Image, alpha: Image.Image) -> bool:
    """Return whether what is visible of ``image``, RGBA, is light on average."""
    seen = alpha.point([0] * _VISIBLE + [255] * (256 - _VISIBLE))
    histogram = image.convert("L").histogram(seen)
    count = sum(histogram)
    return count > 0 and sum(value * number for value, number in enumerate(histogram)) >= _LIGHT * count
