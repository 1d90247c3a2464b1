"""Pictures of a folder as a CLIP image graph gets them: by the service's own preprocessing, in a mixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from errors import ServiceError
from runners.clip.preprocessing import Preprocessing

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp", ".gif"})
_MAX_PIXELS = 100_000_000


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures below ``folder``, shuffled in the same way at every call. Raise ``OSError``."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
    return sorted(found, key=lambda path: hashlib.sha256(str(path.relative_to(folder)).encode()).digest())


def read_pictures(paths: list[Path], preprocessing: Preprocessing, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield (h, w, 3) uint8 RGB of the first ``count`` of ``paths`` that can be read, at the model's size."""
    for path in paths:
        if count <= 0:
            return
        try:
            pixels = preprocessing.pixels(path.read_bytes(), max_pixels=_MAX_PIXELS)
        except (ServiceError, OSError):
            continue
        count -= 1
        yield pixels
