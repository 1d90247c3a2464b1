"""One exchange with the page: who asks, what is wrong with the question, one log line, and errors as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from errors import ErrorCode, ServiceError, forget_frames
from serving.body import small_body
from serving.deadline import timeout
from serving.exchange import detail_and_code, too_late
from serving.origin import refuse_other_sites
from web.files import HEADERS

M = TypeVar("M", bound=BaseModel)

_MAX_BODY = 16 * 1024
"""Bytes."""
_PAGE_HEADER = "x-immich-bento"
"""Sent by the page with every POST: a page of another site cannot send it, unless this service allowed it to."""


def answer(content: BaseModel | Mapping[str, Any]) -> Response:
    """Return ``content`` as JSON that nobody keeps."""
    told = content.model_dump(mode="json") if isinstance(content, BaseModel) else dict(content)
    return Response(orjson.dumps(told), headers={**HEADERS, "cache-control": "no-store"}, media_type="application/json")


def asked(request: Request, model: type[M]) -> M:
    """Return the query as ``model``. Raises ``ServiceError`` INVALID_REQUEST with what is wrong."""
    return _valid(model, dict(request.query_params))


async def posted(request: Request, model: type[M], *, seconds: float) -> M:
    """Return the JSON body as ``model``. ``seconds``: that it may take to come.

    Raises ``ServiceError``: FOREIGN_SITE for what a page of another site could have sent; BODY_TOO_LARGE,
    BODY_TIMEOUT, INVALID_REQUEST.
    """
    refuse_other_sites(request.headers)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get(_PAGE_HEADER) != "page" or kind != "application/json":
        raise ServiceError(
            ErrorCode.FOREIGN_SITE, f"Only the page sends this: JSON, with the header `{_PAGE_HEADER}: page`."
        )
    body = await small_body(request, largest=_MAX_BODY, seconds=seconds)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The body is no JSON.") from error
    return _valid(model, content)


def _valid(model: type[M], content: Any) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:50] for part in first["loc"]) or "request"
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"{where} is wrong: {first['msg']}.") from error


async def quietly(work: Callable[[], Awaitable[Response]], *, seconds: float) -> Response:
    """Return what ``work`` returns within so many ``seconds``, or the response that its error stands for, without a log
    line: a page of thumbnails would fill the log.
    """
    try:
        async with timeout(seconds):
            return await work()
    except ServiceError as error:
        forget_frames(error)
        return _error_response(error)
    except asyncio.TimeoutError as error:
        forget_frames(error)
        return _error_response(too_late(seconds))


def _error_response(error: ServiceError) -> Response:
    return JSONResponse(detail_and_code(error), error.code.status, headers={**HEADERS, "cache-control": "no-store"})
