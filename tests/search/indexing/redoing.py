"""What the tests of re-doing share: pictures, a library of Immich, and something that computes whatever it is told."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar
from uuid import UUID, uuid4

import numpy as np
from PIL import Image

from errors import ErrorCode, ServiceError
from models.catalog import load_catalog
from runners.contract import OcrOptions
from search.store.database import Connection, Database
from search.store.models_in_use import ModelsInUse, models_in_use
from search.store.records import Line, Text, Vector
from settings import Settings

CATALOG = load_catalog()
BOX = (0.1, 0.1, 0.5, 0.1, 0.5, 0.2, 0.1, 0.2)
T = TypeVar("T")


def settings(**overrides: Any) -> Settings:
    plain: dict[str, Any] = {
        "clip_model": "",
        "ocr_model": "",
        "api_auth_key": "s3cret",
        "immich_url": "",
        "immich_api_key": None,
    }
    return Settings(_env_file=None, **(plain | overrides))


def picture(colour: str = "white", size: tuple[int, int] = (100, 50)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


class FakeRecompute:
    """Answers ``texts``, and vectors of ``size`` numbers that tell one call from the next; remembers the pictures and
    options.
    """

    def __init__(self, *texts: str, size: int = 512) -> None:
        self.texts: Sequence[str] = texts
        self.size = size
        self.error: ServiceError | None = None
        self.pictures: list[bytes] = []
        self.options: list[OcrOptions] = []
        self.embeddings = self.running = self.most_running = 0

    async def embed(self, picture: bytes, model: str) -> Vector:
        await self._note(picture)
        self.embeddings += 1
        numbers = np.zeros(self.size, np.float32)
        numbers[self.embeddings] = 1
        return Vector(model, numbers)

    async def read(self, picture: bytes, model: str, options: OcrOptions) -> Text:
        await self._note(picture)
        self.options.append(options)
        return Text(model, tuple(Line(text, _lower(n), 0.9, 0.95) for n, text in enumerate(self.texts)))

    async def _note(self, picture: bytes) -> None:
        self.pictures.append(picture)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.02)
        self.running -= 1
        if self.error:
            raise self.error


def _lower(n: int) -> tuple[float, ...]:
    """Return boxes one below the other, so that they are read in this order."""
    return tuple(value + (0.15 * n if place % 2 else 0.0) for place, value in enumerate(BOX))


BROKEN = ServiceError(ErrorCode.RUNNER_UNAVAILABLE, "The runner went away.")


def run(database: Database, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Return what ``work`` returns, on one connection, committed."""

    async def within() -> T:
        async with database.connection() as connection:
            return await work(connection)

    return asyncio.run(within())


def rows(database: Database, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of ``query``; what it changes is committed."""

    async def ask(connection: Connection) -> list[tuple[Any, ...]]:
        found = await connection.execute(query.encode(), values)
        return [tuple(row.values()) for row in await found.fetchall()] if found.description else []

    return run(database, ask)


def models(database: Database, config: Settings) -> ModelsInUse:
    return run(database, lambda connection: models_in_use(connection, database.source.value, CATALOG, config))


def upload(database: Database, *texts: str, name: str = "IMG_1.jpg", tables: str = "asset") -> UUID:
    """Store a picture as Immich itself takes it in, reads it and embeds it."""
    asset_id, now = uuid4(), datetime.now(timezone.utc)
    rows(
        database,
        f'insert into public.{tables} (id, "ownerId", "originalFileName", "localDateTime") values (%s, %s, %s, %s)',
        *(asset_id, uuid4(), name, now),
    )
    vector = "[" + ",".join(["1", *["0"] * 511]) + "]"
    rows(database, 'insert into public.smart_search ("assetId", embedding) values (%s, %s)', asset_id, vector)
    if tables == "asset":
        for n, text in enumerate(texts):
            rows(
                database,
                'insert into public.asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", '
                "text)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, 0.9, 0.9, %s)",
                *(asset_id, *_lower(n), text),
            )
        rows(database, 'insert into public.ocr_search ("assetId", text) values (%s, %s)', asset_id, " ".join(texts))
        rows(database, 'insert into public.asset_job_status ("assetId", "ocrAt") values (%s, %s)', asset_id, now)
    return asset_id
