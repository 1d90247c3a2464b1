"""Removal of unused metadata, and bounds on directories, before Pillow parses a file.

Pillow reads all metadata of a file when it opens it, in Python: 90,000 tags of a TIFF take half a second, 5,000 of an
EXIF block 50 ms. Of a JPEG or PNG only what decoding needs is left here, so that neither the amount nor the damage of
the rest matters.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

MAX_TIFF_PIECES = 100_000
"""Strips or tiles; Pillow keeps some 300 bytes for each, in Python. One line a strip is 10,000 for a square 100
megapixels.
"""
_MAX_ENTRIES = 500
"""Entries of one directory of tags (TIFF, EXIF). Cameras and editors write fewer than 100."""
_TIFF_PIECES = frozenset({273, 279, 324, 325})
"""Tags: StripOffsets, StripByteCounts, TileOffsets, TileByteCounts (TIFF 6.0)."""
_WIDTH, _HEIGHT, _ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 274, 322, 323
_INTEGERS = {1: "B", 3: "H", 4: "L", 16: "Q"}
"""Types of tags that hold whole numbers, as ``struct`` writes them."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_MAX_EXIF = 2**16
_MAX_PNG_CHUNKS = 2_000
"""Chunks before the pixels."""
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_MAX_JPEG_SEGMENTS = 2_000
"""Segments before the pixels. 100 MB of profiles and thumbnails take 1,600."""


@dataclass(frozen=True, slots=True)
class TiffDirectory:
    """The first directory of a TIFF, as far as it tells of the picture."""

    entries: int
    pieces: int = 0
    """Strips or tiles."""
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels, after rotation by the orientation tag. 0 where a tag is missing."""
    tile: tuple[int, int] = (0, 0)
    """Width and height of a tile; 0 where there are strips."""

    @property
    def is_acceptable(self) -> bool:
        """Return whether Pillow may parse it."""
        return self.entries <= _MAX_ENTRIES and self.pieces <= MAX_TIFF_PIECES


def jpeg_without_metadata(data: bytes, *, header_only: bool = False) -> bytes | None:
    """Return a JPEG without application data that decoding does not need: profiles, comments, thumbnails, XMP.

    Kept are JFIF's and Adobe's segments, which tell colours, a first EXIF block and an MPF block of moderate size.
    ``header_only``: end before the pixels. Returns ``data`` itself where it is not a regular sequence of segments, and
    None where it has too many of them.
    """
    kept: list[tuple[int, int]] = []
    position, has_exif = 2, False
    for _ in range(_MAX_JPEG_SEGMENTS):
        if data[position : position + 1] != b"\xff" or len(data) < position + 4:
            return data
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # start of scan
            break
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9 or length < 2:  # no segment with a length
            return data
        end = position + 2 + length
        is_exif = marker == 0xE1 and not has_exif and _is_small_directory(data, position + 4, end, b"Exif\0\0")
        has_exif = has_exif or is_exif
        is_mpf = marker == 0xE2 and _is_small_directory(data, position + 4, end, b"MPF\0")
        if (not 0xE1 <= marker <= 0xEF and marker != 0xFE) or marker == 0xEE or is_exif or is_mpf:
            kept.append((position, end))
        position = end
    else:
        return None
    scan_end = position + 2 + length
    if not header_only and sum(end - start for start, end in kept) == position - 2:
        return data
    parts = [data[:2], *(data[start:end] for start, end in kept)]
    return b"".join([*parts, data[position : scan_end if header_only else len(data)]])


def lacks_end(data: bytes) -> bool:
    """Return whether a JPEG has no end-of-image marker behind its last scan."""
    # Not the last scan of all, which mostly begins hundreds of kilobytes before the end.
    return data.find(_JPEG_SCAN, max(0, data.rfind(_JPEG_END))) >= 0


def with_end(data: bytes) -> bytes:
    """Return a JPEG with an end-of-image marker: as it is, if it has one."""
    if not lacks_end(data):
        return data
    return data + (_JPEG_END[1:] if data.endswith(_JPEG_END[:1]) else _JPEG_END)


def _is_small_directory(data: bytes, start: int, end: int, mark: bytes) -> bool:
    """Return whether a segment begins with ``mark`` and a TIFF structure of few entries."""
    if data[start : start + len(mark)] != mark:
        return False
    directory = tiff_directory(data[start + len(mark) : end])
    return directory is not None and directory.is_acceptable


def png_without_metadata(data: bytes, *, header_only: bool = False) -> bytes | None:
    """Return a PNG with only what decoding needs: header, palette, transparency, orientation, pixels.

    ``header_only``: end where the pixels begin. Chunks that are dropped may be damaged. Returns ``data`` itself where
    it is no sequence of chunks, and None where it has too many of them.
    """
    parts, position = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        if kind == b"IDAT":
            break
        if end > len(data) or not kind.isalpha():
            return data
        is_critical = kind[:1].isupper()
        is_used = (kind == b"tRNS" and _is_transparency(data, length)) or (
            kind == b"eXIf" and _is_whole_exif(data, position, end)
        )
        if is_critical or is_used:
            parts.append(data[position:end])
        position = end
    else:
        return None
    if header_only:
        return b"".join([*parts, data[position : position + 8]])
    end_of_pixels = _end_of_pixels(data, position)
    if end_of_pixels is None:
        return None
    return b"".join([*parts, data[position:end_of_pixels], _PNG_END if end_of_pixels <= len(data) else b""])


def _is_transparency(data: bytes, length: int) -> bool:
    """Return whether a chunk tRNS of ``length`` bytes fits the colours of this PNG (PNG, third edition, 11.3.2.1)."""
    colours = data[25:26]
    return length == {b"\0": 2, b"\2": 6}.get(colours, -1) or colours == b"\3"


def _is_whole_exif(data: bytes, position: int, end: int) -> bool:
    """Return whether the chunk at ``position`` has a right checksum and a TIFF structure of few entries."""
    content = data[position + 8 : end - 4]
    checksum = int.from_bytes(data[end - 4 : end], "big")
    if len(content) > _MAX_EXIF or zlib.crc32(data[position + 4 : end - 4]) != checksum:
        return False
    directory = tiff_directory(content)
    return directory is not None and directory.is_acceptable


def _end_of_pixels(data: bytes, position: int) -> int | None:
    """Return where the consecutive IDAT chunks from ``position`` on end; None where they are absurdly small."""
    for _ in range(_MAX_PNG_CHUNKS + len(data) // 256):
        if data[position + 4 : position + 8] != b"IDAT":
            return position
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return None


def tiff_directory(data: bytes) -> TiffDirectory | None:
    """Read the first directory of a TIFF; None where ``data`` is none or is cut short before its directory.

    Reads at most as many entries as a file may have.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    # A directory is a number of entries, then (tag, type, count, value); BigTIFF has wider fields (TIFF 6.0, section
    # 2).
    is_big = 43 in data[2:4]
    start, number, entry, inline = (8, "Q", "HHQ8s", 8) if is_big else (4, "H", "HHL4s", 4)
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "L"), data, start)
        (entries,) = struct.unpack_from(order + number, data, offset)
    except (struct.error, OverflowError):
        return None
    if entries > _MAX_ENTRIES:
        return TiffDirectory(entries)
    offset, size = offset + struct.calcsize(order + number), struct.calcsize(order + entry)
    values: dict[int, int] = {}
    pieces = 0
    for position in range(offset, min(offset + entries * size, len(data) - size + 1), size):
        tag, kind, count, value = struct.unpack_from(order + entry, data, position)
        if tag in _TIFF_PIECES:
            pieces = max(pieces, count)
        elif kind in _INTEGERS and count == 1 and struct.calcsize(order + _INTEGERS[kind]) <= inline:
            values.setdefault(tag, struct.unpack_from(order + _INTEGERS[kind], value)[0])
    shape = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    is_lying = values.get(_ORIENTATION, 1) in (5, 6, 7, 8)
    tile = values.get(_TILE_WIDTH, 0), values.get(_TILE_HEIGHT, 0)
    return TiffDirectory(entries, pieces, shape[::-1] if is_lying else shape, tile)
