"""Pictures in formats that the service does not read: told by their bytes, converted apart, refused when broken."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from errors import ErrorCode, ServiceError
from search.indexing.conversion import Foreign, converted, foreign_format
from search.indexing.conversion_process import NotAPicture, opened, upright
from search.indexing.file_contents import Contents, picture, picture_hash
from search.indexing.formats import Kind, kind_of
from settings import Settings

SIZE = (64, 40)
PACKAGES = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}


def scene() -> Image.Image:
    """Draw red left of blue, so that turning shows."""
    image = Image.new("RGB", SIZE, (220, 30, 30))
    image.paste((30, 30, 220), (32, 0, 64, 40))
    return image


def encoded(kind: str, **options: Any) -> bytes:
    """Encode ``scene``; skip the test where the package of the format is not installed."""
    if kind in PACKAGES:
        package = pytest.importorskip(PACKAGES[kind], reason=f"{PACKAGES[kind]} is not installed: no {kind} here")
        if kind == "HEIF":
            package.register_heif_opener()
    buffer = io.BytesIO()
    scene().save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    """Return EXIF data with an orientation."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def raw(orientation: int = 1) -> bytes:
    """Build a raw file as cameras write them: a TIFF header with a small thumbnail, JPEGs, and undecodable data."""
    tiff = exif(orientation)[6:]
    small = io.BytesIO()
    scene().resize((16, 10)).save(small, "JPEG")
    lossless = b"\xff\xd8\xff\xc3\x00\x0b\x0e\x10\x00\x10\x00\x01\x01\x11\x00" + bytes(range(256)) * 4
    return tiff + bytes(64) + small.getvalue() + lossless + encoded("JPEG", quality=95) + bytes(999)


def shown(data: bytes) -> Image.Image:
    """Open what was converted."""
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image.convert("RGB")


def sent(data: bytes, name: str) -> Image.Image:
    """Return the picture that is sent for a file of that name."""
    contents = Contents(picture_hash(data), data)
    return shown(picture(f"/photos/{name}", contents, Settings(_env_file=None)))


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.hif", "a.jxl", "a.dng", "a.NEF", "a.cr3", "a.avif", "a.jpg"])
def test_files_of_these_names_are_pictures(name: str) -> None:
    assert kind_of(name) is Kind.IMAGE


@pytest.mark.parametrize("name", ["photo.heic", "photo.jxl", "photo.dng", "photo.jpg"])
def test_a_jpeg_is_a_jpeg_whatever_its_name(name: str) -> None:
    data = encoded("JPEG")
    assert foreign_format(data, name) is None
    assert sent(data, name).size == SIZE


@pytest.mark.parametrize("kind", ["HEIF", "JXL"])
@pytest.mark.parametrize("name", ["photo", "photo.jpg", "photo.heic"])
def test_what_phones_write_is_known_by_its_bytes_and_converted(kind: Foreign, name: str) -> None:
    data = encoded(kind, quality=95)
    assert foreign_format(data, name) == kind
    image = sent(data, name)
    assert image.size == SIZE
    assert np.abs(np.asarray(image)[20, 8].astype(int) - (220, 30, 30)).max() < 30


def test_a_lying_heic_is_turned_once() -> None:
    image = sent(encoded("HEIF", quality=95, exif=exif(6)), "photo.heic")
    assert image.size == SIZE[::-1]
    assert np.abs(np.asarray(image)[8, 20].astype(int) - (220, 30, 30)).max() < 30


def test_an_avif_is_read_as_it_is() -> None:
    assert foreign_format(encoded("AVIF"), "photo.heic") is None


@pytest.mark.parametrize(("orientation", "size"), [(1, SIZE), (6, SIZE[::-1])])
def test_of_a_raw_file_the_largest_preview_is_taken_and_turned(orientation: int, size: tuple[int, int]) -> None:
    data = raw(orientation)
    assert foreign_format(data, "shot.NEF") == "RAW"
    assert foreign_format(data, "scan.tif") is None
    assert sent(data, "shot.NEF").size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_preview_of_a_raw_file_is_turned_as_a_jpeg_of_that_orientation(orientation: int) -> None:
    turned = upright(opened(raw(orientation), "RAW"), max_pixels=10**8)
    jpeg = Image.open(io.BytesIO(encoded("JPEG", quality=95, exif=exif(orientation))))
    assert np.array_equal(np.asarray(turned), np.asarray(ImageOps.exif_transpose(jpeg)))


def test_a_preview_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = raw(6)
    monkeypatch.setattr(JpegImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(NotAPicture, match="more than the 100"):
        upright(opened(data, "RAW"), max_pixels=100)


def test_a_raw_file_without_a_preview_is_refused() -> None:
    with pytest.raises(ServiceError, match="no preview") as caught:
        converted(b"FUJIFILMCCD-RAW " + bytes(500), "RAW", max_pixels=10**8)
    assert caught.value.code is ErrorCode.UNREADABLE_PICTURE


@pytest.mark.parametrize("kind", ["HEIF", "JXL"])
def test_a_bomb_and_a_broken_file_are_refused(kind: Foreign) -> None:
    data = encoded(kind)
    for wrong, most in ((data, 100), (data[: len(data) * 2 // 3], 10**8)):
        with pytest.raises(ServiceError) as caught:
            converted(wrong, kind, max_pixels=most)
        assert caught.value.code is ErrorCode.UNREADABLE_PICTURE
