"""A hub on loopback that misbehaves on request: Hugging Face's, and ModelScope's below ``/ms``."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Content = bytes | memoryview
"""What is served; a view of a mapped file where it is large, since no slice of it is copied."""


@dataclass(frozen=True)
class Fault:
    """A fault of one answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    endless: bytes | None = None
    """Sent again and again in place of the file, until the client has enough."""
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""
    stall_after: int | None = None
    """Bytes of the body after which nothing more comes."""
    body: bytes | None = None
    """Sent in place of the file."""
    no_ranges: bool = False
    delay: float = 0.0


class Web:
    """The files that the server serves, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, Content] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        """By path; one is used up by each request."""
        self.asked: list[tuple[str, str | None]] = []
        """Path and Range of every request."""
        self.authorizations: set[str] = set()
        self.cut_every: int | None = None
        """Bytes of any body after which the connection is closed."""
        self.rate: int | None = None
        """Bytes a second of files that are larger than that; None: as fast as can be."""
        self.url = ""
        self.released = threading.Event()

    def gets(self, path: str) -> list[str | None]:
        return [ranges for asked, ranges in self.asked if asked == path]

    def add_repository(
        self, repo: str, files: Mapping[str, Content], commit: str = "c0ffee", *, branch: str = "main"
    ) -> None:
        """Serve a repository as the Hugging Face hub shows one: small files by git's id, others (LFS) by sha256."""
        siblings: list[dict[str, Any]] = []
        for path, data in files.items():
            for revision in (branch, commit):
                self.files[f"/{repo}/resolve/{revision}/{path}"] = data
            item: dict[str, Any] = {"rfilename": path, "size": len(data)}
            blob = hashlib.sha1(b"blob %d\0" % len(data))
            blob.update(data)
            item["blobId"] = blob.hexdigest()
            if path.endswith((".onnx", ".data", ".pt")):
                item["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(item)
        listing = json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        for revision in (branch, commit):
            self.files[f"/api/models/{repo}/revision/{revision}"] = listing

    def add_modelscope(self, repo: str, files: Mapping[str, Content]) -> None:
        """Serve a repository as ModelScope shows one, below ``/ms``."""
        items = [{"Path": "folder", "Type": "tree", "Sha256": "", "Size": 0}]
        for path, data in files.items():
            self.files[f"/ms/models/{repo}/resolve/master/{path}"] = data
            items.append({"Path": path, "Type": "blob", "Sha256": hashlib.sha256(data).hexdigest(), "Size": len(data)})
        listing = json.dumps({"Code": 200, "Data": {"Files": items}}).encode()
        self.files[f"/ms/api/v1/models/{repo}/repo/files"] = listing


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        path, ranges = unquote(urlsplit(self.path).path), self.headers.get("Range")
        self.web.asked.append((path, ranges))
        if "Authorization" in self.headers:
            self.web.authorizations.add(self.headers["Authorization"])
        fault = self.web.faults[path].pop(0) if self.web.faults[path] else Fault()
        time.sleep(fault.delay)
        content = fault.body if fault.body is not None else self.web.files.get(path)
        if fault.status or content is None:
            self.send_response(fault.status or 404)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault.endless is not None:
            self._send_endless(fault.endless)
            return
        start, data = 0, memoryview(content)
        if ranges and not fault.no_ranges:
            first, _, last = ranges.removeprefix("bytes=").partition("-")
            start = int(first)
            data = data[: int(last) + 1] if last else data
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self._send_body(data[start:], fault)

    def _send_endless(self, part: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):  # the client has gone
            while not self.web.released.is_set():
                self.wfile.write(part)

    def _send_body(self, body: memoryview, fault: Fault) -> None:
        stop = fault.cut_after if fault.cut_after is not None else fault.stall_after
        if stop is None and self.web.cut_every is not None and len(body) > self.web.cut_every:
            stop = self.web.cut_every
        body = body if stop is None else body[:stop]
        slow = self.web.rate is not None and len(body) > self.web.rate
        step = self.web.rate // 10 if self.web.rate is not None and slow else max(1, len(body))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if slow:
                time.sleep(0.1)
        self.wfile.flush()
        if fault.stall_after is not None:
            self.web.released.wait(10)
        if stop is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def fake_hub() -> Iterator[Web]:
    """Serve a hub that has nothing yet."""
    served = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": served}))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
