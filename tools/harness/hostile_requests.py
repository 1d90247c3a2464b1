"""Requests that are to be refused, one of each kind."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Sequence

import httpx

from tools.harness.hostile_parts import MB, big_tiff, connect, head_of
from tools.harness.immich_client import BOUNDARY, HEADERS, clip_visual, faces, multipart, ocr

_SHARES = {"large and no picture": 0.05}
"""Kind -> its share of what is sent, where those of the others are 1: its body has 90 MB."""


def any_kind(kinds: Iterable[str], chance: random.Random) -> str:
    """Return one of ``kinds``, by chance."""
    names = list(kinds)
    return chance.choices(names, [_SHARES.get(name, 1.0) for name in names])[0]


def refused_requests(url: str, clients: Sequence[httpx.Client], chance: random.Random) -> dict[str, Callable[[], None]]:
    """Return what sends one hostile request of each kind to the service at ``url``. None is answered with 200."""

    def post(body: bytes, *statuses: int, headers: dict[str, str] | None = None) -> None:
        with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            status = (
                chance.choice(clients).post("/predict", content=body, headers=HEADERS | (headers or {})).status_code
            )
            assert status in statuses, status

    def raw(data: bytes) -> None:
        with contextlib.suppress(OSError), connect(url, f"127.0.0.{chance.randint(7, 9)}") as connection:
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
