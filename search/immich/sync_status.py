"""The state of the copy of Immich's texts, as it is told."""

from __future__ import annotations

from datetime import datetime

from search.answers import Answer


class SyncStatus(Answer):
    """The state of the copy of Immich's texts that is searched."""

    synced_at: datetime | None = None
    """Time at which they were last brought up to date; null: not since the service started."""
    failures: int = 0
    """Failures in a row since then."""
    trouble: str | None = None
    """Reason for which it fails; null: it does not."""
