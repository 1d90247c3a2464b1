"""Answers of the search bar's routes: Immich's own as they came, and ours in their shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from search.immich.exchange import Reply

DONE_HEADER = "x-immich-bento"
"""Tells what was done: ``hybrid``, ``text``; ``passed`` for what is Immich's own; ``failed`` and ``late`` for what
would have been ours.
"""
EMPTY: dict[str, Any] = {
    "albums": {"total": 0, "count": 0, "items": [], "facets": []},
    "assets": {"total": 0, "count": 0, "items": [], "facets": [], "nextPage": None},
}
"""An answer of Immich that has found nothing."""
_MADE_HERE = ("content-length", "date", DONE_HEADER)


def as_it_came(reply: Reply, done: str) -> Response:
    """Return an answer of Immich, byte for byte."""
    response = Response(reply.body, reply.status)
    length = [(b"content-length", str(len(reply.body)).encode())] if _has_body(reply) else []
    headers = [(name.encode(), value.encode()) for name, value in reply.headers if name not in _MADE_HERE]
    response.raw_headers = [*headers, *length, (DONE_HEADER.encode(), done.encode())]
    return response


def page_of(skeleton: Mapping[str, Any], items: Sequence[Any], next_page: str | None, done: str) -> Response:
    """Return a page of assets, with everything else as in ``skeleton``, an answer of Immich."""
    count = len(items)
    assets = {**skeleton["assets"], "total": count, "count": count, "items": items, "nextPage": next_page}
    body = orjson.dumps({**skeleton, "assets": assets})
    return Response(body, media_type="application/json", headers={DONE_HEADER: done})


def skeleton_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer without its assets."""
    return {**answer, "assets": {**answer["assets"], "items": []}}


def _has_body(reply: Reply) -> bool:
    return reply.status not in (204, 304)
