"""The pixels of one picture, decoded once for all tasks of its job that want them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ServiceError
from runners.pictures.decode import decode

_MAX_KEPT_PIXELS = 32_000_000
"""Of all pictures together that are decoded and wait for their next task (96 MB). One alone may be of any size."""


class _Kept:
    """Counts the pixels that wait for another task, in this process. Thread-safe."""

    def __init__(self) -> None:
        self.pixels = 0
        self._lock = threading.Lock()

    def try_add(self, size: int) -> bool:
        """Count ``size`` more if there is room."""
        with self._lock:
            if self.pixels and self.pixels + size > _MAX_KEPT_PIXELS:
                return False
            self.pixels += size
            return True

    def remove(self, size: int) -> None:
        """Count ``size`` less."""
        with self._lock:
            self.pixels -= size


kept = _Kept()


class SharedPixels:
    """The decoded picture of one job. Thread-safe.

    The pixels are kept until as many tasks as were announced have taken them, or ``release``. Where many decoded
    pictures wait for their next task already, they are not kept for it: that task then decodes again, unless somebody
    still holds them.
    """

    def __init__(self, data: bytes, *, upright: bool, readers: int) -> None:
        """Share the picture ``data``, an encoded file. ``readers``: tasks that will ``take`` the pixels."""
        self._data = data
        self._upright = upright
        self._readers = readers
        self._lock = threading.Lock()
        self._kept: NDArray[np.uint8] | None = None
        self._last: ref[NDArray[np.uint8]] | None = None
        self._failure: tuple[ErrorCode, str] | None = None
        self.is_opaque = False
        """True once decoding has shown that the picture was laid on no ground."""

    def take(self, *, max_pixels: int) -> NDArray[np.uint8]:
        """Return the pixels, (h, w, 3) uint8 RGB, which cannot be written to. To be called once by each task.

        Raises ``ServiceError`` as ``runners.pictures.decode`` does, without decoding again where that failed before.
        """
        with self._lock:
            pixels = self._kept if self._kept is not None or self._last is None else self._last()
            if pixels is None:
                pixels = self._decode(max_pixels)
            self._readers -= 1
            if self._readers <= 0:
                self._forget()
            elif self._kept is None and kept.try_add(pixels.shape[0] * pixels.shape[1]):
                self._kept = pixels
            return pixels

    def release(self) -> None:
        """Keep the pixels no longer: the job is over, whether or not all have taken them."""
        with self._lock:
            self._readers = 0
            self._forget()

    def _decode(self, max_pixels: int) -> NDArray[np.uint8]:
        if self._failure is not None:
            raise ServiceError(*self._failure)
        try:
            picture = decode(self._data, max_pixels=max_pixels, upright=self._upright)
        except ServiceError as error:
            self._failure = error.code, error.message
            raise
        self.is_opaque = not picture.transparent
        pixels = picture.pixels
        pixels.flags.writeable = False
        self._last = ref(pixels)
        return pixels

    def _forget(self) -> None:
        if self._kept is not None:
            kept.remove(self._kept.shape[0] * self._kept.shape[1])
        self._kept = None


@contextmanager
def shared_pixels(data: bytes, *, upright: bool, readers: int) -> Iterator[SharedPixels]:
    """Share the pixels of ``data`` among ``readers`` tasks for the length of the block."""
    shared = SharedPixels(data, upright=upright, readers=readers)
    try:
        yield shared
    finally:
        shared.release()
