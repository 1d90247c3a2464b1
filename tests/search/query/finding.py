"""Pictures for the tests of finding: put straight into the tables of either source, with the vectors that a test
wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TypeAlias
from uuid import UUID, uuid5

import numpy as np

from runners.contract import Float32
from search.query.answers import Mode, SearchAnswer, SearchRequest
from search.query.find import Embed, find
from search.query.timeline import Timeline
from search.store.database import Database
from search.store.documents import put_document
from search.store.lexicon import add_words
from search.store.records import Vector
from search.store.source import Source
from settings import Settings

MODEL = "tiny"
Box: TypeAlias = tuple[float, float, float, float, float, float, float, float]
_BOX: Box = (0.1, 0.2, 0.9, 0.2, 0.9, 0.3, 0.1, 0.3)
_NAMESPACE = UUID(int=5)
READ_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def id_of(name: str) -> UUID:
    return uuid5(_NAMESPACE, name)


def owner_id(name: str) -> str:
    """Return an owner as both sources can have: the text of a UUID."""
    return str(id_of(name))


def direction(*numbers: float) -> Float32:
    """Return a unit vector of 512 that begins so."""
    vector = np.zeros(512, np.float32)
    vector[: len(numbers)] = numbers
    vector /= np.float32(np.linalg.norm(vector))
    return vector


async def put(
    database: Database,
    name: str,
    lines: Sequence[str] | None = None,
    vector: Float32 | None = None,
    owner: str = "",
    *,
    model: str = MODEL,
    boxes: Sequence[Box] | None = None,
) -> UUID:
    """Add a picture called ``name`` and return its id. ``lines`` None: not read. ``boxes``: where the lines stand in
    our own index; without, all stand in one place there. In Immich's tables they stand below each other.
    """
    asset_id = id_of(name)
    standalone = database.source is Source.STANDALONE
    numbers = None if vector is None else "[" + ",".join(map(str, vector.tolist())) + "]"
    async with database.connection() as connection:
        if standalone:
            await connection.execute(
                "insert into immich_ai.asset (id, owner, uri, kind, size, modified, content_hash)"
                " values (%s, %s, %s, 'image', 1, now(), '')",
                (asset_id, owner, f"/{name}"),
            )
        else:
            await connection.execute(
                'insert into public.asset (id, "ownerId", "originalFileName", "localDateTime") values (%s, %s, %s, '
                "now())",
                (asset_id, owner or id_of("nobody"), name),
            )
        if numbers is not None and standalone:
            await connection.execute(
                "insert into immich_ai.embedding values (%s, %s, %s::vector)", (asset_id, model, numbers)
            )
        elif numbers is not None:
            await connection.execute(
                'insert into public.smart_search ("assetId", embedding) values (%s, %s::vector)', (asset_id, numbers)
            )
        if lines is not None:
            places = [_BOX] * len(lines) if boxes is None else boxes
            made = await put_document(connection, asset_id, lines, boxes=places, model="ocr", read_at=READ_AT)
            await add_words(connection, made.words)
            for n, (line, box) in enumerate(zip(lines, places, strict=True), start=1):
                if standalone:
                    await connection.execute(
                        "insert into immich_ai.ocr_line values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0.95, 0.9)",
                        (asset_id, n, line.replace("\0", ""), *box),
                    )
                else:
                    await connection.execute(
                        'insert into public.asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", '
                        '"textScore", text)'
                        " values (%s, 0.1, %s, 0.9, %s, 0.9, %s, 0.1, %s, 0.95, 0.9, %s)",
                        (asset_id, n / 100, n / 100, n / 100 + 0.005, n / 100 + 0.005, line),
                    )
    return asset_id


def embedding(vector: Float32, model: str = MODEL) -> Embed:
    """Return a CLIP that makes this of any text."""

    async def embed(text: str) -> Vector:
        return Vector(model, vector)

    return embed


def found(
    database: Database,
    query: str,
    mode: Mode = Mode.AUTO,
    *,
    embed: Embed | None = None,
    config: Settings | None = None,
    owner: str | None = None,
    timeline: Timeline | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> SearchAnswer:
    request = SearchRequest(q=query, mode=mode, owner=owner, limit=limit, cursor=cursor)
    return asyncio.run(find(database, request, embed, config or Settings(), timeline=timeline))


def names(page: SearchAnswer) -> list[str]:
    return [hit.name for hit in page.hits]
