"""The right to have a picture done again."""

from __future__ import annotations

from collections.abc import Sequence

from errors import ErrorCode, ServiceError
from search.indexing.redo import RedoTask
from search.store.source import Source
from web.guest import Guest, Guests
from web.photo import Ownership

PERMISSION = "asset.update"
"""What an API key of Immich needs to have pictures done again."""


async def redo_tasks(guests: Guests, guest: Guest, owned: Ownership, source: Source) -> Sequence[RedoTask]:
    """Return the tasks that the guest may have done again of a picture of ``owned``. Raises ``ServiceError``
    IMMICH_UNAVAILABLE.
    """
    tasks = _tasks(guest, owned, source)
    return tasks if tasks and await guests.has_permission(guest, PERMISSION) else ()


async def require_redo(guests: Guests, guest: Guest, owned: Ownership, source: Source) -> None:
    """Return if the guest may have anything done again of a picture of ``owned``; faces are for Immich to refuse.

    Raises ``ServiceError`` FORBIDDEN, IMMICH_UNAVAILABLE.
    """
    if not _tasks(guest, owned, source):
        raise ServiceError(
            ErrorCode.FORBIDDEN,
            "Only its owner, and partners who have it in their timeline, may have this picture done again.",
        )
    await guests.require_permission(guest, PERMISSION)


def _tasks(guest: Guest, owned: Ownership, source: Source) -> Sequence[RedoTask]:
    here = (RedoTask.OCR, RedoTask.CLIP)
    if guest.timeline is None or owned.owner == guest.timeline.own:
        return here if source is Source.STANDALONE else tuple(RedoTask)
    return here if owned.on_timeline and owned.owner in guest.timeline.partners else ()
