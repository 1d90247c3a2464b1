"""Find pictures: a query, as a person types it, to hits in one order, with the lines of text that match.

The order is the database's (``sql/0004_search.sql``); here the query is parsed, folded, cut and embedded, and the hits
are dressed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

import psycopg

from errors import ErrorCode, ServiceError
from search.query import paging
from search.query.highlight import Line, matching_lines, needles_of
from search.query.parse import Alternative, ParsedQuery, parse
from search.query.words import words_query
from search.store.database import Database, Source
from search.store.records import Vector
from settings import Settings

LARGEST_PAGE = 100
"""Hits in one answer."""
_OCR_HITS = 500
_CLIP_HITS = 200
_CLIP_HITS_IN_HYBRID = 60
"""How far pages go. In hybrid search, each vector costs time and adds less: at rank 60 it is worth half of the
first.
"""

Embed: TypeAlias = Callable[[str], Awaitable[Vector]]
"""A text to its CLIP vector. Raises ``ServiceError`` where the model cannot be had."""


class Mode(str, Enum):
    """What is searched. ``auto``: text alone behind the prefix ``ocr:``, else both."""

    AUTO = "auto"
    OCR = "ocr"
    CLIP = "clip"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a person wants."""

    query: str
    mode: Mode = Mode.AUTO
    owner: str | None = None
    """Whose pictures; None: everybody's."""
    limit: int = 20
    """Hits in this answer, 1 to 100."""
    cursor: str | None = None
    """``Found.next_cursor`` of the page before."""


@dataclass(frozen=True, slots=True)
class OcrPart:
    """What the text of a picture says."""

    rank: int
    """From 1."""
    score: float
    """0 to 1; 0.5 and more for exact hits."""
    exact: bool
    """The whole query stands there, letter by letter once both are folded."""


@dataclass(frozen=True, slots=True)
class ClipPart:
    """How near a picture's meaning is."""

    rank: int
    """From 1."""
    similarity: float
    """Cosine, -1 to 1."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found."""

    id: UUID
    name: str
    score: float
    """In the mode's own measure: the text score, the similarity, or what both were fused to. Hits come in the right
    order; an exact hit that was moved up among the first ten may have a smaller score than the next."""
    ocr: OcrPart | None
    clip: ClipPart | None
    lines: tuple[Line, ...]
    """Those that match, in reading order."""


@dataclass(frozen=True, slots=True)
class Note:
    """Why an answer is less than was asked for."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """One page of hits."""

    hits: tuple[Hit, ...]
    mode: Mode
    """The mode that answered: OCR, CLIP or HYBRID."""
    notes: tuple[Note, ...]
    next_cursor: str | None
    """None: this was the last page."""


async def find(database: Database, request: SearchRequest, embed: Embed | None, config: Settings) -> Found:
    """Answer a search. ``embed``: None where there is no CLIP model.

    Hybrid search without CLIP answers from text and says why in a note; ``mode=clip`` raises instead. Raises
    ``ServiceError`` INVALID_QUERY, INVALID_REQUEST (limit, cursor), STORED_MODEL_DIFFERS, MODEL_UNAVAILABLE,
    SEARCH_UNAVAILABLE.
    """
    if not 1 <= request.limit <= LARGEST_PAGE:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"limit is {request.limit}; it must be 1 to {LARGEST_PAGE}.")
    parsed = parse(request.query)
    mode = _resolved(request.mode, parsed)
    start = paging.start(request.cursor, _identity(request))
    vector, reason = await _vector(mode, parsed, embed)
    rows: Sequence[dict[str, Any]] = ()
    if reason is None:
        try:
            rows = await _rows(database, request, parsed, mode, vector, start, config)
        except psycopg.errors.DataException as error:  # pgvector: vectors of different sizes
            reason = ServiceError(
                ErrorCode.STORED_MODEL_DIFFERS,
                _SIZES.format(size=0 if vector is None else len(vector.numbers), error=error),
            )
    if reason is None and vector is not None and start == 0 and not any(row["clip_rank"] for row in rows):
        reason = await _misfit(database, vector)
    if reason is not None and mode is Mode.CLIP:
        raise reason
    notes: tuple[Note, ...] = ()
    if reason is not None:
        notes = (Note(reason.code, f"{reason.message} These hits are from text alone."),)
        mode = Mode.OCR
        rows = await _rows(database, request, parsed, mode, None, start, config)
    more = len(rows) > request.limit
    hits = tuple(_hit(row, parsed, mode) for row in rows[: request.limit])
    return Found(hits, mode, notes, paging.cursor(start + request.limit, _identity(request)) if more else None)


_SIZES = (
    "The stored vectors are of another size than the CLIP model in use makes ({size} numbers; the database says: "
    "{error}). "
    "Index again with this model, or set CLIP_MODEL to the one that made them."
)

_PAGE = """
SELECT f.*, a.name, CASE WHEN f.ocr_rank IS NOT NULL THEN immich_ai.highlighted(f.asset_id, %(needles)s) END AS lines
FROM immich_ai.hybrid_search(
    %(alternatives)s::jsonb, %(vector)s::vector, %(model)s, %(owner)s, %(fusion)s,
    %(clip_weight)s, %(ocr_weight)s, %(clip_most)s, %(ocr_most)s
) f
JOIN immich_ai.source_asset a ON a.id = f.asset_id
WHERE f.place > %(start)s AND f.place <= %(start)s + %(count)s
ORDER BY f.place
"""


async def _rows(
    database: Database,
    request: SearchRequest,
    parsed: ParsedQuery,
    mode: Mode,
    vector: Vector | None,
    start: int,
    config: Settings,
) -> Sequence[dict[str, Any]]:
    """One row more than the page has, if there are more."""
    in_python = database.cutter == "jieba"
    parameters = {
        "needles": list(needles_of(parsed)),
        "alternatives": None
        if mode is Mode.CLIP
        else json.dumps([_alternative(one, in_python) for one in parsed.alternatives]),
        "vector": None if vector is None else vector.numbers,
        "model": None if vector is None else vector.model,
        "owner": request.owner,
        "fusion": config.search_fusion,
        "clip_weight": _weight(config.search_clip_weight),
        "ocr_weight": _weight(config.search_ocr_weight),
        "clip_most": _CLIP_HITS if mode is Mode.CLIP else _CLIP_HITS_IN_HYBRID,
        "ocr_most": _OCR_HITS,
        "start": start,
        "count": request.limit + 1,
    }
    async with database.connection() as connection:
        cursor = await connection.execute(_PAGE, parameters)
        return await cursor.fetchall()


def _weight(weight: float) -> float:
    """Such that no product overflows or underflows, which PostgreSQL takes for an error."""
    return min(round(weight, 9), 1e9)


def _alternative(alternative: Alternative, in_python: bool) -> dict[str, object]:
    """As ``immich_ai.ocr_search`` takes it."""
    given: dict[str, object] = {"all": alternative.wanted, "none": alternative.unwanted}
    if in_python:
        given |= {
            "words": words_query(alternative.wanted),
            "none_words": [words_query([needle]) for needle in alternative.unwanted],
        }
    return given


def _resolved(mode: Mode, parsed: ParsedQuery) -> Mode:
    if mode is Mode.AUTO:
        return Mode.OCR if parsed.text_only else Mode.HYBRID
    return mode


async def _vector(mode: Mode, parsed: ParsedQuery, embed: Embed | None) -> tuple[Vector | None, ServiceError | None]:
    """The query's vector where the mode needs one, or why there is none."""
    if mode is Mode.OCR:
        return None, None
    if embed is None:
        return None, ServiceError(ErrorCode.MODEL_UNAVAILABLE, "There is no CLIP model to search by meaning with.")
    try:
        return await embed(parsed.meaning), None
    except ServiceError as error:
        return None, error


async def _misfit(database: Database, vector: Vector) -> ServiceError | None:
    """Why no vector was found: those of our own index are of other models. None: there are just none."""
    if database.source is not Source.STANDALONE:
        return None
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT DISTINCT model FROM immich_ai.source_embedding ORDER BY model")
        models = [row["model"] for row in await cursor.fetchall()]
    if not models or vector.model in models:
        return None
    return ServiceError(
        ErrorCode.STORED_MODEL_DIFFERS,
        f"The stored vectors are of {', '.join(models)}, none of {vector.model}, which is in use. "
        f"Index again with it, or set CLIP_MODEL={models[0]}.",
    )


def _identity(request: SearchRequest) -> str:
    return json.dumps([request.query, request.mode.value, request.owner])


def _hit(row: dict[str, Any], parsed: ParsedQuery, mode: Mode) -> Hit:
    ocr = None if row["ocr_rank"] is None else OcrPart(row["ocr_rank"], row["ocr_score"], row["exact"])
    clip = None if row["clip_rank"] is None else ClipPart(row["clip_rank"], row["similarity"])
    score: float = row["score"]
    if mode is Mode.OCR and ocr is not None:
        score = ocr.score
    elif mode is Mode.CLIP and clip is not None:
        score = clip.similarity
    return Hit(row["asset_id"], row["name"], score, ocr, clip, matching_lines(row["lines"] or (), parsed))
