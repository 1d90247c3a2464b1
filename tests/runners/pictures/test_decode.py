"""Which pictures are read, and what becomes of their pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from runners.pictures.decode import Picture, decode, decode_image
from runners.pictures.header import FORMATS, read_header
from tests.runners.pictures.makers import HEIGHT, MANY, WIDTH, encoded, gradient, python


def read(data: bytes, **options: Any) -> Picture:
    return decode(data, max_pixels=MANY, **options)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 8),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 8),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 100}, 12),
        ("GIF", {}, 60),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 12),
    ],
)
def test_every_format_is_read(kind: str, options: dict[str, Any], tolerance: int) -> None:
    data = encoded(gradient(), kind, **options)
    header = read_header(data, max_pixels=MANY)
    assert (header.format, header.width, header.height) == (kind, WIDTH, HEIGHT)
    picture = read(data)
    assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert np.abs(picture.pixels.astype(int) - np.asarray(gradient())).max() <= tolerance


def test_the_formats_tested_are_the_formats_read() -> None:
    assert set(FORMATS) == {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"}


def test_a_picture_of_several_jpegs_is_read_as_its_first() -> None:
    data = encoded(gradient(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert read_header(data, max_pixels=MANY).format == "MPO"
    assert read(data, at_least=20).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "PA"])
def test_png_of_every_mode_becomes_rgb(mode: str) -> None:
    image = gradient().convert("L").convert("LA").convert("PA") if mode == "PA" else gradient().convert(mode)
    if mode == "PA":
        image = image.convert("RGBA")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(encoded(image, "PNG")).pixels, expected)


def _pillow_reads_its_own_ycbcr() -> bool:
    """Return whether Pillow reads what it writes: 12.3, the last for Python 3.10, does not."""
    try:
        Image.open(io.BytesIO(encoded(Image.new("YCbCr", (8, 8)), "TIFF"))).load()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_tiff_of_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "YCbCr" and not _pillow_reads_its_own_ycbcr():
        pytest.skip("this Pillow cannot read the YCbCr TIFF that it writes")
    image = gradient().convert(mode)
    np.testing.assert_allclose(read(encoded(image, "TIFF")).pixels, np.asarray(image.convert("RGB")), atol=1)


def test_lab_becomes_rgb() -> None:
    lab = ImageCms.profileToProfile(
        gradient(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    difference = np.abs(read(encoded(lab, "TIFF")).pixels.astype(int) - np.asarray(gradient()))
    assert difference.mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(kind: str) -> None:
    pixels = read(encoded(Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK"), kind)).pixels
    assert np.abs(pixels.astype(int) - (200, 30, 60)).max() <= 12


def test_clip_sees_a_transparent_picture_without_its_transparency() -> None:
    """As its references do, whose ``convert("RGB")`` drops it."""
    image = Image.new("RGBA", (4, 4), (10, 200, 30, 0))
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        assert decode_image(encoded(image, kind, **options), max_pixels=MANY).getpixel((0, 0)) == (10, 200, 30)
    palette = gradient().quantize(16)
    seen = decode_image(encoded(palette, "PNG", transparency=bytes(range(16))), max_pixels=MANY)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(palette.convert("RGB")))


def ramp(kind: Any, highest: float) -> NDArray[Any]:
    grey: NDArray[Any] = np.tile(np.linspace(0, highest, 256).round().astype(kind), (4, 1))
    return grey


@pytest.mark.parametrize(
    "data", [encoded(Image.fromarray(ramp(np.uint16, 65535)), kind) for kind in ("PNG", "TIFF")], ids=["PNG", "TIFF"]
)
def test_16_bit_grey_is_scaled_and_not_clipped(data: bytes) -> None:
    assert read(data).pixels[0, :, 0].tolist() == list(range(256))


def test_big_endian_16_bit_grey_is_scaled() -> None:
    image = Image.frombytes("I;16B", (256, 4), ramp(">u2", 65535).tobytes())
    data = encoded(image, "TIFF")
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "I;16B"
    assert read(data).pixels[0, :, 1].tolist() == list(range(256))


@pytest.mark.parametrize(
    ("kind", "highest"), [(np.int32, 2**31 - 1), (np.int32, 4000), (np.float32, 1.0), (np.float32, 60000.0)]
)
def test_grey_without_an_agreed_white_is_stretched(kind: Any, highest: float) -> None:
    grey = (np.broadcast_to(np.linspace(0, 1, 256), (4, 256)) * highest).astype(kind)
    pixels = read(encoded(Image.fromarray(grey), "TIFF")).pixels
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_floats_that_are_no_numbers_are_black() -> None:
    grey = np.array([[np.nan, np.inf, -np.inf, 2, 6, 10]], np.float32)
    assert read(encoded(Image.fromarray(grey), "TIFF")).pixels[0, :, 2].tolist() == [0, 0, 0, 0, 128, 255]
    for constant in (np.full((2, 2), 7, np.float32), np.full((2, 2), np.nan, np.float32)):
        assert not read(encoded(Image.fromarray(constant), "TIFF")).pixels.any()
    extreme = np.array([[-3e38, 0, 3e38]], np.float32)
    assert read(encoded(Image.fromarray(extreme), "TIFF")).pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_tag_is_ignored(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(encoded(gradient(), kind, exif=exif))
    assert (picture.width, picture.height, picture.pixels.shape) == (WIDTH, HEIGHT, (HEIGHT, WIDTH, 3))
    assert picture.pixels[-1, -1, 0] > 200 > 100 > picture.pixels[-1, 0, 0]


def test_a_turned_tiff_is_upright_and_its_size_agrees() -> None:
    data = encoded(gradient(), "TIFF", tiffinfo={274: 6})
    header = read_header(data, max_pixels=MANY)
    picture = read(data)
    assert (header.width, header.height) == (picture.width, picture.height) == (HEIGHT, WIDTH)
    assert picture.pixels.shape == (WIDTH, HEIGHT, 3)


def test_an_animation_is_read_as_its_first_frame() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for kind, options in (
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("AVIF", {"quality": 100}),
    ):
        pixels = read(encoded(red, kind, save_all=True, append_images=[blue], **options)).pixels
        assert np.abs(pixels[4, 4].astype(int) - (255, 0, 0)).max() < 12, kind


def test_one_pixel_and_extreme_shapes_are_read() -> None:
    for size in ((1, 1), (1, 3000), (3000, 1)):
        assert read(encoded(Image.new("RGB", size), "PNG")).pixels.shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("at_least", "scale"),
    [(None, 1), (800, 1), (401, 1), (400, 2), (224, 2), (200, 4), (101, 4), (100, 8), (50, 8), (1, 8)],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_suffices(at_least: int | None, scale: int) -> None:
    picture = read(encoded(gradient(1200, 800), "JPEG"), at_least=at_least)
    assert picture.pixels.shape == (800 // scale, 1200 // scale, 3)
    assert (picture.width, picture.height) == (1200, 800)
    np.testing.assert_allclose(picture.pixels.mean(axis=(0, 1)), (127.5, 127.5, 64), atol=3)


def test_other_formats_are_decoded_whole() -> None:
    assert read(encoded(gradient(400, 300), "PNG"), at_least=10).pixels.shape == (300, 400, 3)


def test_a_model_may_keep_the_mode_of_the_file() -> None:
    data = encoded(gradient().convert("L"), "PNG")
    assert decode_image(data, max_pixels=MANY, keep_modes=("L",)).mode == "L"
    assert decode_image(data, max_pixels=MANY).mode == "RGB"


# In a process of its own: pytest has filters of its own for each test.
_READ_IN_THREADS = """
import sys, threading, warnings
from runners.pictures.header import read_header
data = open(sys.argv[1], "rb").read()
def read():
    for _ in range(150):
        read_header(data, max_pixels=100_000_000)
read()
before = list(warnings.filters)
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert list(warnings.filters) == before, warnings.filters
"""


def test_reading_in_many_threads_leaves_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(encoded(gradient(), "PNG"))
    python(_READ_IN_THREADS, tmp_path / "picture")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_by_its_orientation_where_that_is_asked_for(orientation: int) -> None:
    stored = Image.effect_noise((90, 40), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode(encoded(stored, "PNG", exif=exif), max_pixels=10**6, upright=True)
    if orientation >= 5:
        assert (turned.width, turned.height) == (40, 90)
    assert turned.pixels.shape == (turned.height, turned.width, 3)
    # Where the stored picture's first pixel ends up, by the tag's definition: row 0 is the top, the bottom, the left or
    # the right side.
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert tuple(turned.pixels[row, column]) == stored.getpixel((0, 0))
    assert decode(encoded(stored, "PNG", exif=exif), max_pixels=10**6).pixels.shape == (40, 90, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"\xff" * 40, bytes(40), b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])  # Pillow writes no AVIF with such
def test_an_orientation_that_cannot_be_read_leaves_a_picture_as_it_is_stored(kind: str, exif: bytes) -> None:
    picture = decode(encoded(gradient(), kind, exif=exif), max_pixels=10**6, upright=True)
    assert (picture.width, picture.height, picture.pixels.shape) == (WIDTH, HEIGHT, (HEIGHT, WIDTH, 3))
