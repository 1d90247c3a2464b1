"""The formats of files that are indexed, by the ends of their names."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from PIL import Image

from runners.pictures.header import FORMATS
from search.indexing.conversion import RAW_SUFFIXES

VIDEO_SUFFIXES = frozenset({"mp4", "mov", "mkv", "avi", "webm", "m4v"})
CONVERTED_SUFFIXES = frozenset({"heic", "heif", "hif", "jxl"}) | RAW_SUFFIXES
"""Pictures that are converted before the service sees them, unless they turn out to be of a format that it reads."""


class Kind(str, Enum):
    """The kind of a file, by which it is decoded."""

    IMAGE = "image"
    VIDEO = "video"


@lru_cache(maxsize=1)
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, without the dot, of the formats that ``runners.pictures.decode`` reads."""
    Image.init()
    return frozenset(suffix[1:] for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO"))


def kind_of(name: str) -> Kind | None:
    """Return what the file called ``name`` is, or None if it is not indexed."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in image_suffixes() or suffix in CONVERTED_SUFFIXES:
        return Kind.IMAGE
    return Kind.VIDEO if suffix in VIDEO_SUFFIXES else None
