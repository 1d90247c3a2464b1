"""Files that are no longer there: what the index has of them is removed, unless it looks as if a disk were not
there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from search.indexing.retries import RetryingDatabase
from search.indexing.uri_set import UriSet
from search.store.index import delete_assets, drop_failures, failed_uris_after, uris_after

PAGE = 2000
FEW = 10
"""So many may be gone although they were more than half."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the files that a complete walk did not see."""

    removed: int
    refusal: str | None = None
    """Why nothing was removed although something is gone."""


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
