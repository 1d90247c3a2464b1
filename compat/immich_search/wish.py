"""Requests of Immich's search bar, read as far as this service can answer them better than Immich.

The body is read as Immich reads it. Whatever is unusual in it, wrong, or for Immich alone is not judged here: there is
no ``Wish`` then, and the request is passed on as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from errors import ServiceError
from search.query.parse import ParsedQuery, parse

SMART, METADATA = "/api/search/smart", "/api/search/metadata"
_DEFAULT_SIZE = {SMART: 100, METADATA: 250}
"""Results of a page where the request does not say, in Immich 2.5 to 3.1."""
_MOST = 1000
_QUESTION = frozenset(("query", "queryAssetId", "language", "ocr", "page", "size"))
"""Keys of a body that are no filters."""
_METADATA_ALONE = frozenset(
    {"id", "description", "checksum", "originalFileName", "originalPath", "previewPath", "thumbnailPath"}
    | {"encodedVideoPath", "order", "withPeople", "withStacked", "deviceId", "deviceAssetId"}
)
"""Keys that ``/search/smart`` ignores and ``/search/metadata`` does not."""
_FOR_IMMICH = {SMART: ("ocr",), METADATA: ("id", "order")}
"""Keys that ask for another kind of search."""
_OTHER_PICTURES = ("trashedBefore", "trashedAfter", "isOffline")
"""Keys that ask for pictures which our texts leave out: those in the trash."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A search that is answered here."""

    path: str
    """``SMART`` or ``METADATA``."""
    parsed: ParsedQuery
    by_text_alone: bool
    page: int
    """From 1."""
    size: int
    """Results of a page, 1 to 1000."""
    body: Mapping[str, Any] = field(repr=False)
    """The whole body."""

    @property
    def filters(self) -> dict[str, Any]:
        """Return the keys of the body by which ``/search/metadata`` leaves out what this search is not to find."""
        ignored = _QUESTION | (_METADATA_ALONE if self.path == SMART else frozenset())
        return {key: value for key, value in self.body.items() if key not in ignored}

    @property
    def albums(self) -> tuple[str, ...]:
        """Return the albums to search in, whose pictures may be of other owners; none for ``SMART``, by which
        Immich finds those in the searcher's own timeline alone.
        """
        albums = self.body.get("albumIds")
        return tuple(map(str, albums)) if self.path == METADATA and isinstance(albums, list) else ()

    def page_body(self, page: int) -> bytes:
        """Return the body that asks Immich for another page of the same search."""
        return orjson.dumps({**self.body, "page": page})


def read_wish(path: str, body: bytes, bar: Literal["hybrid", "prefix", "off"]) -> Wish | None:
    """Return what ``body`` asks for at ``path``, or None where the request is to be passed on. ``bar``: SEARCH_BAR."""
    if bar == "off" or not body:
        return None
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(asked, dict) or not _is_within_reach(asked):
        return None
    text = asked.get("query") if path == SMART else asked.get("ocr")
    page, size = _whole(asked.get("page", 1)), _whole(asked.get("size", _DEFAULT_SIZE[path]))
    if not isinstance(text, str) or page is None or size is None or page < 1 or not 1 <= size <= _MOST:
        return None
    if any(key in asked for key in _FOR_IMMICH[path]):
        return None
    try:
        parsed = parse(text)
    except ServiceError:  # nothing to look for in texts
        return None
    by_text_alone = path == METADATA or parsed.text_only
    if bar == "prefix" and not by_text_alone:
        return None
    return Wish(path, parsed, by_text_alone, page, size, asked)


def _is_within_reach(asked: Mapping[str, Any]) -> bool:
    """Return whether the search is for pictures whose texts are searched here: those of timeline and archive."""
    if asked.get("withDeleted") or any(key in asked for key in _OTHER_PICTURES):
        return False
    if asked.get("visibility", "timeline") not in ("timeline", "archive"):
        return False
    inner = asked.get("filter", {})  # Immich 3.2's, whose alternatives cannot be joined with ours
    return isinstance(inner, dict) and not {"or", "trashedAt", "isOffline", "visibility", "id"} & set(inner)


def _whole(value: object) -> int | None:
    """Return a number as JavaScript takes it for a whole one, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 2**53:
        return None
    return int(value) if value == int(value) else None
