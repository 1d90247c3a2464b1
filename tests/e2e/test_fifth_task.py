"""A task in one file is served, preloaded, routed upstream, logged and counted."""

from __future__ import annotations

import io
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from runners.bento.start import StartError, read_catalog
from runners.tasks import ExtraTaskError, tasks_by_name
from settings import Settings
from tests.e2e.fifth_task import MODEL, STANDS_STILL
from tests.fake_upstream import FakeUpstream
from tools.harness.immich_client import HEADERS, multipart, ocr
from tools.harness.server import Server

EXTRA = "tests.e2e.fifth_task"
ENTRY = {"colour": {"modelName": MODEL, "scale": 1}}


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (640, 480), (51, 102, 255)).save(file, "PNG")
    return file.getvalue()


def post(server: Server, body: bytes) -> httpx.Response:
    return httpx.post(server.url + "/predict", content=body, headers=HEADERS, timeout=60)


@pytest.mark.parametrize("processes", ["shared", "split"])
def test_it_is_served_preloaded_logged_and_counted(processes: str, tmp_path: Path) -> None:
    with Server(tmp_path, {"EXTRA_TASKS": EXTRA, "RUNNER_PROCESSES": processes}) as server:
        loaded = 'immich_bento_models_loaded{runner="colour"} 1.0'
        deadline = time.monotonic() + 30
        while loaded not in httpx.get(server.url + "/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = post(server, multipart({**ENTRY, **ocr()}, image=picture())).json()
        assert answer["colour"] == pytest.approx([0.2, 0.4, 1.0])
        assert answer["ocr"]["text"] == []
        assert (answer["imageWidth"], answer["imageHeight"]) == (640, 480)

        refused = post(server, multipart({"colour": {"modelName": "no-such-model"}}, image=picture()))
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
        wrong = post(server, multipart({"colour": {"modelName": MODEL, "scale": 0}}, image=picture()))
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")
        unreadable = post(server, multipart(ENTRY, image=picture()[:300]))
        assert (unreadable.status_code, unreadable.json()["code"]) == (415, "unreadable_picture")

        assert "task=colour+ocr model=mean,PP-OCRv6_small" in server.log
        metrics = httpx.get(server.url + "/metrics").text
        assert 'immich_bento_requests_total{status="200",task="colour+ocr"} 1.0' in metrics
        assert 'immich_bento_batch_size_count{runner="colour"} 2.0' in metrics
        page = httpx.get(server.url, headers={"accept": "text/html"}).text
        assert f"colour: {MODEL}" in page
        assert bool(server.workers("ColourRunner")) is (processes == "split")


def test_a_process_that_stands_still_is_replaced(tmp_path: Path) -> None:
    with Server(tmp_path, {"EXTRA_TASKS": EXTRA, "RUNNER_PROCESSES": "split", "STUCK_AFTER": "2"}) as server:
        assert post(server, multipart(ENTRY, image=picture())).status_code == 200
        (before,) = server.workers("ColourRunner")
        still = post(server, multipart({"colour": {"modelName": MODEL, "scale": STANDS_STILL}}, image=picture()))
        assert (still.status_code, still.json()["code"]) == (503, "runner_unavailable")
        assert post(server, multipart(ENTRY, image=picture())).status_code == 200
        assert server.workers("ColourRunner") != [before]
        assert f"ColourRunner (process {before.pid}) ended with status 1; a fresh one is started." in server.log
        assert "Timeout (0:00:02)!" in server.log
        assert "fifth_task.py" in server.log, "where each thread was"


def test_it_is_routed_upstream(tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        environment = {"EXTRA_TASKS": EXTRA, "ROUTE_COLOUR": "upstream", "IMMICH_API": upstream.url}
        with Server(tmp_path, environment) as server:
            post(server, multipart(ENTRY, image=picture()))
            assert [received.entries for received in upstream.received] == [ENTRY]
            assert "task=colour" in server.log


def test_it_is_not_routed_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTE_COLOUR", "upstream")
    with pytest.raises(StartError, match="colour is routed upstream, which needs IMMICH_API"):
        read_catalog(Settings(_env_file=None, extra_tasks=EXTRA))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("no.such.module", "cannot be imported"),
        ("tests.e2e.conftest", "has no tuple TASKS"),
        (f"{EXTRA}, {EXTRA}", None),
    ],
)
def test_what_is_no_module_of_tasks_is_an_error_that_says_so(extra: str, told: str | None) -> None:
    if told is None:
        assert list(tasks_by_name(extra)) == ["clip_image", "faces", "ocr", "clip_text", "colour"]
        return
    with pytest.raises(ExtraTaskError, match=told):
        tasks_by_name(extra)
