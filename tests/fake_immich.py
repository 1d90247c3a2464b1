"""A fake of Immich's HTTP API on loopback: previews and the job for faces, as search/immich/client.py asks for them."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import LoopbackServer


class FakeImmich(LoopbackServer):
    """A context manager. ``previews``: bytes by asset id; other assets are answered 400, as Immich does. ``status``:
    answers everything.
    """

    def __init__(self, key: str = "immich-key") -> None:
        super().__init__(_handler(self))
        self.key = key
        self.previews: dict[str, bytes] = {}
        self.edited: dict[str, bytes] = {}
        """What is asked for as edited, where an asset was."""
        self.version = (3, 1, 0)
        self.version_requests = 0
        self.status: int | None = None
        self.requests: list[str] = []
        """``METHOD path?query`` of all requests but those for the version."""
        self.jobs: list[Any] = []

    def answer(self, request: str, key: str | None, body: bytes) -> tuple[int, bytes]:
        """Return status and body."""
        if request == "GET /api/server/version":
            self.version_requests += 1
        else:
            self.requests.append(request)
        if self.status is not None:
            return self.status, b"{}"
        if request == "GET /api/server/version":
            return 200, json.dumps(dict(zip(("major", "minor", "patch"), self.version, strict=True))).encode()
        if key != self.key:
            return 401, b'{"message":"Invalid API key"}'
        method, path = request.split(" ", 1)
        if method == "GET" and path.startswith("/api/assets/") and "/thumbnail?size=preview" in path:
            asset = path.split("/")[3]
            picture = self.edited.get(asset) if path.endswith("&edited=true") else None
            picture = picture or self.previews.get(asset)
            return (200, picture) if picture is not None else (400, b'{"message":"Not found or no asset.view access"}')
        if (method, path) == ("POST", "/api/assets/jobs"):
            self.jobs.append(json.loads(body))
            return 204, b""
        return 404, b"{}"


def _handler(immich: FakeImmich) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content = immich.answer(f"{self.command} {self.path}", self.headers.get("x-api-key"), body)
            self.send_response(status)
            if status != 204:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing on the console."""

    return Handler
