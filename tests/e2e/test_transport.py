"""What travels between the processes, where any local process could join in: on TCP."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.calls import PAGE
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder


class Trace:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self._path,)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    tiny_clip_folder(folder / "models" / "clip" / "ViT-B-16")
    with Server(folder, {"CLIP_MODEL": "ViT-B-16", "BENTOML_NO_UDS": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def runners(server: Server) -> list[str]:
    """Return where the runners' processes listen."""
    ports = {
        connection.laddr.port
        for process in server.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    found = []
    for port in ports - {server.port}:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/livez", timeout=1).status_code == 200:
                found.append(f"http://127.0.0.1:{port}")
        except httpx.TransportError:
            pass  # circus's own sockets speak another protocol
    return found


def test_the_service_works_on_tcp(server: Server) -> None:
    body = multipart({**clip_visual(), **faces("buffalo_s"), **ocr()}, image=PAGE)
    response = httpx.post(server.url + "/predict", content=body, headers=HEADERS, timeout=120)
    assert response.status_code == 200, response.text
    assert {"clip", "facial-recognition", "ocr"} <= set(response.json())
    text = httpx.post(
        server.url + "/predict", content=multipart(clip_textual(), text="dog"), headers=HEADERS, timeout=60
    )
    assert text.status_code == 200
    assert httpx.get(server.url + "/readyz", timeout=10).status_code == 200


@pytest.mark.parametrize("path", ["/jobs/picture", "/jobs/text/clip_text", "/jobs/unload", "/loaded", "/unload", "/"])
@pytest.mark.parametrize("media_type", ["application/vnd.bentoml+pickle", "application/octet-stream"])
def test_without_the_secret_nothing_is_answered_and_nothing_unpickled(
    server: Server, runners: list[str], tmp_path: Path, path: str, media_type: str
) -> None:
    trace = tmp_path / "unpickled"
    assert len(runners) == 2
    for address in runners:
        for secret in ({}, {"x-job-secret": "wrong"}):
            headers = {"content-type": media_type, **secret}
            response = httpx.post(address + path, content=pickle.dumps(Trace(trace)), headers=headers)
            assert (response.status_code, response.content) == (403, b"")
    assert not trace.exists()
    assert str(tmp_path) not in server.log
