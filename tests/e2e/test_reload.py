"""SIGHUP: settings and weights are read again by new workers, and no request is lost."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.losses import lost_while
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import mixed_pages
from tools.harness.server import ROOT, Server
from tools.harness.tiny_clip import tiny_clip_folder

PAGE = mixed_pages()[0].data
BODIES = (
    multipart(clip_visual(), image=PAGE),
    multipart(clip_textual(), text="dog"),
    multipart(faces("buffalo_s"), image=PAGE),
    multipart(ocr(), image=PAGE),
)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory of its own, which has the project's modules and a ``.env`` that may change."""
    for path in ROOT.iterdir():
        if path.name not in (".env", ".git"):
            (tmp_path / path.name).symlink_to(path)
    tiny_clip_folder(tmp_path / "home/models/clip/ViT-B-16")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    (folder / ".env").write_text("MAX_BATCH=2\n")
    with Server(folder / "home", {"CLIP_MODEL": "ViT-B-16"}, working_dir=folder) as running:
        yield running


def reload(server: Server) -> None:
    """Reload, and wait until every worker is another and all answer."""
    before = {process.pid for process in server.processes()[1:]}
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        now = {process.pid for process in server.processes()[1:] if process.status() != psutil.STATUS_ZOMBIE}
        if len(now) == len(before) and not now & before:
            server.wait_until_ready()
            return
        time.sleep(0.1)
    raise AssertionError(f"The workers were not replaced:\n{server.log}")


def lost_in(server: Server, reloads: int, *, bodies: Sequence[bytes] = BODIES) -> tuple[int, list[str]]:
    """Reload ``reloads`` times under eight callers; return how many requests were made, and what failed."""

    def reload_all() -> None:
        for _ in range(reloads):
            reload(server)

    return lost_while(server.url, reload_all, bodies=bodies)


def test_two_reloads_lose_no_request_and_settings_are_read_again(server: Server, folder: Path) -> None:
    assert httpx.get(server.url + "/ping").text == "pong"
    (folder / ".env").write_text("MAX_BATCH=2\nMAX_BODY_BYTES=2000\n")
    small = httpx.post(server.url + "/predict", content=BODIES[0], headers=HEADERS, timeout=60)
    assert small.status_code == 200
    reload(server)
    large = httpx.post(server.url + "/predict", content=BODIES[0], headers=HEADERS, timeout=60)
    assert large.status_code == 413
    (folder / ".env").write_text("MAX_BATCH=2\n")
    reload(server)
    made, failed = lost_in(server, 2, bodies=BODIES[:3])  # reading takes too long here
    assert failed == []
    assert made > 16
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_twenty_reloads_under_eight_callers_lose_no_request(server: Server) -> None:
    made, failed = lost_in(server, 20)
    assert failed == []
    assert made > 160


def test_settings_problems_are_told_and_nothing_is_replaced(server: Server, folder: Path) -> None:
    before = server.processes()
    (folder / ".env").write_text("MAX_BATCH=none\n")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while "Nothing is reloaded" not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)
    assert "MAX_BATCH" in server.log
    assert server.processes() == before
    assert httpx.get(server.url + "/ping").text == "pong"


def test_a_reload_that_is_followed_by_the_end_leaves_nobody(server: Server) -> None:
    processes = server.processes()
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    processes = list({*processes, *server.processes()})
    server.terminate()
    assert server.process.wait(20) == 0
    assert psutil.wait_procs(processes, timeout=10)[1] == []
