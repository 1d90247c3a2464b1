"""Bounds on the head of an HTTP request (its first line and its headers), which uvicorn has none for.

uvicorn with httptools takes a header line of any length, for any time, before a route or a key is looked at; its
``h11_max_incomplete_event_size`` concerns h11 alone. A line of 50 MB holds up the event loop for 9 s. Here a head may
have 32 KiB and take 30 s; so may the trailers of a chunked body. Nor does uvicorn read on behind the head before the
application asks for the body: what waits for room in memory waits in the sender's buffers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runners.bento.internals import Borrowed, first, lacking_parameters, missing, other_version
from runners.bento.stop import uvicorn_server

log = logging.getLogger("service")

MAX_HEAD = 32 * 1024
"""Bytes of a request's head, or of what comes between two pieces of its body."""
HEAD_TIMEOUT = 30.0
"""Seconds from the first byte of a connection or a head until the head is complete."""
_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large"}

HTTP_PROTOCOL = Borrowed(
    name="uvicorn's HTTP protocol",
    gain="a header of 50 MB holds up other requests for under 0.1 s instead of 9: "
    "pytest tests/e2e/test_hostile_clients.py -k head",
    depends_on="uvicorn/protocols/http/httptools_impl.py: HttpToolsProtocol and its callbacks; uvicorn/server.py: "
    "create_protocol asks config.http_protocol_class, and the protocol config.loaded_app, for each connection; "
    "https://github.com/encode/uvicorn/issues/157 asked for limits, and got one for h11",
    otherwise="heads of any size are read; a proxy before the service has to bound them; /metrics has URL_KEY in it",
    misfit=lambda: first(
        other_version("uvicorn", at_least="0.30", below="1"),
        missing(
            HttpToolsProtocol,
            *("connection_made", "connection_lost", "data_received", "on_message_begin", "on_headers_complete"),
            *("on_body", "on_message_complete", "on_response_complete"),
        ),
        lacking_parameters(HttpToolsProtocol.__init__, "config", "server_state", "app_state"),
        lacking_parameters(HttpToolsProtocol.data_received, "data"),
    ),
)


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection, with bounds on heads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._since_progress = 0
        """Bytes since a head was complete, or a piece of a body or its end came."""
        self._in_message = False
        """True while a request has begun and is not complete."""
        self._head_is_new = False
        """True if a head was completed by the bytes that are being parsed, and its request given to the application."""
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse ``data``, unless it makes a head too long: then answer 431 and close the connection."""
        if self._head_timer is None and not self._in_message:
            self._wait_for_head()
        room = MAX_HEAD - self._since_progress
        if len(data) > room:
            rest = memoryview(data)[room:]
            self._parse(data[:room])
            if self.transport.is_closing():
                return
            if self._since_progress >= MAX_HEAD:
                self._refuse(431, f"The request's headers have more than the {MAX_HEAD:,} bytes that are read here.")
                return
            data = rest  # type: ignore[assignment]  # the parser takes any buffer
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._since_progress += len(data)
        super().data_received(data)
        if not self._in_message:
            self._since_progress = 0
        elif self._head_is_new:
            self.flow.pause_reading()  # until the application asks for the body
        self._head_is_new = False

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._in_message = True
        if self._head_timer is None:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Stop waiting, and have the application answer."""
        self._since_progress = 0
        self._stop_waiting()
        cycle = self.cycle
        super().on_headers_complete()
        self._head_is_new = self.cycle is not cycle  # and not a web socket's

    def on_body(self, body: bytes) -> None:
        """Note progress."""
        self._since_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the next byte begins a head."""
        self._since_progress = 0
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Give a body that nobody reads, since its request is answered, the time of a head to end."""
        super().on_response_complete()
        if self._in_message and self._head_timer is None:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._end_waiting)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_waiting(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            return  # what has begun behind a request waits with it
        if self._since_progress:
            self._refuse(408, f"The request's headers did not come within {HEAD_TIMEOUT:g} s.")
        else:
            self.transport.close()  # nothing came, or the body of a request that is answered

    def _refuse(self, status: int, detail: str) -> None:
        """Answer ``status`` unless an answer is under way, and close the connection."""
        log.warning("A connection was closed: %s", detail, extra={"fields": {"client": self.client, "status": status}})
        if self.cycle is None or self.cycle.response_complete:
            body = json.dumps({"detail": detail, "code": "invalid_request"}).encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, _REASONS[status].encode(), len(body), body)
            )
        self.transport.close()


def believe_proxies(addresses: str) -> None:
    """Have uvicorn believe the ``X-Forwarded-For`` of ``addresses`` (comma separated, networks too) and of no others.

    Call it before uvicorn is configured, which BentoML does after it has imported the service. By default uvicorn
    believes every client on a loopback address.
    """
    os.environ["FORWARDED_ALLOW_IPS"] = addresses or "none"


def bound_heads() -> None:
    """Have the server of this process bound the heads of its requests, on connections that come from now on."""
    server = uvicorn_server()
    if server is not None and HTTP_PROTOCOL.fits():
        bound_heads_of(server.config)


def put_before_all(wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """Have the server of this process give what comes on new connections to ``wrap`` of the app that it has, which is
    then before BentoML's metrics too: those keep every path that they see.
    """
    server = uvicorn_server()
    if server is not None and HTTP_PROTOCOL.fits():
        server.config.loaded_app = wrap(server.config.loaded_app)


def bound_heads_of(config: uvicorn.Config) -> None:
    """Have servers that are made by ``config``, which is loaded, bound heads; log a line where they speak by h11."""
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = BoundedHeadProtocol
    else:
        log.warning("Heads of requests are not bounded: %s is not httptools' protocol.", config.http_protocol_class)
