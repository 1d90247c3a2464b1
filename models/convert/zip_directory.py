"""The places of a ZIP archive's members in its file, read without unpacking anything.

``zipfile`` would do, but for three things that matter with a stranger's file: it reads a directory of any size into
memory, it takes members that overlap, and it does not tell where a member's bytes begin. What PyTorch writes is a small
part of the format (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT): no comment, no encryption, no
compression. Anything else is refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from models.convert.refusal import shown

_END, _END_64, _LOCATOR_64, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_LARGEST_DIRECTORY = 16 * 2**20
"""Bytes. A checkpoint with its optimizer has some 2,000 members of 100 bytes."""

_PIECE = 2**20
"""Bytes that are read at a time."""


class NotReadable(ValueError):
    """The file is no archive as PyTorch writes one; the message says why, without naming the file."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member's content in the file."""

    offset: int
    """Bytes."""
    size: int
    """Bytes."""
    crc: int
    """CRC-32 of the content, as the directory has it; 0 where the writer left it out, as PyTorch can be told to."""


def read_directory(file: BinaryIO) -> Mapping[str, Member]:
    """Return all members by name. Raises ``NotReadable``, ``OSError``."""
    length = file.seek(0, os.SEEK_END)
    begin, size = _find_directory(file, length)
    if size > _LARGEST_DIRECTORY:
        raise NotReadable(f"its directory has {size:,} bytes")
    members: dict[str, Member] = {}
    ends = 0
    for name, header, stored, crc in sorted(_entries(_read(file, begin, size)), key=lambda entry: entry[1]):
        if name in members:
            raise NotReadable(f"it holds {shown(name)} twice")
        offset = header + _local_header(file, header, name)
        if header < ends or offset + stored > begin:
            raise NotReadable(f"its member {shown(name)} overlaps another, or lies outside of the file")
        ends = offset + stored
        members[name] = Member(offset, stored, crc)
    return members


def check_content(file: BinaryIO, members: Mapping[str, Member]) -> None:
    """Read ``members``, by name, and compare each with its CRC-32. Raises ``NotReadable``, ``OSError``."""
    for name, member in members.items():
        crc, left = 0, member.size
        file.seek(member.offset)
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            crc, left = zlib.crc32(piece, crc), left - len(piece)
        if member.crc not in (0, crc):
            raise NotReadable(f"bytes of its member {shown(name)} have changed since it was written (CRC-32)")


def _find_directory(file: BinaryIO, length: int) -> tuple[int, int]:
    """Return where the directory begins, and its size in bytes."""
    if length < 22:
        raise NotReadable("it is too short")
    end = _read(file, length - 22, 22)
    if not end.startswith(_END):
        raise NotReadable("it has no directory at its end: it is truncated, or something was added to it")
    size, begin = struct.unpack("<12xII2x", end)
    if 0xFFFFFFFF in (size, begin) or b"\xff\xff" in (end[8:10], end[10:12]):
        (position,) = struct.unpack("<8xQ4x", _expect(_read(file, length - 42, 20), _LOCATOR_64))
        size, begin = struct.unpack("<40xQQ", _expect(_read(file, position, 56), _END_64))
    if begin + size > length:
        raise NotReadable("its directory lies outside of the file")
    return begin, size


def _entries(directory: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, position of the local header, size in bytes and CRC-32 of every member."""
    position = 0
    while position < len(directory):
        head = _expect(directory[position : position + 46], _ENTRY)
        if len(head) < 46:
            raise NotReadable("its directory is cut off")
        flags, method, crc, packed, size, named, extra, comment, header = struct.unpack("<8xHH4xIIIHHH8xI", head)
        rest = directory[position + 46 : position + 46 + named + extra]
        position += 46 + named + extra + comment
        name = rest[:named].decode("utf-8", "replace")
        if 0xFFFFFFFF in (packed, size, header):
            size, packed, header = _wide(rest[named:], size, packed, header)
        if flags & 1 or method != 0 or packed != size:
            raise NotReadable(f"its member {shown(name)} is compressed or encrypted, which PyTorch's are not")
        yield name, header, size, crc


def _wide(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Return the three numbers with those that did not fit 32 bits taken from the extra field of ZIP64."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - position) // 8}Q", extra, position))
            found = [next(values, -1) if value == 0xFFFFFFFF else value for value in (size, packed, header)]
            if -1 not in found:
                return found[0], found[1], found[2]
        position += length
    raise NotReadable("a member's size is missing")


def _local_header(file: BinaryIO, position: int, name: str) -> int:
    """Return the size in bytes of a member's local header."""
    head = _expect(_read(file, position, 30), _LOCAL)
    method, named, extra = struct.unpack("<8xH16xHH", head)
    if method != 0 or _read(file, position + 30, named).decode("utf-8", "replace") != name:
        raise NotReadable(f"its directory and its member {shown(name)} differ")
    return int(30 + named + extra)


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    if not 0 <= position <= file.seek(0, os.SEEK_END) - size:
        raise NotReadable("a position lies outside of the file")
    file.seek(position)
    content = file.read(size)
    if len(content) != size:
        raise NotReadable("it is cut off")
    return content


def _expect(content: bytes, signature: bytes) -> bytes:
    if not content.startswith(signature):
        raise NotReadable("a header is damaged")
    return content
