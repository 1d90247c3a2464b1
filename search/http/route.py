"""A route of search: the key, one log line with metrics, a time limit, bounded bodies, and errors as every protocol
here tells them, around what FastAPI does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response

from errors import ErrorCode, ServiceError
from serving.body import small_body
from serving.exchange import Fields, answered

if TYPE_CHECKING:
    from serving.guesses import Guesses
    from settings import Settings

_MAX_BODY = 16 * 1024
"""Bytes of a request's body."""


class SearchRoute(APIRoute):
    """An operation of search. The app has ``state.settings`` and ``state.api``; the operation finds its log fields in
    ``request.state.fields``.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler within an exchange."""
        handle = super().get_route_handler()
        method = ",".join(sorted(self.methods or ()))

        async def endpoint(request: Request) -> Response:
            settings: Settings = request.app.state.settings
            guesses: Guesses = request.app.state.api.guesses

            async def operate(request: Request, fields: Fields) -> Response:
                guesses.require_key(request, settings.api_auth_key)
                _check_repetition(request)
                request.state.fields = fields
                try:
                    return await handle(_BoundedRequest(request, settings.body_timeout))
                except RequestValidationError as error:
                    raise _invalid(error) from error
                except _BodyRefused as error:
                    raise error.error from error
                except StarletteHTTPException as error:  # FastAPI raises its own or the one that it is derived from
                    raise ServiceError(ErrorCode.INVALID_REQUEST, f"The body is wrong: {error.detail}.") from error

            return await answered(
                request,
                operate,
                line=f"{method} {self.path}",
                timeout=settings.request_timeout,
                task=f"search.{self.operation_id}",
            )

        return endpoint


class _BoundedRequest(Request):
    """A request whose body may neither be large nor come slowly."""

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(request.scope, request.receive)
        self._seconds = seconds

    async def body(self) -> bytes:
        """Return the body. Raises ``_BodyRefused``."""
        if not hasattr(self, "_body"):
            try:
                self._body = await small_body(self, largest=_MAX_BODY, seconds=self._seconds)
            except ServiceError as error:
                raise _BodyRefused(error) from error
        return self._body


class _BodyRefused(HTTPException):
    """A body that is not read to its end. FastAPI takes any other exception for one of the parser."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error.code.status, error.message)
        self.error = error


def _check_repetition(request: Request) -> None:
    """Raise ``ServiceError`` INVALID_REQUEST where a parameter is given more than once."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise ServiceError(
                ErrorCode.INVALID_REQUEST, f"The parameter {name[:50]!r} is given {names.count(name)} times."
            )


def _invalid(error: RequestValidationError) -> ServiceError:
    """Return an error that names what is wrong in the request, without repeating its value."""
    first = error.errors()[0]
    place, *names = first["loc"]
    where = ".".join(str(name)[:50] for name in names if not isinstance(name, int) or place != "body")
    what = "body" if place == "body" else "parameter"
    return ServiceError(ErrorCode.INVALID_REQUEST, f"The {what} {where or 'as a whole'} is wrong: {first['msg']}.")
