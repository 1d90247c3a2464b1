"""Which pictures are refused, and that small files that claim much cost little."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import pytest

from errors import ErrorCode, ServiceError
from runners.pictures.decode import decode
from tests.runners.pictures.makers import HEIGHT, MANY, WIDTH, encoded, gradient, python


def refused(data: bytes, max_pixels: int = MANY) -> ServiceError:
    """Return the error of decoding."""
    with pytest.raises(ServiceError) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"a text file\n" * 9, b"\xff\xd8\xff", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7"],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    error = refused(data)
    assert error.code is ErrorCode.UNREADABLE_PICTURE
    assert "cannot be read" in error.message


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "JPEG2000", "PCX", "EPS", "DDS"])
def test_formats_outside_the_list_are_refused(kind: str) -> None:
    assert refused(encoded(gradient(), kind)).code is ErrorCode.UNREADABLE_PICTURE


def test_the_limit_on_pixels_is_inclusive() -> None:
    data = encoded(gradient(), "PNG")
    assert decode(data, max_pixels=WIDTH * HEIGHT).width == WIDTH
    error = refused(data, max_pixels=WIDTH * HEIGHT - 1)
    assert error.code is ErrorCode.PICTURE_TOO_LARGE
    assert "60 x 40" in error.message
    assert "2,399" in error.message
    assert "MAX_PICTURE_PIXELS" in error.message


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *extra: bytes, pixels: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + png_chunk(b"IDAT", zlib.compress(pixels))
        + png_chunk(b"IEND", b"")
    )


def tiff(*tags: tuple[int, int, int], order: str = "<", content: bytes = b"") -> bytes:
    """Return a TIFF of one directory: (tag, number of values, value), all 32 bits; 10 x 10 grey unless a tag says
    otherwise.
    """
    usual = {256: (1, 10), 257: (1, 10), 258: (1, 8), 259: (1, 1), 262: (1, 1), 277: (1, 1)}
    merged = sorted((usual | {tag: (count, value) for tag, count, value in tags}).items())
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(struct.pack(order + "HHLL", tag, 4, count, value) for tag, (count, value) in merged)
    return mark + struct.pack(order + "LH", 8, len(merged)) + entries + bytes(4) + content


GIF_LARGER_THAN_ITS_CANVAS = (
    b"GIF89a"
    + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0)
    + bytes(6)
    + b","
    + struct.pack("<HHHHB", 0, 0, 30000, 30000, 0)
    + b"\2\2\x4c\1\0;"
)
DEFLATED_ZEROS = zlib.compress(bytes(50_000_000), 9)

BOMBS = {
    "png of 30000 x 30000": (png(30000, 30000, pixels=bytes(100_000)), ErrorCode.PICTURE_TOO_LARGE),
    "png of 2^31 x 2^31": (png(2**31 - 1, 2**31 - 1), ErrorCode.PICTURE_TOO_LARGE),
    "gif whose frame is larger than its canvas": (GIF_LARGER_THAN_ITS_CANVAS, ErrorCode.PICTURE_TOO_LARGE),
    "tiff whose tile is larger than it": (
        tiff((259, 1, 8), (322, 1, 30000), (323, 1, 30000), (324, 1, 500), (325, 1, 900_000), content=DEFLATED_ZEROS),
        ErrorCode.PICTURE_TOO_LARGE,
    ),
    "tiff of 1,000,000 strips": (
        tiff((257, 1, 10**6), (278, 1, 1), (273, 10**6, 200), (279, 10**6, 200), content=bytes(5 * 10**6)),
        ErrorCode.UNREADABLE_PICTURE,
    ),
    "tiff of 1,000,000 tiles, big-endian": (
        tiff((322, 1, 16), (323, 1, 16), (324, 10**6, 200), (325, 10**6, 200), order=">", content=bytes(5 * 10**6)),
        ErrorCode.UNREADABLE_PICTURE,
    ),
    "big tiff of a million entries": (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**6) + bytes(2 * 10**7),
        ErrorCode.UNREADABLE_PICTURE,
    ),
    "tiff that claims more metadata than it has": (
        tiff((270, 2**31, 8), (273, 2**30, 8), (279, 2**30, 8)),
        ErrorCode.UNREADABLE_PICTURE,
    ),
}


METADATA = {
    "a giant text": png_chunk(b"zTXt", b"k\0\0" + DEFLATED_ZEROS),
    "a giant profile": png_chunk(b"iCCP", b"k\0\0" + DEFLATED_ZEROS),
    "a wrong checksum": png_chunk(b"pHYs", bytes(9))[:-1] + b"?",
    "an odd profile": png_chunk(b"iCCP", b"no null byte"),
    "a damaged EXIF block": png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "a short chunk": png_chunk(b"gAMA", b""),
    "a short transparent colour": png_chunk(b"tRNS", bytes(2)),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("upright", [False, True])
def test_metadata_of_a_png_that_is_not_used_does_not_matter(name: str, upright: bool) -> None:
    chunk = METADATA[name]
    data = png(1, 1, chunk, pixels=b"\0\1\2\3")
    assert decode(data, max_pixels=MANY, upright=upright).pixels.tolist() == [[[1, 2, 3]]]
    end = len(data) - 12
    assert decode(data[:end] + chunk + data[end:], max_pixels=MANY).pixels.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_claims_much_is_refused(name: str) -> None:
    data, code = BOMBS[name]
    assert refused(data).code is code


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(gradient(), "JPEG", progressive=True)
    assert decode(data, max_pixels=MANY).width == WIDTH
    last = data.rfind(b"\xff\xda")
    assert "scans" in refused(data[:-2] + data[last:-2] * 500 + data[-2:]).message


def test_directories_that_point_in_a_circle_end() -> None:
    data = bytearray(tiff((278, 1, 10), (273, 1, 200), (279, 1, 100), content=bytes(300)))
    data[8 + 2 + 12 * 9 : 8 + 2 + 12 * 9 + 4] = struct.pack("<L", 8)
    assert decode(bytes(data), max_pixels=MANY).pixels.shape == (10, 10, 3)


def _with_metadata(name: str) -> bytes:
    return png(1, 1, METADATA[name], pixels=bytes(4))


_PEAK = """
import resource, sys
from PIL import Image
from runners.pictures.decode import decode
from runners.pictures.header import read_header
from errors import ServiceError
Image.init()
decode(open(sys.argv[1], "rb").read(), max_pixels=100_000_000)  # a small good one, so that code and codecs are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    for ask in (read_header, decode):
        try:
            ask(data, max_pixels=100_000_000)
        except ServiceError:
            pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in KiB on Linux only")
def test_refusing_bombs_takes_little_memory(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(encoded(gradient(), "TIFF", compression="tiff_adobe_deflate"))
    paths = []
    for number, data in enumerate([*(data for data, _ in BOMBS.values()), *map(_with_metadata, METADATA)]):
        paths.append(tmp_path / f"bomb{number}")
        paths[-1].write_bytes(data)
    # The largest of the files is 20 MB, held twice; the bombs would be gigabytes.
    assert int(python(_PEAK, good, *paths)) < 100
