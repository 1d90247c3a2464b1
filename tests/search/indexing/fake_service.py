"""A stand-in for the service's ``/predict``, that embeds a picture as its number of bytes and reads one line in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

MODELS = {"clip": "cn-clip-tiny", "ocr": "PP-OCRv6_small"}

Answer = Callable[[bytes, set[str]], httpx.Response | None]


def error(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"detail": f"It is {code}.", "code": code}, headers=headers)


@dataclass
class FakeService:
    """Answers requests, and remembers them."""

    answer: Answer = lambda picture, tasks: None
    """What is answered to a picture and its tasks instead; None: what a good service would."""
    asked: list[tuple[bytes, frozenset[str]]] = field(default_factory=list)
    entries: list[dict[str, object]] = field(default_factory=list)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle), base_url="http://service")

    def _handle(self, request: httpx.Request) -> httpx.Response:
        entries, picture = _parts(request)
        self.asked.append((picture, frozenset(entries)))
        self.entries.append(entries)
        instead = self.answer(picture, set(entries))
        if instead is not None:
            return instead
        answer: dict[str, object] = {"imageHeight": 1, "imageWidth": 1}
        if "clip" in entries:
            answer["clip"] = json.dumps([1.0, float(len(picture))])
        if "ocr" in entries:
            answer["ocr"] = {
                "text": [f"{len(picture)} bytes"],
                "box": [0, 0, 1, 0, 1, 1, 0, 1],
                "boxScore": [0.9],
                "textScore": [0.8],
            }
        return httpx.Response(200, json=answer)


def _parts(request: httpx.Request) -> tuple[dict[str, object], bytes]:
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    found = {}
    for part in request.read().split(b"--" + boundary)[1:-1]:
        head, _, body = part[2:-2].partition(b"\r\n\r\n")
        name = re.search(rb'name="(\w+)"', head)
        assert name is not None
        found[name.group(1)] = body
    return json.loads(found[b"entries"]), found[b"image"]
