"""Reading a header costs little whatever the file holds, and changes nothing of the process."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from errors import ErrorCode, ServiceError
from runners.pictures.decode import decode
from runners.pictures.header import read_header
from tests.runners.pictures.makers import MANY, encoded, gradient, python
from tests.runners.pictures.test_refused import DEFLATED_ZEROS, png, png_chunk, tiff

MOST_CALLS = 20_000
"""Of functions, by one reading: some milliseconds."""


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def directory(entries: int) -> bytes:
    """Return a TIFF structure of one directory with private tags."""
    tags = b"".join(struct.pack("<HHLL", 0x8000 + number % 30_000, 3, 1, 1) for number in range(entries))
    return b"II*\0" + struct.pack("<LH", 8, entries) + tags + bytes(4)


def big_tiff(entries: int) -> bytes:
    tags = b"".join(struct.pack("<HHQQ", number % 65536, 4, 1, 1) for number in range(entries))
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, entries) + tags + bytes(8)


JPEG = encoded(gradient(), "JPEG")
LONG_EXIF = directory(65_000)
HOSTILE = {
    "a BigTIFF of 90,000 tags": big_tiff(90_000),
    "a TIFF of 60,000 tags": directory(60_000),
    "a TIFF of 99,999 strips": tiff(
        (257, 1, 99_999), (278, 1, 1), (273, 99_999, 200), (279, 99_999, 200), content=bytes(5 * 10**5)
    ),
    "a JPEG with 5,400 EXIF tags": JPEG[:2] + segment(0xE1, b"Exif\0\0" + directory(5_400)) + JPEG[2:],
    "a JPEG with EXIF in many segments": JPEG[:2]
    + b"".join(segment(0xE1, b"Exif\0\0" + LONG_EXIF[at : at + 60_000]) for at in range(0, len(LONG_EXIF), 60_000))
    + JPEG[2:],
    "a JPEG with 5,000 MPF tags": JPEG[:2] + segment(0xE2, b"MPF\0" + directory(5_000)) + JPEG[2:],
    "a JPEG of 100,000 comments": JPEG[:2] + segment(0xFE, b"") * 100_000 + JPEG[2:],
    "a JPEG with 10 MB of padding": JPEG[:2] + b"\xff" * 10**7 + JPEG[2:],
    "a PNG of 200,000 chunks": png(1, 1, png_chunk(b"prVt", b"") * 200_000, pixels=bytes(4)),
    "a PNG of 60 giant texts": png(1, 1, png_chunk(b"zTXt", b"k\0\0" + DEFLATED_ZEROS) * 60, pixels=bytes(4)),
    "a GIF of 100,000 extensions": b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6) + b"!\xfe\0" * 10**5,
}


def counted(work: Callable[[], object]) -> int:
    """Return how many calls of functions, of Python's and of C's, ``work`` takes: its cost, whatever the machine."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_is_read_or_refused_at_little_cost(name: str) -> None:
    read_header(encoded(gradient(), "TIFF"), max_pixels=MANY)  # so that plugins are imported

    codes = set()

    def read() -> None:
        try:
            read_header(HOSTILE[name], max_pixels=MANY)
        except ServiceError as error:
            codes.add(error.code)

    assert counted(read) < MOST_CALLS
    assert codes <= {ErrorCode.UNREADABLE_PICTURE}


def test_metadata_of_a_jpeg_is_left_out_and_its_orientation_is_not() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(), "JPEG", exif=exif, quality=95)
    full = data[:2] + segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 300 + data[2:]
    plain, turned = decode(full, max_pixels=MANY), decode(full, max_pixels=MANY, upright=True)
    assert (plain.pixels == decode(data, max_pixels=MANY).pixels).all()
    assert (turned.width, turned.height) == (plain.height, plain.width)


def test_a_tiff_of_many_strips_has_the_size_that_it_is_decoded_at() -> None:
    data = encoded(gradient(40, 3_000), "TIFF", tiffinfo={278: 1})
    header, picture = read_header(data, max_pixels=MANY), decode(data, max_pixels=MANY)
    assert (header.format, header.width, header.height) == ("TIFF", 40, 3_000)
    assert picture.pixels.shape == (3_000, 40, 3)


_GUARD = """
import warnings
from PIL import Image
before = Image.MAX_IMAGE_PIXELS
import runners.pictures.decode
from runners.pictures.header import read_header
assert Image.MAX_IMAGE_PIXELS == before
Image.MAX_IMAGE_PIXELS = 100
with open(__import__("sys").argv[1], "rb") as file:
    data = file.read()
assert read_header(data, max_pixels=10_000).width == 60  # our limit, not Pillow's
try:
    Image.open(__import__("sys").argv[1])
except Image.DecompressionBombError:
    pass
else:
    raise AssertionError("Pillow's guard is off")
Image.MAX_IMAGE_PIXELS = 2_000
with warnings.catch_warnings(record=True) as caught:
    Image.open(__import__("sys").argv[1])
assert [one.category for one in caught] == [Image.DecompressionBombWarning], caught
"""


def test_pillows_own_guard_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(encoded(gradient(), "PNG"))
    python(_GUARD, tmp_path / "picture")


_WITHOUT_NUMPY = """
import sys
import runners.pictures.header
assert "numpy" not in sys.modules and "cv2" not in sys.modules
"""


def test_reading_headers_needs_no_numpy() -> None:
    python(_WITHOUT_NUMPY)
