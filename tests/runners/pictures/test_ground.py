"""Transparent pictures: on which ground they are laid for text and faces."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from runners.contract import ImageJob
from runners.pictures import decode as decode_module
from runners.pictures.decode import Picture, decode, may_be_transparent
from runners.pictures.pixels import shared_pixels
from tests.runners.pictures.makers import MANY, encoded, gradient

WHITE, BLACK = [255, 255, 255], [0, 0, 0]


def half_clear(ink: tuple[int, int, int], mode: str = "RGBA") -> Image.Image:
    """Draw the left half in ``ink``, and leave the right half clear: its colour, black, is not to be seen."""
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((*ink, 255), (0, 0, 4, 4))
    return image if mode == "RGBA" else image.convert(mode)


def read(data: bytes, **options: Any) -> Picture:
    return decode(data, max_pixels=MANY, **options)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})], ids=["PNG", "WebP", "TIFF"]
)
def test_dark_ink_is_laid_on_white(kind: str, options: dict[str, Any]) -> None:
    picture = read(encoded(half_clear((20, 20, 20)), kind, **options))
    assert picture.transparent
    assert picture.pixels[0, 0].tolist() == [20, 20, 20]
    assert picture.pixels[0, 7].tolist() == WHITE


def test_light_ink_is_laid_on_black() -> None:
    data = encoded(half_clear((250, 250, 180)), "PNG")
    assert read(data).pixels[0, 7].tolist() == BLACK
    assert read(data, other_ground=True).pixels[0, 7].tolist() == WHITE


def test_grey_with_alpha_is_laid_on_white() -> None:
    picture = read(encoded(half_clear((0, 0, 0), "LA"), "PNG"))
    assert picture.pixels[0, [0, 7]].tolist() == [BLACK, WHITE]


def test_what_is_half_transparent_is_mixed_with_the_ground() -> None:
    data = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")
    assert abs(int(read(data).pixels[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.paste((30, 30, 30), (0, 0, 4, 4))
    flat = image.convert(mode) if mode != "P" else image.quantize(4)
    clear: Any = flat.getpixel((7, 0))
    picture = read(encoded(flat, "PNG", transparency=clear))
    assert picture.pixels[0, 7].tolist() == WHITE
    assert picture.pixels[0, 0, 0] < 40


def test_a_palette_with_one_transparency_per_colour_is_laid_on_a_ground() -> None:
    palette = gradient().quantize(16)
    assert read(encoded(palette, "PNG", transparency=bytes([0] * 8 + [255] * 8))).transparent


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_picture_that_is_transparent_all_over_or_nowhere_keeps_its_colours(alpha: int) -> None:
    picture = read(encoded(Image.new("RGBA", (4, 4), (10, 200, 30, alpha)), "PNG"))
    assert not picture.transparent
    assert picture.pixels[0, 0].tolist() == [10, 200, 30]


def test_a_turned_transparent_picture_is_turned_and_laid_on_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(encoded(half_clear((20, 20, 20)), "PNG", exif=exif.tobytes()), upright=True)
    assert (picture.width, picture.height) == (4, 8)
    assert picture.pixels.shape == (8, 4, 3)
    assert picture.pixels[[0, 7], 0].tolist() == [[20, 20, 20], WHITE]


def test_only_a_transparent_picture_has_another_ground() -> None:
    transparent, opaque = half_clear((20, 20, 20)), Image.new("RGBA", (8, 4), (1, 2, 3, 255))
    on_black = ImageJob(encoded(transparent, "PNG"), "m").pixels_on_other_ground(max_pixels=MANY)
    assert on_black is not None
    assert on_black[0, 7].tolist() == BLACK
    for image, kind in ((opaque, "PNG"), (gradient(), "PNG"), (gradient(), "JPEG")):
        assert ImageJob(encoded(image, kind), "m").pixels_on_other_ground(max_pixels=MANY) is None
    assert not may_be_transparent(encoded(gradient(), "JPEG"), max_pixels=MANY)


def test_a_picture_that_was_decoded_as_opaque_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for image, decodes in ((Image.new("RGBA", (8, 4), (1, 2, 3, 255)), 0), (half_clear((20, 20, 20)), 1)):
        data = encoded(image, "PNG")
        with shared_pixels(data, upright=False, readers=1) as shared, monkeypatch.context() as patch:
            job = ImageJob(data, "m", shared=shared)
            job.pixels(max_pixels=MANY)
            counted = Mock(wraps=decode)
            patch.setattr(decode_module, "decode", counted)
            assert (job.pixels_on_other_ground(max_pixels=MANY) is not None) == bool(decodes)
        assert counted.call_count == decodes
