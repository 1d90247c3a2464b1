"""A web server on loopback that misbehaves on request, and models whose files lie there."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from models import digest
from models.catalog import ModelEntry, Task, load_catalog
from models.transfer import Limits
from settings import Settings

QUICK = Limits(connect=1.0, answer=1.0, read=0.4, attempts=3, backoff=0.01, unreachable=1.0, longest_wait=0.2)
"""The ordinary limits, a hundred times as short."""


NOWHERE = {"hf_endpoint": "http://127.0.0.1:9", "modelscope_endpoint": "http://127.0.0.1:9/ms"}
"""Settings that lead to no hub."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""
    stall_after: int | None = None
    """Bytes of the body after which nothing more comes."""
    body: bytes | None = None
    """Sent in place of the file."""
    no_ranges: bool = False
    delay: float = 0.0


class Web:
    """What the server serves, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        """By path; one is used up by each request."""
        self.asked: list[tuple[str, str | None]] = []
        """Path and Range of every request."""
        self.authorizations: set[str] = set()
        self.url = ""
        self.rate: int | None = None
        """Bytes a second of files that are larger than that; None: as fast as can be."""
        self.released = threading.Event()

    def gets(self, path: str) -> list[str | None]:
        return [ranges for asked, ranges in self.asked if asked == path]

    def add_repository(self, repo: str, files: dict[str, bytes], commit: str = "c0ffee") -> None:
        """A repository as the Hugging Face hub shows one: small files by git's id, the others (LFS) by sha256."""
        siblings: list[dict[str, Any]] = []
        for path, data in files.items():
            self.files[f"/{repo}/resolve/{commit}/{path}"] = data
            item: dict[str, Any] = {"rfilename": path, "size": len(data)}
            item["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if path.endswith((".onnx", ".data", ".pt")):
                item["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(item)
        listing = json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        for revision in ("main", commit):
            self.files[f"/api/models/{repo}/revision/{revision}"] = listing

    def add_modelscope(self, repo: str, files: dict[str, bytes]) -> None:
        """A repository as ModelScope shows one, below ``/ms``."""
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
        data = fault.body if fault.body is not None else self.web.files.get(path)
        if fault.status or data is None:
            self.send_response(fault.status or 404)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
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
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self._send_body(data[start:], fault)

    def _send_body(self, body: bytes, fault: Fault) -> None:
        if self.web.rate is not None and len(body) > self.web.rate:
            for start in range(0, len(body), self.web.rate // 10):
                self.wfile.write(body[start : start + self.web.rate // 10])
                time.sleep(0.1)
            return
        stop = fault.cut_after if fault.cut_after is not None else fault.stall_after
        self.wfile.write(body if stop is None else body[:stop])
        self.wfile.flush()
        if fault.stall_after is not None:
            self.web.released.wait(10)
        if stop is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    served = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": served}))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy between the tests and loopback, and no BentoML store of the developer's."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9/ms")


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(**{"cache_folder": tmp_path / "cache", **NOWHERE, **changes})

    return make


@pytest.fixture
def make_entry(tmp_path: Path) -> Callable[..., ModelEntry]:
    """A face model of the user's whose two files come from plain URLs."""

    def make(web: Web, detection: bytes, recognition: bytes = b"recognition", *, sizes: bool = True) -> ModelEntry:
        lines = []
        for part, data in (("detection", detection), ("recognition", recognition)):
            web.files.setdefault(f"/{part}.onnx", data)
            size = f", bytes = {len(data)}" if sizes else ""
            digest = hashlib.sha256(data).hexdigest()
            lines.append(f'"{part}/model.onnx" = {{ url = "{web.url}/{part}.onnx", sha256 = "{digest}"{size} }}')
        path = tmp_path / "own.toml"
        head = '[[models]]\nname = "own-faces"\nfamily = "insightface"\nembedding_size = 512\nadvice = "For tests."\n'
        head += "[models.files]\n"
        path.write_text(head + "\n".join(lines))
        return load_catalog(path).find(Task.FACES, "own-faces")

    return make


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be checked, as it happens."""
    read: list[str] = []
    original = digest.digest_of

    def counting(path: Path, algorithm: str) -> digest.Digest:
        read.append(path.name)
        return original(path, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(digest, "digest_of", counting)
    return read


def write_files(folder: Path, names: list[str]) -> None:
    """Small files of these names below ``folder``."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
