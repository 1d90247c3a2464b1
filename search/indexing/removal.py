"""Files that are no longer there: what the index has of them is removed, unless it looks as if a disk were not
there.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from search.indexing.retries import RetryingDatabase
from search.store.index import delete_assets, drop_failures, failed_uris_after, uris_after

PAGE = 2000
FEW = 10
"""So many may be gone although they were more than half."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The outcome for the files that a complete walk did not see."""

    removed: int
    refusal: str | None = None
    """Why nothing was removed although something is gone."""


class UriSet:
    """The uris that a walk has seen, eight bytes each, so that a million take 8 MB.

    It may take a uri for one that it has: at a million, once in ten million million questions.
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


async def remove_gone(database: RetryingDatabase, owner: str, root: str, seen: UriSet, *, prune: bool) -> Removal:
    """Remove from the index what lies below ``root`` and is not among ``seen``, the uris of a walk that was complete.

    Refused where nothing was seen, or more than half (and more than ``FEW``) is gone, unless ``prune``.
    """
    known = gone = 0
    async for page in _pages(database, owner, root):
        known += len(page)
        gone += sum(uri not in seen for uri, _ in page)
    if not gone:
        await _drop_failures(database, owner, root, seen)
        return Removal(0)
    if not prune and not len(seen):
        why = (
            f"{root} holds no pictures, and the index knows {known:,} of it. Is the disk there? Nothing was removed; "
            "--prune does."
        )
        return Removal(0, why)
    if not prune and gone > FEW and 2 * gone > known:
        why = (
            f"{gone:,} of the {known:,} pictures that the index knows of {root} are gone. Nothing was removed; "
            "--prune does."
        )
        return Removal(0, why)
    removed = 0
    async for page in _pages(database, owner, root):
        ids = [asset_id for uri, asset_id in page if uri not in seen]
        if ids:
            removed += await database.run(delete_assets, ids)
    await _drop_failures(database, owner, root, seen)
    return Removal(removed)


async def _pages(database: RetryingDatabase, owner: str, root: str) -> AsyncIterator[list[tuple[str, UUID]]]:
    after = ""
    while True:
        page = await database.run(uris_after, owner, root, after, PAGE)
        if not page:
            return
        yield page
        after = page[-1][0]


async def _drop_failures(database: RetryingDatabase, owner: str, root: str, seen: UriSet) -> None:
    """Remove the failures of files that never became assets."""
    after = ""
    while page := await database.run(failed_uris_after, owner, root, after, PAGE):
        gone = [uri for uri in page if uri not in seen]
        if gone:
            await database.run(drop_failures, owner, gone)
        after = page[-1]
