"""The way of jobs between the processes of the service, and its connections.

A job is one POST to the socket of a runner's process, in the form of ``runners.bento.codec``. BentoML's own protocol
between services costs 2 ms more a request (``python -m tools.bench transport``) and is made of pickles, which run code.
So a runner's process answers nothing without the secret of this start: neither jobs nor BentoML's own routes, but for
the health checks. That matters where the socket is a TCP port (``BENTOML_NO_UDS``, Windows), which any local process
can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runners.bento.codec import (
    CodecError,
    Tasks,
    decode_picture,
    decode_results,
    decode_text,
    encode_picture,
    encode_results,
    encode_text,
)
from runners.cancellation import unless_gone
from runners.contract import Failure, LoadedModel, ModelState, PictureJob, Result, TextJob

JOBS = "/jobs"
"""Where a runner's process takes jobs: ``POST /jobs/picture``, ``/jobs/text/<task>``, and its orders (``Process``)."""
SECRET_VARIABLE = "IMMICH_BENTO_JOB_SECRET"  # noqa: S105 - the variable's name
_SECRET_HEADER = "x-job-secret"  # noqa: S105 - the header's name
_HEADER = "x-job"
_ORDERS = ("models", "loaded", "in_memory", "unload", "device")
"""Methods of a ``Process`` that take nothing."""
_HEALTH = frozenset({"/livez", "/readyz", "/healthz"})
_LARGE = 2**20
"""Bytes that aiohttp is given at once; more it copies in part, and writes piece by piece from a file instead."""


class Process(Protocol):
    """A runner's process, as its clients see it."""

    async def picture(self, job: PictureJob) -> Mapping[str, Result | Failure]: ...

    async def text(self, task: str, job: TextJob) -> Result | Failure: ...

    async def models(self) -> Sequence[ModelState]: ...

    async def loaded(self) -> Mapping[str, Sequence[str]]: ...

    async def in_memory(self) -> Sequence[LoadedModel]: ...

    async def unload(self) -> Mapping[str, Sequence[str]]: ...

    async def device(self) -> str: ...


def make_secret() -> None:
    """Make the secret of this start. To be called in the process that starts the others, which inherit it."""
    os.environ[SECRET_VARIABLE] = secrets.token_urlsafe(32)


class JobApp:
    """The ASGI app of a runner's process that answers jobs. ``RunnerDoor`` stands before it."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.process: Process | None = None
        """Set when the process has started."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        order, _, task = scope["path"].rpartition(JOBS + "/")[2].partition("/")
        if self.process is None:
            await _answer(send, 503, b"")
        elif scope["method"] != "POST" or order not in ("picture", "text", *_ORDERS):
            await _answer(send, 404, b"")
        elif order in _ORDERS:
            await _answer(send, 200, orjson.dumps(await getattr(self.process, order)()))
        else:
            body, header = await _body(receive), dict(scope["headers"]).get(_HEADER.encode(), b"").decode("latin-1")
            try:
                if order == "picture":
                    work = self.process.picture(decode_picture(header, body, self._tasks))
                else:
                    work = _one(self.process, task, decode_text(header, body))
            except CodecError:
                await _answer(send, 400, b"")
                return
            del body
            with contextlib.suppress(ClientDisconnect):
                await _answer(send, 200, encode_results(await unless_gone(receive, work)))


async def _one(process: Process, task: str, job: TextJob) -> Mapping[str, Result | Failure]:
    return {task: await process.text(task, job)}


async def _body(receive: Receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("The gateway went away before the whole job was here.")
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class RunnerFault(Exception):
    """A process that failed on what it was sent; its log says why."""


class JobClient:
    """Sends jobs to one runner's process. Belongs to one event loop.

    Each job has a connection of its own, since the answer that ends one may be on its way when the next is sent
    (``RunnerDoor``).
    """

    def __init__(self, address: str, tasks: Tasks, *, timeout: float) -> None:
        """``address``: as BentoML tells it, ``file:///path`` of a Unix socket or ``tcp://host:port``. ``timeout``:
        seconds for a job.
        """
        self._tasks = tasks
        parts = urlsplit(address)
        if parts.scheme in ("file", "unix"):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(unquote(parts.path), limit=0, force_close=True)
            self._url = "http://runner" + JOBS
        else:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._url = f"http://{parts.netloc}{JOBS}"
        # aiohttp rather than httpx: 400 kB to a Unix socket and an answer take 1.3 ms instead of 2.9, a text 0.4 ms
        # instead of 1.4.
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={_SECRET_HEADER: os.environ.get(SECRET_VARIABLE, "")},
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
        )

    async def picture(self, job: PictureJob) -> dict[str, Result | Failure]:
        """Return what became of each task of ``job``. Errors as of ``order``."""
        return self._results(await self._post("/picture", *encode_picture(job)))

    async def text(self, task: str, job: TextJob) -> Result | Failure:
        """Return what became of ``job``. Errors as of ``order``."""
        return self._results(await self._post(f"/text/{task}", *encode_text(job)))[task]

    async def order(self, name: str) -> Any:
        """Return what the process answers to one of ``_ORDERS``.

        Raises ``ConnectionError`` where the process does not answer, ``asyncio.TimeoutError`` where it does not in
        time, ``RunnerFault`` where it fails.
        """
        return orjson.loads(await self._post(f"/{name}", "", b""))

    def _results(self, body: bytes) -> dict[str, Result | Failure]:
        try:
            return decode_results(body, self._tasks)
        except CodecError as error:
            raise RunnerFault(str(error)) from error

    async def _post(self, path: str, header: str, body: bytes) -> bytes:
        try:
            content = io.BytesIO(body) if len(body) > _LARGE else body
            async with self._session.post(self._url + path, data=content, headers={_HEADER: header}) as response:
                answer = await response.read()
        except asyncio.TimeoutError:  # first, because aiohttp's own timeouts are ClientErrors too
            raise
        except aiohttp.ClientError as error:
            raise ConnectionError(f"The connection was lost: {error!r}") from error
        if response.status == 503:  # still starting
            raise ConnectionError(f"The process answered {response.status}.")
        if response.status == 504:  # BentoML's
            raise asyncio.TimeoutError
        if response.status != 200:
            raise RunnerFault(f"POST {path} was answered {response.status}.")
        return answer

    async def close(self) -> None:
        """Close what is open. Jobs on their way are given up."""
        await self._session.close()


def untraced() -> dict[str, Any]:
    """Return options of a BentoML service that nobody traces: BentoML would note down each piece of each request, and
    throw it away.

    Who configures BentoML by a file may have it trace, and gets that.
    """
    return {} if os.environ.get("BENTOML_CONFIG") else {"tracing": {"excluded_urls": ".*"}}


class RunnerDoor:
    """The outermost ASGI app of a runner's process: refuses who lacks the secret, and closes each connection after its
    answer.

    A refused request is not read. A client keeps connections for a while and so does BentoML's server, so a request can
    be sent into a connection that is just being closed, and a POST is not repeated. A new connection to a Unix socket
    costs some tenths of a millisecond.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._secret = os.environ.get(SECRET_VARIABLE, "").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http" and self._may_enter(scope):
            await self.app(scope, receive, send_closing)
        elif scope["type"] == "http":
            await _answer(send_closing, 403, b"")
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _may_enter(self, scope: Scope) -> bool:
        if scope["path"] in _HEALTH and scope["method"] in ("GET", "HEAD"):
            return True
        sent = dict(scope["headers"]).get(_SECRET_HEADER.encode(), b"")
        return bool(self._secret) and hmac.compare_digest(sent, self._secret)
