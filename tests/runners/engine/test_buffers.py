"""Blocks of memory that are lent, used again, and freed at rest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from runners.engine.buffers import Buffers
from runners.engine.idle import trim_idle_sessions


def test_the_same_memory_is_lent_again_in_another_shape() -> None:
    buffers = Buffers()
    with buffers.borrow((2, 3, 4), np.float32) as first:
        first[:] = 7
        address = first.ctypes.data
    with buffers.borrow((12,), np.uint8) as second:
        assert second.shape == (12,)
        assert second.dtype == np.uint8
        assert second.ctypes.data == address
    with buffers.borrow((2, 3, 4), np.float32) as third:
        assert third.ctypes.data == address


def test_callers_at_the_same_time_get_memory_of_their_own() -> None:
    buffers, together = Buffers(), Barrier(4)

    def write(value: int) -> bool:
        with buffers.borrow((1000,), np.int64) as array:
            array[:] = value
            together.wait(timeout=30)
            return bool((array == value).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(write, range(4)))


def test_memory_comes_back_after_a_failure() -> None:
    buffers = Buffers()
    addresses: list[int] = []

    def fail() -> None:
        with buffers.borrow((10,), np.uint8) as array:
            addresses.append(array.ctypes.data)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with buffers.borrow((10,), np.uint8) as again:
        assert again.ctypes.data == addresses[0]


def test_memory_is_freed_at_rest_but_not_what_is_lent() -> None:
    buffers = Buffers()
    with buffers.borrow((10,), np.uint8) as array:
        array[:] = 5
        assert not buffers.trim(0)
        assert (array == 5).all()
    assert not buffers.trim(3600)
    assert trim_idle_sessions(0) >= 1
    assert not buffers.trim(0)  # nothing is left
