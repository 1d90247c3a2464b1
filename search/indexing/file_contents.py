"""From a file to the bytes that are sent for it: a picture turned upright, a video's middle frame."""

from __future__ import annotations

from dataclasses import dataclass

from errors import ErrorCode, ServiceError
from search.indexing import fingerprint, video
from search.indexing.formats import Kind, kind_of
from search.indexing.orientation import upright
from search.indexing.places import open_file
from settings import Settings


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds. Of a video, nothing but what it is known by is in memory."""

    hash: bytes
    """(32,) bytes; see ``fingerprint``."""
    data: bytes | None
    """A picture's file as it lies there; None for a video."""


def read(uri: str, kind: Kind, size: int, config: Settings) -> Contents:
    """Read the file. Blocks.

    Raises ``ServiceError`` BODY_TOO_LARGE, and ``OSError`` or its library's own if it cannot be had.
    """
    with open_file(uri) as file:
        if kind is Kind.VIDEO:
            return Contents(fingerprint.of_video(file, size), None)
        data = file.read(config.max_body_bytes + 1)
    if len(data) > config.max_body_bytes:
        raise ServiceError(ErrorCode.BODY_TOO_LARGE, too_large(len(data), config.max_body_bytes))
    return Contents(fingerprint.of_picture(data), data)


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
    return upright(contents.data, max_pixels=config.max_picture_pixels)


def load(uri: str, config: Settings) -> bytes:
    """Return the bytes to compute on, of the file called ``uri``. Blocks. Raises as ``read`` and ``picture`` do."""
    if kind_of(uri) is Kind.VIDEO:
        return video.middle_frame(uri, max_pixels=config.max_picture_pixels)
    return picture(uri, read(uri, Kind.IMAGE, 0, config), config)
