"""How well the searched texts follow Immich's."""

from __future__ import annotations

from datetime import datetime

from search.answers import Answer


class SyncStatus(Answer):
    """How well the searched texts follow Immich's."""

    synced_at: datetime | None = None
    """When they were last brought up to date; null: not since the service started."""
    failures: int = 0
    """How often in a row it has failed since."""
    trouble: str | None = None
    """Why it fails; null: it does not."""
