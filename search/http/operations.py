"""The operations of search's HTTP API in one table, from which both the routes and docs/openapi.json are made."""

from __future__ import annotations

from dataclasses import dataclass

from errors import ErrorCode
from search.http.answers import (
    Answer,
    Asked,
    AssetText,
    ReprocessAnswer,
    ReprocessBody,
    SearchAnswer,
    SearchParameters,
    StatsAnswer,
)

_ALWAYS = (
    ErrorCode.UNAUTHORIZED,
    ErrorCode.KEY_NOT_SET,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.SEARCH_UNAVAILABLE,
    ErrorCode.TIMEOUT,
    ErrorCode.INTERNAL,
)
"""Errors of every operation."""
_COMPUTING = (ErrorCode.MODEL_UNAVAILABLE, ErrorCode.RUNNER_UNAVAILABLE, ErrorCode.QUEUE_FULL)


@dataclass(frozen=True, slots=True)
class Operation:
    """One route."""

    name: str
    """Its ``operationId``, and after ``search.`` its task in logs and metrics."""
    method: str
    path: str
    """``{id}`` stands for an asset's UUID."""
    summary: str
    answer: type[Answer]
    parameters: type[Asked] | None = None
    """Of the query."""
    body: type[Asked] | None = None
    errors: tuple[ErrorCode, ...] = _ALWAYS


FIND = Operation(
    "find",
    "GET",
    "/search",
    "Find pictures by the text in them, by their meaning, or by both.",
    SearchAnswer,
    parameters=SearchParameters,
    errors=(*_ALWAYS, *_COMPUTING, ErrorCode.INVALID_QUERY, ErrorCode.STORED_MODEL_DIFFERS),
)
READ_TEXT = Operation(
    "read_text",
    "GET",
    "/assets/{id}/ocr",
    "The text that was read in one picture, with its boxes.",
    AssetText,
    errors=(*_ALWAYS, ErrorCode.UNKNOWN_ASSET),
)
REPROCESS = Operation(
    "reprocess",
    "POST",
    "/assets/{id}/reprocess",
    "Read or embed one picture again, and replace what is stored of it.",
    ReprocessAnswer,
    body=ReprocessBody,
    errors=(
        *_ALWAYS,
        *_COMPUTING,
        ErrorCode.UNKNOWN_ASSET,
        ErrorCode.STORED_MODEL_DIFFERS,
        ErrorCode.IMMICH_UNAVAILABLE,
        ErrorCode.BODY_TOO_LARGE,
        ErrorCode.BODY_TIMEOUT,
        ErrorCode.PICTURE_TOO_LARGE,
        ErrorCode.UNREADABLE_PICTURE,
    ),
)
STATS = Operation("stats", "GET", "/stats", "How many pictures there are, and what was done with them.", StatsAnswer)

OPERATIONS = (FIND, READ_TEXT, REPROCESS, STATS)
