"""One request from its arrival to its log line, whatever the protocol: a time limit, errors as answers, one line, two
metrics.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

import metrics
from errors import ErrorCode, ServiceError, forget_frames
from serving.deadline import Deadline
from serving.late_response import EarlyHead, LateResponse
from serving.left_out import left_out_headers

log = logging.getLogger(__name__)

P = TypeVar("P")

_CLIENT_GONE = 499
"""Status in logs and metrics of a request whose sender went away; nobody receives it."""
_LOOK_EVERY = 1.0
"""Seconds between looks at whether a request that takes long waits for a model."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""Request ids that are taken over from a client: anything else could pass for something else in a log."""

Fields: TypeAlias = "dict[str, Any]"
"""A request's own fields in its log line. ``task`` also labels its metrics."""

Work: TypeAlias = "Callable[[Request, Fields], Awaitable[Response]]"
"""Answers a request, and notes in the fields what it learns of it. Raises ``ServiceError``."""

ErrorBody: TypeAlias = "Callable[[ServiceError], dict[str, Any]]"
"""The JSON by which a protocol tells of an error."""


class _NoResponse(Response):
    """Stands for the response to a client that has gone: has a status for log and metrics, and sends nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing: once the connection is closed, a server may take it for a second response."""


def detail_and_code(error: ServiceError) -> dict[str, Any]:
    """Return ``{"detail": "…", "code": "…"}``, by which Immich's protocol and search tell of an error."""
    return {"detail": error.message, "code": error.code.value}


async def answered(
    request: Request,
    work: Work,
    *,
    line: str,
    timeout: float,
    error_body: ErrorBody = detail_and_code,
    task: str = "none",
    early_head: EarlyHead | None = None,
) -> Response:
    """Run ``work`` and return its response, or the one that its error stands for; log the request once. Never raises.

    ``line``: what the log line is called (``POST /predict``; never the path as sent). ``timeout``: seconds, without
    those spent in ``serving.deadline.deadline_paused``. ``task``: the task as long as ``work`` has not noted another.
    ``early_head``: for answers in JSON; when the head of one that waits for a model is sent before it is known, which
    needs HTTP/1.1. Once this returns an ordinary response, nothing that ``work`` held is held by an error.
    """
    began = time.perf_counter()
    fields: Fields = {"request_id": request_id(request), "task": task}
    limit = Deadline(timeout)
    outcome = _outcome(request, work, limit, timeout, error_body, fields)
    if early_head is None or request.scope.get("http_version") == "1.0":
        response = await outcome
    else:
        working = asyncio.ensure_future(outcome)
        if await _waits_long(working, limit, early_head.after):
            return LateResponse(
                working,
                blank_every=early_head.blank_every,
                headers={"x-request-id": fields["request_id"]},
                then=lambda response: _report_late(response, time.perf_counter() - began, line, fields),
            )
        response = working.result()
        del working
    _report(response, time.perf_counter() - began, line, fields)
    return response


async def _waits_long(working: asyncio.Future[Response], limit: Deadline, after: float) -> bool:
    """Wait until the work is done, or is not done ``after`` seconds later and waits for a model; return whether that is
    so. Cancelled, cancel it.
    """
    try:
        await asyncio.wait((working,), timeout=after)
        while not working.done() and not limit.is_paused:
            await asyncio.wait((working,), timeout=_LOOK_EVERY)
        return not working.done()
    except asyncio.CancelledError:
        working.cancel()
        await asyncio.wait((working,))
        raise


async def _outcome(
    request: Request, work: Work, limit: Deadline, timeout: float, error_body: ErrorBody, fields: Fields
) -> Response:
    try:
        async with limit:
            response = await work(request, fields)
    except ServiceError as error:
        response = _error_response(error, error_body, fields)
        forget_frames(error)
    except asyncio.TimeoutError as error:
        response = _error_response(too_late(timeout), error_body, fields)
        forget_frames(error)
    except ClientDisconnect as error:
        response = _NoResponse(status_code=_CLIENT_GONE)
        forget_frames(error)
    except Exception as error:
        log.exception("A request failed.", extra={"fields": fields})
        ours = ServiceError(ErrorCode.INTERNAL, "The service failed; its log has the details.")
        response = _error_response(ours, error_body, fields)
        forget_frames(error)
    response.headers["x-request-id"] = fields["request_id"]
    response.headers.update(left_out_headers(fields))
    return response


def too_late(seconds: float) -> ServiceError:
    """Return the error of a request that was not answered within the time that it may take."""
    return ServiceError(ErrorCode.TIMEOUT, f"The request was not answered in {seconds:g} s (REQUEST_TIMEOUT).")


def request_id(request: Request) -> str:
    """Return the request's own ``X-Request-ID`` if it consists of letters, digits and ``._:-`` alone; a new one if
    not.
    """
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex[:16]


def started(part: P | None) -> P:
    """Return the runners, or the upstreams, once there are any.

    Raises ``ServiceError`` RUNNER_UNAVAILABLE before that.
    """
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


def _report_late(response: Response, seconds: float, line: str, fields: Fields) -> None:
    """Report a response whose head, with status 200, was sent before it was known."""
    if response.status_code not in (200, _CLIENT_GONE):
        fields["broken_off"] = True  # the client was told of no status: its connection was closed
    _report(response, seconds, line, fields)


def _report(response: Response, seconds: float, line: str, fields: Fields) -> None:
    metrics.REQUESTS.labels(fields["task"], str(response.status_code)).inc()
    metrics.LATENCY.labels(fields["task"]).observe(seconds)
    level = logging.INFO if response.status_code < 400 else logging.WARNING
    log.log(level, line, extra={"fields": {"status": response.status_code, "ms": round(seconds * 1000, 1), **fields}})
