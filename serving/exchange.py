"""One request from its arrival to its log line, whatever the protocol: a time limit, errors as answers, one line, two
metrics.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

import metrics
from errors import ErrorCode, ServiceError

log = logging.getLogger(__name__)

P = TypeVar("P")

_CLIENT_GONE = 499
"""Status in logs and metrics of a request whose sender went away; nobody receives it."""

Fields: TypeAlias = "dict[str, Any]"
"""What a request's log line says of it. ``task`` also labels its metrics."""

Work: TypeAlias = "Callable[[Request, Fields], Awaitable[Response]]"
"""Answers a request, and notes in the fields what it learns of it. Raises ``ServiceError``."""

ErrorBody: TypeAlias = "Callable[[ServiceError], dict[str, Any]]"
"""The JSON by which a protocol tells of an error."""


async def answered(
    request: Request, work: Work, *, line: str, timeout: float, error_body: ErrorBody, task: str = "none"
) -> Response:
    """The answer of ``work``, or its error as an answer; never raises. Says in one log line what became of the request.

    ``line``: what that line is called (``POST /predict``; never the path as sent). ``timeout``: seconds. ``task``: the
    task as long as ``work`` has not noted another.
    """
    began = time.perf_counter()
    fields: Fields = {"request_id": request.headers.get("x-request-id", "")[:64] or uuid.uuid4().hex[:16], "task": task}
    try:
        response = await asyncio.wait_for(work(request, fields), timeout)
    except ServiceError as error:
        response = _error_response(error, error_body, fields)
    except asyncio.TimeoutError:
        late = ServiceError(ErrorCode.TIMEOUT, f"The request was not answered in {timeout:g} s (REQUEST_TIMEOUT).")
        response = _error_response(late, error_body, fields)
    except ClientDisconnect:
        response = Response(status_code=_CLIENT_GONE)
    except Exception:
        log.exception("A request failed.", extra={"fields": fields})
        ours = ServiceError(ErrorCode.INTERNAL, "The service failed; its log has the details.")
        response = _error_response(ours, error_body, fields)
    response.headers["x-request-id"] = fields["request_id"]
    _report(response, time.perf_counter() - began, line, fields)
    return response


def started(part: P | None) -> P:
    """The runners, or the upstreams, once there are any. Raises ``ServiceError`` RUNNER_UNAVAILABLE before that."""
    if part is None:
        raise ServiceError(ErrorCode.RUNNER_UNAVAILABLE, "The service is still starting. Try again shortly.")
    return part


def _error_response(error: ServiceError, body: ErrorBody, fields: Fields) -> Response:
    fields["error"] = error.code.value
    fields["detail"] = error.message
    headers = {}
    if error.code.retry_after is not None:
        headers["retry-after"] = str(error.code.retry_after)
    if error.code is ErrorCode.BODY_TIMEOUT:
        headers["connection"] = "close"  # what may yet come of that body would be taken for a request
    if error.code is ErrorCode.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body(error), status_code=error.code.status, headers=headers)


def _report(response: Response, seconds: float, line: str, fields: Fields) -> None:
    metrics.REQUESTS.labels(fields["task"], str(response.status_code)).inc()
    metrics.LATENCY.labels(fields["task"]).observe(seconds)
    level = logging.INFO if response.status_code < 400 else logging.WARNING
    log.log(level, line, extra={"fields": {"status": response.status_code, "ms": round(seconds * 1000, 1), **fields}})
