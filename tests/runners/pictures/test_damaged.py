"""Whatever is sent as a picture: it is read, or refused with one of two codes, and nothing else ever happens."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from errors import ErrorCode, ServiceError
from runners.pictures.decode import Picture, decode, decode_image
from runners.pictures.header import FORMATS, Header, read_header

R = TypeVar("R")
LIMIT = 1_000_000


def _samples() -> dict[str, bytes]:
    """Return small valid files of every format, and of the variants that take other ways through the decoders."""
    noise = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((28, 20))
    other = image.rotate(90)
    deep = Image.fromarray(np.random.default_rng(2).integers(0, 65535, (6, 8), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    wanted: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (image, "JPEG", {}),
        "jpeg progressive": (image, "JPEG", {"progressive": True}),
        "jpeg cmyk": (image.convert("CMYK"), "JPEG", {}),
        "jpeg exif": (image, "JPEG", {"exif": exif}),
        "mpo": (image, "MPO", {"save_all": True, "append_images": [other.copy()]}),
        "png": (image, "PNG", {}),
        "png palette": (image.quantize(16), "PNG", {"transparency": 0}),
        "png 16 bit": (deep, "PNG", {}),
        "png animated": (image, "PNG", {"save_all": True, "append_images": [other.copy()]}),
        "webp": (image, "WEBP", {}),
        "webp lossless": (image.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp animated": (image, "WEBP", {"save_all": True, "append_images": [other.copy()]}),
        "gif": (image, "GIF", {}),
        "gif animated": (image, "GIF", {"save_all": True, "append_images": [other.copy()]}),
        "bmp": (image, "BMP", {}),
        "bmp palette": (image.quantize(16), "BMP", {}),
        "tiff": (image, "TIFF", {}),
        "tiff lzw": (image, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (image, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff jpeg": (image, "TIFF", {"compression": "jpeg"}),
        "tiff fax": (image.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff float": (image.convert("F"), "TIFF", {}),
        "tiff 32 bit": (image.convert("I"), "TIFF", {}),
        "tiff of pages": (image, "TIFF", {"save_all": True, "append_images": [other.copy()]}),
        "avif": (image, "AVIF", {}),
        "avif animated": (image, "AVIF", {"save_all": True, "append_images": [other.copy()]}),
    }
    samples = {}
    for name, (picture, kind, options) in wanted.items():
        buffer = io.BytesIO()
        picture.copy().save(buffer, kind, **options)
        samples[name] = buffer.getvalue()
    return samples


SAMPLES = _samples()


def attempt(read: Callable[..., R], data: bytes, **options: Any) -> R | ErrorCode:
    """Return what ``read`` makes of it, or the code of its error. Any other exception goes on."""
    try:
        return read(data, max_pixels=LIMIT, **options)
    except ServiceError as error:
        return error.code


def is_read(data: bytes) -> bool:
    """Return whether it is read, by every way; fail where anything but a picture or the two codes comes out."""
    header = attempt(read_header, data)
    pictures = [attempt(decode, data), attempt(decode, data, at_least=5)]
    image = attempt(decode_image, data, keep_modes=("L", "P", "RGBA"))
    for picture in pictures:
        if isinstance(picture, Picture):
            assert isinstance(header, Header)
            assert (picture.width, picture.height) == (header.width, header.height)
            assert picture.pixels.ndim == 3
    answers = [header, *pictures, image]
    refusals = [answer for answer in answers if isinstance(answer, ErrorCode)]
    assert set(refusals) <= {ErrorCode.UNREADABLE_PICTURE, ErrorCode.PICTURE_TOO_LARGE}
    return not refusals


@pytest.mark.parametrize("name", SAMPLES)
def test_the_whole_file_is_read(name: str) -> None:
    assert is_read(SAMPLES[name])


def test_there_is_a_sample_of_every_format() -> None:
    assert {read_header(data, max_pixels=LIMIT).format for data in SAMPLES.values()} == {*FORMATS, "MPO"}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_short_anywhere_is_refused_or_read(name: str) -> None:
    data = SAMPLES[name]
    read = [is_read(data[:length]) for length in range(0, len(data), 1 + len(data) // 250)]
    assert not any(read[: len(read) // 10])  # a tenth of a file is never a picture


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a valid file with some bytes changed, left out, put in or repeated; more of it near the start, where the
    headers are.
    """
    data = bytearray(SAMPLES[draw(st.sampled_from(sorted(SAMPLES)))])
    for _ in range(draw(st.integers(1, 6))):
        end = draw(st.sampled_from([64, 200, len(data)]))
        at = draw(st.integers(0, max(0, min(end, len(data)) - 1)))
        change = draw(st.sampled_from(["set", "extreme", "cut", "insert", "repeat"]))
        if change == "set":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "extreme":
            data[at : at + 4] = draw(
                st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0"])
            )
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif change == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


@settings(max_examples=600)
@given(damaged())
def test_a_damaged_file_is_refused_or_read(data: bytes) -> None:
    is_read(data)


MAGIC = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
]
MAGIC += [b"\0\0\0\x20ftypavif", b""]


@settings(max_examples=400)
@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_rubbish_behind_a_magic_number_is_refused_or_read(magic: bytes, rubbish: bytes) -> None:
    is_read(magic + rubbish)
