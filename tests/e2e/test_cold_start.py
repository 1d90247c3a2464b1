"""The first minutes on a slow hub: whoever asks waits, through a kill too, and nobody is told that all is well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_predict import T1
from tests.models.conftest import web
from tests.models.small_clip import FILE, HUGGINGFACE_FILE, NAME, SmallClip, on_both_hubs, small, write_catalog
from tools.harness.fake_hub import Web
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart
from tools.harness.server import Server

__all__ = ["small", "web"]

PATIENCE = 180.0
Post = Callable[[bytes], httpx.Response]


@contextmanager
def cold_start(folder: Path, web: Web, data: bytes, **settings: str) -> Iterator[Server]:
    """Start a service that has to fetch its CLIP model; do not wait until it is ready."""
    hubs = {name.upper(): url for name, url in on_both_hubs(web, data).items()}
    catalog, _ = write_catalog(folder)
    environment = {"OFFLINE": "false", "CLIP_MODEL": NAME, "MODEL_CATALOG": str(catalog), "MODEL_HUB": "huggingface"}
    server = Server(folder, {**environment, **hubs, **settings}, ready_path="/ping")
    with server:
        yield server


def post(server: Server, body: bytes) -> httpx.Response:
    return httpx.post(server.url + "/predict", content=body, headers=HEADERS, timeout=PATIENCE)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def is_ready(server: Server) -> bool:
    return httpx.get(server.url + "/readyz", timeout=10).status_code == 200


def page(server: Server) -> str:
    return httpx.get(server.url, headers={"accept": "text/html"}, timeout=10).text


@pytest.mark.slow
@pytest.mark.parametrize(("download_seconds", "killed"), [(8, False), (8, True), (60, False)])
def test_eight_callers_from_the_first_second_of_a_cold_start_are_all_answered(
    download_seconds: int, killed: bool, tmp_path: Path, web: Web, small: SmallClip
) -> None:
    """With ``killed``, the processes that fetch are killed in the middle. REQUEST_TIMEOUT is shorter than the fetch."""
    data = small.data
    web.rate = len(data) // download_seconds
    with cold_start(tmp_path, web, data, REQUEST_TIMEOUT="5") as server, ThreadPoolExecutor(8) as callers:
        bodies = [multipart(clip_visual(NAME), image=T1)] * 6 + [multipart(clip_textual(NAME), text="猫")] * 2
        waiting = [callers.submit(post, server, body) for body in bodies]
        until(lambda: f"{NAME} (clip): downloading {FILE}" in page(server))
        assert not is_ready(server)
        assert httpx.get(server.url + "/ping").text == "pong"
        assert post(server, multipart(faces("buffalo_s"), image=T1)).status_code == 200, "other models do not wait"
        until(lambda: f'immich_bento_model_ready{{model="{NAME}",task="clip_image"}} 0.0' in metrics(server))
        assert not any(one.done() for one in waiting)
        if killed:
            for process in [*server.workers("PictureRunner"), *server.workers("ClipTextRunner")]:
                process.kill()
        answers = [one.result(PATIENCE) for one in waiting]
        assert [answer.status_code for answer in answers] == [200] * 8, [answer.text for answer in answers]
        assert {len(json.loads(answer.json()["clip"])) for answer in answers} == {64}
        assert len({answer.text for answer in answers[:6]}) == len({answer.text for answer in answers[6:]}) == 1
        until(lambda: is_ready(server))
        until(lambda: f'immich_bento_model_fetch_percent{{model="{NAME}",task="clip_image"}} 100.0' in metrics(server))
        assert "on their way" not in page(server)
        begun = web.gets(HUGGINGFACE_FILE)
        assert begun[0] is None
        assert [asked is not None for asked in begun[1:]] == [True] * killed, "what was fetched is not fetched again"


def metrics(server: Server) -> str:
    return httpx.get(server.url + "/metrics", timeout=10).text


def test_a_model_that_cannot_be_had_fails_at_once_and_is_told(tmp_path: Path, web: Web) -> None:
    with cold_start(tmp_path, web, b"", OFFLINE="true") as server:
        until(lambda: "Models that cannot be had" in page(server))
        refused = post(server, multipart(clip_visual(NAME), image=T1))
        assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
        assert "OFFLINE" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert not is_ready(server)
        assert httpx.get(server.url + "/ping").text == "pong"
