"""The flat filters of a search of Immich 3.1 and older, in the form that 3.2 takes beside a list of alternatives.

Written from Immich 3.1's own sources, in which both forms are, and held to a fake; not run against a 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SAME_NAME = frozenset(
    {"type", "visibility", "isFavorite", "isMotion", "isEncoded", "libraryId", "rating"}
    | {"city", "state", "country", "make", "model", "lensModel"}
)
"""Filters that compare with one value, under the same name."""
_RANGES = {
    "takenBefore": ("takenAt", "lte"),
    "takenAfter": ("takenAt", "gte"),
    "createdBefore": ("createdAt", "lte"),
    "createdAfter": ("createdAt", "gte"),
    "updatedBefore": ("updatedAt", "lte"),
    "updatedAfter": ("updatedAt", "gte"),
}
_LISTS = ("personIds", "tagIds", "albumIds")
"""Filters by several ids, all of which a picture has to have."""
_NO_FILTERS = frozenset(("withExif", "withPeople", "withStacked", "withDeleted", "filter"))


def as_filter(flat: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what ``flat`` asks for as conditions of ``filter``; None where one of them is not known here."""
    conditions: dict[str, Any] = dict(flat.get("filter", {}))
    for key, value in flat.items():
        if key == "libraryId" and value is None:
            continue  # which Immich takes for no filter
        if key in _RANGES:
            name, comparison = _RANGES[key]
            conditions.setdefault(name, {})[comparison] = value
        elif key in _SAME_NAME:
            conditions[key] = {"eq": value}
        elif key in _LISTS and isinstance(value, list):
            if value:
                conditions[key] = {"all": value}
        elif key == "tagIds" and value is None:
            conditions["hasTags"] = {"eq": False}
        elif key == "isNotInAlbum":
            if value and not flat.get("albumIds"):
                conditions["hasAlbums"] = {"eq": False}
        elif key not in _NO_FILTERS:
            return None
    return conditions
