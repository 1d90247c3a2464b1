"""What jobs travel in between the processes of the service, and on what connections.

A job is one POST of its pickle to the runner's socket, which lies in a folder that only the service's user can open;
its answer is a pickle too. That is BentoML's own protocol between services, less what costs its client and its APIs 2
ms a request (``python -m tools.bench transport``): a pydantic model around each job, a JSON schema for each answer,
notes for a trace that nobody asked for.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import ErrorCode
from runners.contract import Failure

JOBS = "/jobs"
"""Where a runner's process takes jobs: ``POST /jobs/<runner>``."""
_PICKLE_PROTOCOL = 5


class Submits(Protocol):
    """A runner, as far as jobs are concerned."""

    async def submit(self, job: Any) -> Any: ...


class JobApp:
    """The ASGI app of a runner process that answers jobs. Trusts its clients: a pickle may run code."""

    def __init__(self) -> None:
        self.runners: Mapping[str, Submits] = {}
        """By name; set when the process has started."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        runner = self.runners.get(scope["path"].rpartition("/")[2])
        if runner is None or scope["method"] != "POST":
            await _answer(send, 404, b"")
            return
        job = pickle.loads(await _body(receive))  # noqa: S301 - from the gateway alone, see above
        await _answer(send, 200, pickle.dumps(await runner.submit(job), _PICKLE_PROTOCOL))


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


class JobClient:
    """Sends jobs to one runner process. Belongs to one event loop.

    Each job has a connection of its own, since the answer that ends one may be on its way when the next is sent
    (``CloseEachConnection``).
    """

    def __init__(self, address: str, *, timeout: float) -> None:
        """``address``: as BentoML tells it, ``file:///path`` of a Unix socket or ``tcp://host:port``. ``timeout``:
        seconds for a job.
        """
        parts = urlsplit(address)
        if parts.scheme in ("file", "unix"):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(unquote(parts.path), limit=0, force_close=True)
            self._url = "http://runner" + JOBS
        else:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._url = f"http://{parts.netloc}{JOBS}"
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
        )

    async def submit(self, runner: str, job: Any) -> Any:
        """What ``runner`` makes of ``job``: its result, or a ``Failure``.

        Raises ``aiohttp.ClientError``, ``ConnectionError`` or ``asyncio.TimeoutError`` where the process does not
        answer.
        """
        pickled = io.BytesIO(pickle.dumps(job, _PICKLE_PROTOCOL))  # as a file, aiohttp writes it piece by piece
        async with self._session.post(f"{self._url}/{runner}", data=pickled) as response:
            body = await response.read()
        if response.status == 200:
            return pickle.loads(body)  # noqa: S301 - from our own process
        if response.status in (503, 504):  # BentoML's: still starting; did not finish in its time
            raise aiohttp.ServerDisconnectedError(f"The runner answered {response.status}.")
        return Failure(ErrorCode.INTERNAL, f"The process that runs {runner} failed; its log has the details.")

    async def close(self) -> None:
        """Close what is open. Jobs on their way are given up."""
        await self._session.close()


def untraced() -> dict[str, Any]:
    """Options of a BentoML service that nobody traces: BentoML would note down each piece of each request, and throw it
    away.

    Who configures BentoML by a file may have it trace, and gets that.
    """
    return {} if os.environ.get("BENTOML_CONFIG") else {"tracing": {"excluded_urls": ".*"}}


class CloseEachConnection:
    """Ends a runner's connection after each answer.

    A client keeps connections for a while and so does BentoML's server, so a request can be sent into a connection that
    is just being closed, and a POST is not repeated. A new connection to a Unix socket costs some tenths of a
    millisecond.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)
