"""Search's HTTP API, behind the service's key: find pictures, read their text, do one again, count. docs/search.md
tells people of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from uuid import UUID

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from errors import ErrorCode, ServiceError
from models.catalog import Catalog
from runners.contract import Runners, TextJob
from search.http import openapi
from search.http.answers import (
    Answer,
    Asked,
    AssetText,
    ModelNames,
    Note,
    ReprocessAnswer,
    ReprocessBody,
    SearchAnswer,
    SearchParameters,
    StatsAnswer,
    StoredModel,
    TextLine,
)
from search.http.life import SearchLife
from search.http.operations import FIND, READ_TEXT, REPROCESS, STATS, Operation
from serving.exchange import Fields, answered, started
from serving.key import require_key
from settings import Settings

# What these modules import is large (PostgreSQL's client, dictionaries), so they are imported by the first request that
# needs them.
if TYPE_CHECKING:
    from search.store.database import Database
    from search.store.models_in_use import ModelsInUse
    from search.store.records import Vector

Handler: TypeAlias = "Callable[[Request, Fields], Awaitable[Answer]]"
A = TypeVar("A", bound=Asked)

_MAX_BODY = 16 * 1024
"""Bytes of a request's body."""
_REDOS_AT_ONCE = 2
"""Pictures done again at the same time: each holds a picture, and a connection to the database."""
_MODELS_KEPT = 30.0
"""Seconds that searches believe what they know of the stored vectors."""


@dataclass(slots=True)
class SearchApi:
    """The routes over a database and some runners. ``runners`` is set when the service has started."""

    catalog: Catalog
    settings: Settings
    life: SearchLife
    runners: Runners | None = None
    _models: tuple[float, ModelsInUse] | None = None
    _redos: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_REDOS_AT_ONCE))

    async def find(self, request: Request, fields: Fields) -> SearchAnswer:
        from search.query.find import Mode, SearchRequest, find

        asked = _query(request, SearchParameters)
        wanted = SearchRequest(asked.q, Mode(asked.mode), asked.owner, asked.limit, asked.cursor)
        async with _database(self.life) as database:
            found = await find(database, wanted, lambda text: self._embed(database, text), self.settings)
        answer = SearchAnswer.model_validate(found)
        fields |= {"mode": answer.mode, "hits": len(answer.hits)}
        if answer.notes:
            fields["notes"] = ",".join(note.code for note in answer.notes)
        return answer

    async def read_text(self, request: Request, fields: Fields) -> AssetText:
        asset_id = _asset_id(request)
        async with _database(self.life) as database, database.connection() as connection:
            rows = await connection.execute(_DOCUMENT, (asset_id,))
            document = await rows.fetchone()
            if document is None:
                raise ServiceError(ErrorCode.UNKNOWN_ASSET, f"There is no asset {asset_id} that can be found.")
            rows = await connection.execute(_LINES, (asset_id,))
            lines = [TextLine.model_validate(row | {"box": _box(row["box"])}) for row in await rows.fetchall()]
        return AssetText.model_validate(document | {"lines": lines if document["read"] else []})

    async def reprocess(self, request: Request, fields: Fields) -> ReprocessAnswer:
        from search.indexing.recompute import RunnersRecompute
        from search.indexing.reprocess import RedoTask, reprocess

        asset_id, asked = _asset_id(request), _body(await _read(request, self.settings.body_timeout), ReprocessBody)
        tasks = list(dict.fromkeys(asked.tasks))
        fields["tasks"] = "+".join(tasks)
        recompute = RunnersRecompute(started(self.runners), max_pixels=self.settings.max_picture_pixels)
        async with self._redos, _database(self.life) as database:
            models = await self._look_at_models(database)
            redone = await reprocess(
                database, asset_id, [RedoTask(task) for task in tasks], recompute, models, self.settings
            )
        results = {"ocr": redone.text, "clip": redone.vector}
        used = {task: result.model for task, result in results.items() if result is not None}
        done = [*used, *(["faces"] if redone.faces else [])]
        return ReprocessAnswer.model_validate(
            {"id": asset_id, "done": done, "models": used, "lines": len(redone.text.lines) if redone.text else None}
        )

    async def stats(self, request: Request, fields: Fields) -> StatsAnswer:
        from search.store.statistics import statistics

        _query(request, Asked)
        async with _database(self.life) as database:
            counted = await statistics(database, self.catalog, self.settings)
        names = ("source", "cutter", "assets", "read", "empty", "failed", "waiting", "embedded")
        return StatsAnswer(
            **{name: getattr(counted, name) for name in names},
            models=ModelNames.model_validate(counted.models),
            stored_models=[StoredModel.model_validate(one) for one in counted.stored_models],
            notes=[Note(code=refusal.code.value, message=refusal.message) for refusal in counted.refusals],
        )

    async def _embed(self, database: Database, text: str) -> Vector:
        """The vector of a query's text. Raises ``ServiceError`` where no model fits what is stored, or it cannot be
        had.
        """
        from search.store.records import Vector

        if self._models is None or time.monotonic() - self._models[0] > _MODELS_KEPT:
            self._models = time.monotonic(), await self._look_at_models(database)
        model = self._models[1].clip_or_refuse()
        return Vector(model, (await started(self.runners).clip_text(TextJob(text, model))).vector)

    async def _look_at_models(self, database: Database) -> ModelsInUse:
        from search.store.models_in_use import models_in_use

        async with database.connection() as connection:
            return await models_in_use(connection, database.source.value, self.catalog, self.settings)


_DOCUMENT = """
select a.id, a.name, d.asset_id is not null as read, d.read_at, d.model, coalesce(d.text, '') as text
from immich_ai.source_asset a left join immich_ai.ocr_document d on d.asset_id = a.id
where a.id = %s and a.visible
"""
_LINES = """
select n, text, array[x1, y1, x2, y2, x3, y3, x4, y4] as box, box_score, text_score
from immich_ai.source_line where asset_id = %s order by n
"""


def _box(corners: list[float | None]) -> list[float] | None:
    return None if None in corners else [corner for corner in corners if corner is not None]


@asynccontextmanager
async def _database(life: SearchLife) -> AsyncIterator[Database]:
    """The open database; its troubles within the block are SEARCH_UNAVAILABLE."""
    database = life.database()
    import psycopg
    from psycopg_pool import PoolClosed, PoolTimeout

    try:
        yield database
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
        raise ServiceError(
            ErrorCode.SEARCH_UNAVAILABLE, f"The database does not answer ({type(error).__name__}: {error})."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        message = (
            f"The role of DATABASE_URL lacks a right: {error.diag.message_primary}. docs/search-setup.md has the "
            "GRANTs."
        )
        raise ServiceError(ErrorCode.SEARCH_UNAVAILABLE, message) from error


def _asset_id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError as error:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, f"{request.path_params['id'][:100]!r} is no asset's id: ids are UUIDs."
        ) from error


def _query(request: Request, model: type[A]) -> A:
    """The parameters of the request, each given once. Raises ``ServiceError`` INVALID_REQUEST that names the wrong
    one.
    """
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise ServiceError(
                ErrorCode.INVALID_REQUEST, f"The parameter {name[:50]!r} is given {names.count(name)} times."
            )
    return _checked("parameter", lambda: model.model_validate(dict(given)))


def _body(body: bytes, model: type[A]) -> A:
    return _checked("body", lambda: model.model_validate_json(body))


def _checked(what: str, validate: Callable[[], A]) -> A:
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:50] for part in first["loc"])
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, f"The {what} {where or 'as a whole'} is wrong: {first['msg']}."
        ) from error


async def _read(request: Request, seconds: float) -> bytes:
    """The request's body. Raises ``ServiceError``: BODY_TOO_LARGE, BODY_TIMEOUT."""
    body = bytearray()

    async def read() -> None:
        async for piece in request.stream():
            body.extend(piece)
            if len(body) > _MAX_BODY:
                raise ServiceError(ErrorCode.BODY_TOO_LARGE, f"The body is larger than {_MAX_BODY:,} bytes.")

    try:
        await asyncio.wait_for(read(), seconds)
    except asyncio.TimeoutError as error:
        raise ServiceError(ErrorCode.BODY_TIMEOUT, f"The body did not come in {seconds:g} s (BODY_TIMEOUT).") from error
    return bytes(body)


def error_body(error: ServiceError) -> dict[str, Any]:
    """``{"detail": "…", "code": "…"}``, as for Immich's protocol."""
    return {"detail": error.message, "code": error.code.value}


def routes(api: SearchApi) -> list[Route]:
    """Every route of search, and the description of them all, which needs no key."""
    handlers: list[tuple[Operation, Handler]] = [
        (FIND, api.find),
        (READ_TEXT, api.read_text),
        (REPROCESS, api.reprocess),
        (STATS, api.stats),
    ]

    async def describe(request: Request) -> Response:
        return Response(openapi.to_json(), media_type="application/json")

    return [
        *(_route(api, operation, handler) for operation, handler in handlers),
        Route(openapi.PATH, describe, methods=["GET"]),
    ]


def _route(api: SearchApi, operation: Operation, handler: Handler) -> Route:
    async def work(request: Request, fields: Fields) -> Response:
        require_key(request.headers, api.settings.api_auth_key)
        return Response((await handler(request, fields)).model_dump_json(), media_type="application/json")

    async def endpoint(request: Request) -> Response:
        return await answered(
            request,
            work,
            line=f"{operation.method} {operation.path}",
            timeout=api.settings.request_timeout,
            error_body=error_body,
            task=f"search.{operation.name}",
        )

    return Route(operation.path, endpoint, methods=[operation.method])
