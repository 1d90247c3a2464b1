"""Options of glibc's allocator for processes that hold pictures: freed memory of any size goes back to the system.

By default glibc serves blocks of up to 32 MB from its heap once one of that size was freed (mallopt(3),
M_MMAP_THRESHOLD), a heap shrinks only from its end, and there are eight heaps per core. Measured with OCR detection
over 39 sizes: 328 MB instead of 467 MB, at the same speed. Measured with the gateway, after hostile clients that send
bodies of many sizes: 109 MB instead of 151, from 104 before them.

Half a MiB is above what a preview's body and one output of the faces' detector take: at 256 KiB each of these was a
mapping of its own, whose pages the kernel had to clear (250 page faults and 0.9 ms of a face request more), at 1 MiB
processes with CLIP grew by 30 MB.
"""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 512 * 1024
"""Bytes from which on a block is a mapping of its own, unmapped when it is freed."""
_ARENAS = 2


def configure_allocator() -> bool:
    """Set glibc's allocator options for this process; call it before threads start.

    Returns False, and changes nothing, where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return all([mallopt(_M_ARENA_MAX, _ARENAS), mallopt(_M_MMAP_THRESHOLD, _LARGE), mallopt(_M_TRIM_THRESHOLD, _LARGE)])
