"""Answers to requests that no route takes, in the form of every other error."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from errors import ErrorCode


async def answer_no_route(request: Request, error: Exception) -> Response:
    """Return ``{"detail": "…", "code": "…"}`` for a path or method that nothing answers, as Starlette asks.

    404 ``not_found``; 405 ``method_not_allowed``, with the header ``Allow``. Raises ``error`` if it is another one.
    """
    if not isinstance(error, HTTPException) or error.status_code not in (404, 405):
        raise error
    if error.status_code == ErrorCode.NOT_FOUND.status:
        code, detail = ErrorCode.NOT_FOUND, "Nothing is at this path. Immich asks POST /predict and GET /ping."
    else:
        allowed = (error.headers or {}).get("Allow", "another method")
        code, detail = ErrorCode.METHOD_NOT_ALLOWED, f"This path is not for {request.method}. Use {allowed}."
    return JSONResponse({"detail": detail, "code": code.value}, code.status, error.headers)
