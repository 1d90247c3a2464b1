"""A server of Immich's protocol without models, for the tests of the load generator: answers at once, late, or with
errors, as told.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMAND = (sys.executable, "-m", "tests.tools.bench.fake_server")
"""Serves on IMMICH_PORT until it is ended."""


@dataclass
class FakeServer:
    """Its behaviour, and the requests that came to it."""

    delay: Callable[[int], float] = lambda number: 0.0
    """Seconds that the n-th request (from 0) waits."""
    status: Callable[[int], int] = lambda number: 200
    knows: Callable[[bytes], bool] = lambda body: True
    """Returns whether the models that a request asks for are known; if not, it is answered as Immich's server does."""
    chunked: bool = False
    close: bool = False
    """Close each connection after its answer."""
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """Serve ``fake`` on a free port of the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer_to(body: bytes) -> dict[str, Any]:
    """Return an answer of the right form."""
    if b'"clip"' in body:
        return {"clip": json.dumps([0.6, 0.8])}
    if b'"ocr"' in body:
        return {"ocr": {"text": ["营业执照"], "box": [0.0] * 8, "boxScore": [0.9], "textScore": [0.9]}}
    face = {"boundingBox": {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0}, "embedding": "[1.0,0.0]", "score": 0.9}
    return {"facial-recognition": [face]}


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = (
            -1
        )  # head and body in one packet: in two, Nagle's algorithm and delayed acknowledgements make 40 ms of them

        def setup(self) -> None:
            super().setup()
            with fake.lock:
                fake.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with fake.lock:
                number = len(fake.bodies)
                fake.bodies.append(body)
            time.sleep(fake.delay(number))
            status = fake.status(number)
            if not fake.knows(body):
                self._answer(500, b"Internal Server Error")
                self.close_connection = True
                return
            self._answer(status, json.dumps(answer_to(body)).encode() if status == 200 else b'{"error":"told to"}')

        def do_GET(self) -> None:
            self._answer(200, b"pong")

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            if fake.close:
                self.send_header("Connection", "close")
            if fake.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                half = len(content) // 2 + 1
                content = (
                    b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:half], content[half:]) if part)
                    + b"0\r\n\r\n"
                )
            else:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    ThreadingHTTPServer(
        ("127.0.0.1", int(os.environ["IMMICH_PORT"])), _handler(FakeServer(delay=lambda number: 0.002))
    ).serve_forever()
