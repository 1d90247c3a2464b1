"""From a file to the bytes that are sent for it: a picture turned upright or converted, a video's middle frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from errors import ErrorCode, ServiceError
from search.indexing import video
from search.indexing.conversion import converted, foreign_format
from search.indexing.formats import Kind, kind_of
from search.indexing.orientation import upright
from search.indexing.places import open_file, shown_uri
from settings import Settings

_PIECE = 1 << 20
"""Bytes of each of the three pieces of a video that its hash is made of."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a file. Of a video, nothing but what it is known by is in memory."""

    hash: bytes
    """(32,) bytes: ``picture_hash`` or ``video_hash``."""
    data: bytes | None
    """A picture's file as it lies there; None for a video."""


def read(uri: str, kind: Kind, size: int, config: Settings) -> Contents:
    """Read the file. Blocks.

    Raises ``ServiceError`` BODY_TOO_LARGE, and ``OSError`` or its library's own if it cannot be had.
    """
    with open_file(uri) as file:
        if kind is Kind.VIDEO:
            return Contents(video_hash(file, size), None)
        data = file.read(config.max_body_bytes + 1)
    if len(data) > config.max_body_bytes:
        raise ServiceError(ErrorCode.BODY_TOO_LARGE, too_large(len(data), config.max_body_bytes))
    return Contents(picture_hash(data), data)


@contextmanager
def refusals_of_the_place(uri: str) -> Iterator[None]:
    """Raise what the place of the file ``uri`` says against reading it as ``ServiceError`` UNREADABLE_PICTURE. A
    ``ServiceError`` passes as it is.
    """
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:  # fsspec's places raise what their libraries do
        raise ServiceError(
            ErrorCode.UNREADABLE_PICTURE, f"The file {shown_uri(uri)} cannot be read: {type(error).__name__}: {error}"
        ) from error


def picture_hash(data: bytes) -> bytes:
    """Return (32,) bytes: SHA-256 of the file."""
    return hashlib.sha256(data).digest()


def video_hash(file: IO[bytes], size: int) -> bytes:
    """Return (32,) bytes: SHA-256 of the size and of the first, middle and last MiB.

    Videos are gigabytes, often on a disk far away. Two recordings of one size that agree in three MiB are one
    recording.
    """
    digest = hashlib.sha256(str(size).encode())
    for start in sorted({0, max(0, size // 2 - _PIECE // 2), max(0, size - _PIECE)}):
        file.seek(start)
        digest.update(file.read(_PIECE))
    return digest.digest()


def too_large(size: int, most: int) -> str:
    """Return a sentence that says that a file of ``size`` bytes is more than the ``most`` that are sent."""
    return (
        f"The file has {size:,} bytes or more, and the service takes {most:,}. Raise MAX_BODY_BYTES if it is to be "
        "read."
    )


def picture(uri: str, contents: Contents, config: Settings) -> bytes:
    """Return the bytes to send for a file that was read. Blocks.

    Raises ``ServiceError`` UNREADABLE_PICTURE, PICTURE_TOO_LARGE.
    """
    if contents.data is None:
        return video.middle_frame(uri, max_pixels=config.max_picture_pixels)
    foreign = foreign_format(contents.data, uri)
    if foreign is not None:
        return converted(contents.data, foreign, max_pixels=config.max_picture_pixels)
    return upright(contents.data, max_pixels=config.max_picture_pixels)


def load(uri: str, config: Settings) -> bytes:
    """Return the bytes to compute on, of the file called ``uri``. Blocks. Raises as ``read`` and ``picture`` do."""
    if kind_of(uri) is Kind.VIDEO:
        return video.middle_frame(uri, max_pixels=config.max_picture_pixels)
    return picture(uri, read(uri, Kind.IMAGE, 0, config), config)
