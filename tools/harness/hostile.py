"""Clients that mean harm, each from an address of its own on loopback."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from tools.harness.immich_client import BOUNDARY, HEADERS, clip_visual, faces, multipart, ocr
from tools.harness.server import Server

GOOD_CLIENT = "127.0.0.2"
MB = 2**20


def client_at(address: str, url: str, timeout: float = 300) -> httpx.Client:
    """Return a client that connects from ``address``."""
    return httpx.Client(base_url=url, timeout=timeout, transport=httpx.HTTPTransport(local_address=address))


def connect(server: Server, address: str = "127.0.0.9") -> socket.socket:
    """Return a connection from ``address``."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=30, source_address=(address, 0))


def head_of(length: int, *more: str) -> bytes:
    """Return the head of a request for ``/predict`` that announces ``length`` bytes."""
    lines = [
        "POST /predict HTTP/1.1",
        "Host: x",
        f"Content-Type: {HEADERS['content-type']}",
        f"Content-Length: {length}",
    ]
    return ("\r\n".join([*lines, *more]) + "\r\n\r\n").encode()


def strip(width: int = 20_000, height: int = 50) -> bytes:
    """Return a picture of 15 kB that costs OCR much: its short side is what is enlarged."""
    file = io.BytesIO()
    Image.new("L", (width, height), 255).save(file, "JPEG", quality=20)
    return file.getvalue()


def big_tiff(tags: int = 90_000) -> bytes:
    """Return a BigTIFF whose directory has many entries."""
    entries = b"".join(struct.pack("<HHQQ", 256 + number % 60_000, 3, 1, 1) for number in range(tags))
    return b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", tags) + entries + struct.pack("<Q", 0)


@dataclass
class Pings:
    """Pings the service from another address all the time, in a thread."""

    server: Server
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Pings:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        time.sleep(0.1)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with client_at(GOOD_CLIENT, self.server.url) as client:
            while not self._stop.wait(0.01):
                began = time.perf_counter()
                assert client.get("/ping").text == "pong"
                self.seconds.append(time.perf_counter() - began)

    @property
    def p99(self) -> float:
        """Seconds."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


@contextlib.contextmanager
def attack(work: Callable[[], Any], threads: int) -> Iterator[None]:
    """Repeat ``work`` in so many ``threads`` for the length of the block. Raises the first ``AssertionError`` of
    ``work``.
    """
    stop = threading.Event()
    failures: list[AssertionError] = []

    def repeat() -> None:
        while not stop.is_set():
            try:
                work()
            except (httpx.HTTPError, OSError):
                pass  # the service may close a connection before all is sent
            except AssertionError as failure:
                failures.append(failure)
                return

    running = [threading.Thread(target=repeat, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join(120)
    if failures:
        raise failures[0]


def refused_requests(
    server: Server, clients: Sequence[httpx.Client], chance: random.Random
) -> dict[str, Callable[[], None]]:
    """Return what sends one hostile request of each kind. None of them is answered with 200."""

    def post(body: bytes, *statuses: int, headers: dict[str, str] | None = None) -> None:
        with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            status = (
                chance.choice(clients).post("/predict", content=body, headers=HEADERS | (headers or {})).status_code
            )
            assert status in statuses, status

    def raw(data: bytes) -> None:
        with contextlib.suppress(OSError), connect(server, f"127.0.0.{chance.randint(7, 9)}") as connection:
            connection.sendall(data)

    def noise(size: int) -> bytes:
        return chance.randbytes(size)

    tasks = {**clip_visual(), **faces(), **ocr()}
    return {
        "no picture": lambda: post(multipart(tasks, image=noise(MB)), 415),
        "large and no picture": lambda: post(multipart(tasks, image=bytes(90 * MB)), 415),
        "too large": lambda: raw(head_of(10**10) + bytes(MB)),
        "long entries": lambda: post(multipart(raw_entries=b"[" * MB, image=b"x"), 413),
        "deep entries": lambda: post(multipart(raw_entries=b'{"clip":' * 7_000, image=b"x"), 422),
        "long text": lambda: post(multipart(clip_visual(), text="x" * MB), 413),
        "unknown task": lambda: post(multipart({"video": {}}, image=b"x"), 422),
        "rubbish": lambda: post(b"--" + BOUNDARY.encode() + noise(10_000), 422),
        "many parts": lambda: post((b"--" + BOUNDARY.encode() + b"\r\n\r\n\r\n\r\n") * 1000, 422),
        "half a body": lambda: raw(head_of(5 * MB) + b"--" + BOUNDARY.encode() + b"\r\n" + bytes(2 * MB)),
        "long head": lambda: raw(b"GET /ping HTTP/1.1\r\nX: " + b"x" * MB),
        "no HTTP": lambda: raw(noise(1000)),
        "many tags": lambda: post(multipart(tasks, image=big_tiff(20_000)), 415, 413),
        "another site": lambda: post(multipart(tasks, image=b"x"), 403, headers={"origin": "https://evil.example"}),
        "forged id": lambda: post(b"", 422, headers={"x-request-id": "x status=200"}),
    }
