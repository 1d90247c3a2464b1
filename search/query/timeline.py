"""The pictures of a user of Immich: all that a search for them may rank, count or show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeline:
    """A user's own pictures, and those that partners have on the timeline, without what these have archived."""

    own: str
    """The user's id. The visible pictures are searched, archived ones too."""
    partners: tuple[str, ...] = ()
    """Ids of other users, each once."""


def owner_parameters(timeline: Timeline | None) -> dict[str, list[str] | None]:
    """Return ``owners`` and ``partners`` as ``immich_ai.whose`` takes them. ``timeline``: None for everybody's."""
    if timeline is None:
        return {"owners": None, "partners": None}
    return {"owners": [timeline.own], "partners": list(timeline.partners)}
