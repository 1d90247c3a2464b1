"""Whole pictures, decoded once for all tasks of a process that work on them at the same time.

A request may ask for faces and text of one picture, and both want all its pixels. Nothing is kept for the sake of it:
the pixels are found again for as long as somebody holds them, and their memory goes with the last who does.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from runners.pictures.decode import decode

_pixels: WeakValueDictionary[tuple[bytes, bool], NDArray[np.uint8]] = WeakValueDictionary()
# The second to ask waits for the first. Pictures share a lock by chance alone: there are more of these than threads
# that decode.
_locks = tuple(threading.Lock() for _ in range(64))


def decode_shared(data: bytes, *, max_pixels: int, upright: bool = False) -> NDArray[np.uint8]:
    """The pixels of a whole picture as ``runners.pictures.decode`` gives them, (h, w, 3) uint8 RGB; they must not be
    written to.

    Raises ``ServiceError`` as ``decode`` does. May be called from several threads.
    """
    digest = blake2b(
        data, digest_size=16
    ).digest()  # not a faster hash: a collision would answer with somebody else's picture
    with _locks[digest[0] % len(_locks)]:
        pixels = _pixels.get((digest, upright))
        if pixels is None or pixels.shape[0] * pixels.shape[1] > max_pixels:
            pixels = decode(data, max_pixels=max_pixels, upright=upright).pixels
            pixels.flags.writeable = False
            _pixels[digest, upright] = pixels
    return pixels
