"""Search's HTTP API, behind the service's key: find pictures, read their text, do one again, count. docs/search.md
tells people of it; ``python -m search.http.api > docs/openapi.json`` writes its description.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, FastAPI, Query, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from errors import ErrorCode
from search.answers import Problem
from search.http.route import SearchRoute
from search.http.state import SearchApi
from search.indexing.redo import Redone, RedoRequest
from search.query.answers import SearchAnswer, SearchRequest
from search.store.asset_text import AssetText, asset_text
from search.store.statistics import Statistics, statistics
from serving.exchange import Fields
from serving.no_route import answer_no_route


def _api(request: Request) -> SearchApi:
    api: SearchApi = request.app.state.api
    return api


def _fields(request: Request) -> Fields:
    fields: Fields = request.state.fields
    return fields


_Api = Annotated[SearchApi, Depends(_api)]
_LogFields: TypeAlias = Annotated[dict[str, Any], Depends(_fields)]

_ALWAYS = (
    ErrorCode.UNAUTHORIZED,
    ErrorCode.KEY_NOT_SET,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.SEARCH_UNAVAILABLE,
    ErrorCode.TIMEOUT,
    ErrorCode.INTERNAL,
)
"""Errors of every operation."""
_COMPUTING = (
    ErrorCode.MODEL_UNAVAILABLE,
    ErrorCode.MODEL_ON_ITS_WAY,
    ErrorCode.RUNNER_UNAVAILABLE,
    ErrorCode.QUEUE_FULL,
)


def _problems(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Return one described response per status: which codes it may carry."""
    by_status: dict[int, list[str]] = {}
    for code in (*_ALWAYS, *codes):
        by_status.setdefault(code.status, []).append(code.value)
    return {
        status: {"model": Problem, "description": "`code` is " + " or ".join(names) + "."}
        for status, names in sorted(by_status.items())
    }


# The route looks at the key itself, before anything else; these two describe it.
_KEYS = (
    Security(APIKeyHeader(name="api-key", scheme_name="api-key", auto_error=False, description="API_AUTH_KEY.")),
    Security(HTTPBearer(scheme_name="bearer", auto_error=False, description="API_AUTH_KEY, as `Bearer …`.")),
)
router = APIRouter(route_class=SearchRoute, dependencies=_KEYS, strict_content_type=False)


@router.get(
    "/search",
    operation_id="find",
    summary="Find pictures by the text in them, by their meaning, or by both.",
    responses=_problems(*_COMPUTING, ErrorCode.INVALID_QUERY, ErrorCode.STORED_MODEL_DIFFERS),
)
async def _find(api: _Api, fields: _LogFields, request: Annotated[SearchRequest, Query()]) -> SearchAnswer:
    answer = await api.find(request)
    fields |= {"mode": answer.mode.value, "hits": len(answer.hits)}
    if answer.notes:
        fields["notes"] = ",".join(note.code for note in answer.notes)
    return answer


@router.get(
    "/assets/{id}/ocr",
    operation_id="read_text",
    summary="The text that was read in one picture, with its boxes.",
    responses=_problems(ErrorCode.UNKNOWN_ASSET),
)
async def _read_text(api: _Api, id: UUID) -> AssetText:
    async with api.database() as database:
        return await asset_text(database, id)


@router.post(
    "/assets/{id}/reprocess",
    operation_id="reprocess",
    summary="Read or embed one picture again, and replace what is stored of it.",
    responses=_problems(
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
async def _reprocess(api: _Api, fields: _LogFields, id: UUID, request: RedoRequest) -> Redone:
    tasks = list(dict.fromkeys(request.tasks))
    fields["tasks"] = "+".join(task.value for task in tasks)
    return await api.redo(id, tasks)


class _NoParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")


@router.get(
    "/stats",
    operation_id="stats",
    summary="How many pictures there are, and what was done with them.",
    responses=_problems(),
)
async def _stats(api: _Api, _: Annotated[_NoParameters, Query()]) -> Statistics:
    async with api.database() as database:
        return await statistics(database, api.catalog, api.settings, api.life.sync)


def create_app() -> FastAPI:
    """Return the operations as an app without state: enough to describe them."""
    app = FastAPI(
        title="immich-bento search",
        version="1",
        description="Finds pictures by the text in them and by their meaning. docs/search.md explains it to people.",
        license_info={"name": "MIT", "identifier": "MIT"},
        exception_handlers={405: answer_no_route},
        openapi_url=None,  # served below, as it is committed; no page is served, which would need a network
    )
    app.include_router(router)
    return app


def openapi_json() -> bytes:
    """Return the OpenAPI document as it is served and committed."""
    return orjson.dumps(create_app().openapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    sys.stdout.buffer.write(openapi_json())
