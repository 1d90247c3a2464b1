"""Find pictures: a query, as a person types it, to hits in one order, with the lines of text that match.

The order is the database's (``immich_ai.hybrid_search``); here the query is parsed, folded, cut and embedded, and the
matching lines are added.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

import psycopg

from errors import ErrorCode, ServiceError
from search.answers import Note
from search.query import paging
from search.query.alternatives import alternatives_json
from search.query.answers import ClipPart, Hit, Mode, OcrPart, SearchAnswer, SearchRequest
from search.query.edits import without_cropped_text
from search.query.explanations import with_explanations
from search.query.highlight import matching_lines, needles_of
from search.query.parse import ParsedQuery, parse
from search.query.timeline import Timeline, owner_parameters
from search.store.database import Database
from search.store.records import Vector
from search.store.source import Source
from settings import Settings

_OCR_HITS = 500
_CLIP_HITS = 200
_CLIP_HITS_IN_HYBRID = 60
"""Most hits of all pages together. In hybrid search, each vector costs time and adds less: at rank 60 it is worth half
of the first.
"""

Embed: TypeAlias = Callable[[str], Awaitable[Vector]]
"""A text to its CLIP vector. Raises ``ServiceError`` where the model cannot be had."""
_Answering: TypeAlias = Literal[Mode.OCR, Mode.CLIP, Mode.HYBRID]


async def find(
    database: Database,
    request: SearchRequest,
    embed: Embed | None,
    config: Settings,
    *,
    timeline: Timeline | None = None,
) -> SearchAnswer:
    """Answer a search. ``embed``: None where there is no CLIP model. ``timeline``: whose pictures alone are searched;
    None: those of the request's owner.

    Hybrid search without CLIP answers from text and says why in a note; ``mode=clip`` raises instead. Raises
    ``ServiceError`` INVALID_QUERY, INVALID_REQUEST (owner, cursor), STORED_MODEL_DIFFERS, MODEL_UNAVAILABLE,
    SEARCH_UNAVAILABLE.
    """
    _check_owner(request.owner, database.source)
    parsed = parse(request.q)
    mode = _resolved(request.mode, parsed)
    if timeline is None and request.owner is not None:
        timeline = Timeline(request.owner)
    start = paging.start(request.cursor, _identity(request))
    vector, reason = await _vector(mode, parsed, embed)
    rows: Sequence[dict[str, Any]] = ()
    if reason is None:
        try:
            rows = await _rows(database, request, timeline, parsed, mode, vector, start, config)
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
        notes = (Note(code=reason.code.value, message=f"{reason.message} These hits are from text alone."),)
        mode = Mode.OCR
        rows = await _rows(database, request, timeline, parsed, mode, None, start, config)
    more = len(rows) > request.limit
    found = await with_explanations(database, [_hit(row, parsed, mode) for row in rows[: request.limit]], parsed)
    hits = await without_cropped_text(database, found)
    following = paging.cursor(start + request.limit, _identity(request)) if more else None
    return SearchAnswer(mode=cast(_Answering, mode), hits=hits, notes=notes, next_cursor=following)


def _check_owner(owner: str | None, source: Source) -> None:
    """Raise ``ServiceError`` INVALID_REQUEST for an owner that nobody in Immich can be: its users are UUIDs."""
    if owner is None or source is Source.STANDALONE:
        return
    try:
        UUID(owner)
    except ValueError as error:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            f"The parameter owner is wrong: {owner[:50]!r} is no user's id in Immich: ids are UUIDs.",
        ) from error


_SIZES = (
    "The stored vectors are of another size than the CLIP model in use makes ({size} numbers; the database says: "
    "{error}). "
    "Index again with this model, or set CLIP_MODEL to the one that made them."
)

_PAGE = """
WITH page AS MATERIALIZED (
    SELECT f.*, a.name
    FROM immich_ai.hybrid_search(
        %(alternatives)s::jsonb, %(vector)s::vector, %(model)s, %(owners)s::text[], %(fusion)s,
        %(clip_weight)s, %(ocr_weight)s, %(clip_most)s, %(ocr_most)s, %(partners)s::text[]
    ) f
    JOIN immich_ai.source_asset a ON a.id = f.asset_id
    WHERE f.place > %(start)s AND f.place <= %(start)s + %(count)s
)
SELECT p.*, h.lines
FROM page p
LEFT JOIN immich_ai.highlighted(ARRAY(SELECT asset_id FROM page WHERE ocr_rank IS NOT NULL), %(needles)s) h
    ON h.asset_id = p.asset_id
ORDER BY p.place
"""


async def _rows(
    database: Database,
    request: SearchRequest,
    timeline: Timeline | None,
    parsed: ParsedQuery,
    mode: Mode,
    vector: Vector | None,
    start: int,
    config: Settings,
) -> Sequence[dict[str, Any]]:
    """Return one row more than the page has, if there are more."""
    parameters = {
        "needles": list(needles_of(parsed)),
        "alternatives": None if mode is Mode.CLIP else alternatives_json(parsed, database.cutter),
        "vector": None if vector is None else vector.numbers,
        "model": None if vector is None else vector.model,
        **owner_parameters(timeline),
        "fusion": config.search_fusion,
        "clip_weight": _weight(config.search_clip_weight),
        "ocr_weight": _weight(config.search_ocr_weight),
        "clip_most": _CLIP_HITS if mode is Mode.CLIP else _CLIP_HITS_IN_HYBRID,
        "ocr_most": _OCR_HITS,
        "start": start,
        "count": request.limit + 1,
    }
    return await database.rows(_PAGE, parameters)


def _weight(weight: float) -> float:
    """Return a weight such that no product overflows or underflows, which PostgreSQL takes for an error."""
    return min(round(weight, 9), 1e9)


def _resolved(mode: Mode, parsed: ParsedQuery) -> Mode:
    if mode is Mode.AUTO:
        return Mode.OCR if parsed.text_only else Mode.HYBRID
    return mode


async def _vector(mode: Mode, parsed: ParsedQuery, embed: Embed | None) -> tuple[Vector | None, ServiceError | None]:
    """Return the query's vector if the mode needs one, or why there is none."""
    if mode is Mode.OCR:
        return None, None
    if embed is None:
        return None, ServiceError(ErrorCode.MODEL_UNAVAILABLE, "There is no CLIP model to search by meaning with.")
    try:
        return await embed(parsed.meaning), None
    except ServiceError as error:
        return None, error


async def _misfit(database: Database, vector: Vector) -> ServiceError | None:
    """Return why no vector was found: those of our own index are of other models. None: there are just none."""
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
    return json.dumps([request.q, request.mode.value, request.owner])


def _hit(row: dict[str, Any], parsed: ParsedQuery, mode: Mode) -> Hit:
    ocr = clip = None
    if row["ocr_rank"] is not None:
        ocr = OcrPart(rank=row["ocr_rank"], score=row["ocr_score"], exact=row["exact"])
    if row["clip_rank"] is not None:
        clip = ClipPart(rank=row["clip_rank"], similarity=row["similarity"])
    score: float = row["score"]
    if mode is Mode.OCR and ocr is not None:
        score = ocr.score
    elif mode is Mode.CLIP and clip is not None:
        score = clip.similarity
    lines = matching_lines(row["lines"] or (), parsed)
    return Hit(id=row["asset_id"], name=row["name"], score=score, ocr=ocr, clip=clip, lines=lines)
