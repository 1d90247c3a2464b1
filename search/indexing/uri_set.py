"""The files that a walk has seen: eight bytes each, so that a million take 8 MB."""

from __future__ import annotations

from array import array
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


class UriSet:
    """A set of uris that can only grow, and may take a uri for one that it has: at a million, once in ten million
    million questions.
    """

    def __init__(self) -> None:
        self._digests = array("Q")
        self._sorted: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, uri: str) -> None:
        self._digests.append(_digest(uri))
        self._sorted = None

    def __contains__(self, uri: str) -> bool:
        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(self._digests.tobytes(), np.uint64))
        wanted = np.uint64(_digest(uri))
        place = int(np.searchsorted(self._sorted, wanted))
        return place < len(self._sorted) and self._sorted[place] == wanted


def _digest(uri: str) -> int:
    return int.from_bytes(blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
