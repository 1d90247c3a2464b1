"""Requests of Immich's protocol over runners that compute nothing: which models answer, what is logged, what is kept.

The real runners answer in tests/e2e.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

import metrics
from compat.immich.api import create_app
from errors import ErrorCode, ModelOnItsWay, ServiceError
from runners.contract import ImageJob, PictureJob, Result, TextLines
from tests.compat.fake_runners import FakeRunners
from tests.compat.immich.asking import get, make_api, picture, post, send
from tools.harness.immich_client import BOUNDARY, HEADERS, clip_textual, clip_visual, faces, multipart, ocr


def test_ping_and_root_answer_as_immich_expects() -> None:
    api, _ = make_api()
    ping = get(api, "/ping")
    assert (ping.status_code, ping.text, ping.headers["content-type"]) == (200, "pong", "text/plain; charset=utf-8")
    assert get(api, "/").json() == {"message": "Immich ML"}


def test_several_tasks_run_at_once_and_are_answered_together() -> None:
    api, runners = make_api()
    runners.delay = 0.05
    response = post(api, multipart({**clip_visual(), **faces(), **ocr()}, image=picture()))
    assert set(response.json()) == {"clip", "facial-recognition", "ocr", "imageHeight", "imageWidth"}
    assert runners.most_running == 3


def test_the_picture_of_several_tasks_is_sent_once() -> None:
    api, runners = make_api()
    image = picture()
    post(api, multipart({**clip_visual(), **faces(), **ocr()}, image=image))
    (job,) = runners.sent
    assert isinstance(job, PictureJob)
    assert job.data == image
    assert [ask.task for ask in job.asks] == ["clip_image", "faces", "ocr"]


@pytest.mark.parametrize(("asked", "used"), [(10_000, 10_000), (10_001, 10_000), (2**40, 10_000), (1, 1)])
def test_any_resolution_is_taken_and_a_huge_one_lowered(asked: int, used: int) -> None:
    api, runners = make_api()
    assert post(api, multipart(ocr(max_resolution=asked), image=picture())).status_code == 200
    assert runners.jobs[0].options.max_resolution == used  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("entries", "part"),
    [({**clip_visual(), **faces(), **ocr()}, {"image": None}), (clip_textual(), {"text": "dog"})],
    ids=["picture", "text"],
)
def test_a_client_that_goes_away_is_not_worked_for(
    entries: dict[str, Any], part: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    api, runners = make_api()
    runners.delay = 60
    if "image" in part:
        part = {"image": picture()}
    body = multipart(entries, **part)

    async def scenario() -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            while not runners.running:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError("there is nobody to answer")

        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        scope = {
            "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
            "headers": [*headers, (b"content-length", str(len(body)).encode())], "client": ("127.0.0.1", 5),
        }  # fmt: skip
        await asyncio.wait_for(create_app(api)(scope, receive, send), 10)

    with caplog.at_level("INFO", logger="serving.exchange"):
        asyncio.run(scenario())
    assert runners.running == 0
    assert [record.fields["status"] for record in caplog.records if hasattr(record, "fields")] == [499]
    assert api.intake.budget.held == 0


def test_a_second_image_part_wins_over_the_first() -> None:
    api, runners = make_api()
    first, second = picture(1, 1), picture(2, 2)
    body = multipart(clip_visual(), image=first)
    body = body.removesuffix(b"--" + BOUNDARY.encode() + b"--\r\n") + multipart(image=second)
    assert post(api, body).json()["imageWidth"] == 2
    assert runners.jobs[0].data == second  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["/ping/", "/predict/", "/upstreams/"])
def test_no_route_redirects_to_the_host_that_a_client_names(path: str) -> None:
    api, _ = make_api()
    response = send(api, "GET", path, {"host": "evil.example"})
    assert response.status_code == 404
    assert "location" not in response.headers


@pytest.mark.parametrize("end", ["answered", "refused", "failed", "late"])
def test_nothing_of_a_picture_stays_once_its_request_is_over(end: str, caplog: pytest.LogCaptureFixture) -> None:
    class Runners(FakeRunners):
        async def picture(self, job: PictureJob) -> Mapping[str, Result]:
            await asyncio.sleep(5 if end == "late" else 0)
            if end == "refused":
                raise ServiceError(ErrorCode.UNREADABLE_PICTURE, f"{len(job.data)}")
            if end == "failed":
                raise ValueError(len(job.data))
            return await super().picture(PictureJob(b"", job.asks))

    api, _ = make_api(request_timeout=0.3 if end == "late" else 60)
    api.runners = Runners()
    large = picture(10, 10) + bytes(8 * 2**20)

    async def scenario() -> None:
        body = multipart({**clip_visual(), **faces(), **ocr()}, image=large)
        messages = [
            {"type": "http.request", "body": body[start : start + 2**18], "more_body": start + 2**18 < len(body)}
            for start in range(0, len(body), 2**18)
        ]
        del body

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        statuses: list[Any] = []
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
        await app(scope, receive, send)
        assert statuses[0] == {"answered": 200, "refused": 415, "failed": 500, "late": 504}[end]

    app = create_app(api)
    asyncio.run(scenario())
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        with caplog.at_level(logging.CRITICAL, "serving.exchange"):  # pytest keeps what is logged
            asyncio.run(scenario())
        until = time.monotonic() + 20
        while tracemalloc.get_traced_memory()[0] > 2**20 and time.monotonic() < until:
            time.sleep(0.01)  # the thread that read the header forgets it after it has told of it
        assert tracemalloc.get_traced_memory()[0] < 2**20
    finally:
        tracemalloc.stop()
        gc.enable()


class TestClipModel:
    """CLIP_MODEL answers every name of its own size, and no other."""

    @pytest.mark.parametrize(
        "asked", ["ViT-B-32__openai", "RN101__yfcc15m", "immich-app/ViT-B-16__openai", "ViT-B-16::openai", "ViT-B-16"]
    )
    def test_names_of_its_size_are_answered(self, asked: str) -> None:
        api, runners = make_api(clip_model="ViT-B-16")
        assert post(api, multipart(clip_visual(asked), image=picture())).status_code == 200
        assert runners.jobs[0].model == "ViT-B-16"

    def test_names_of_another_size_are_refused_with_those_that_fit(self) -> None:
        api, runners = make_api(clip_model="ViT-B-16")
        response = post(api, multipart(clip_visual("ViT-L-14__openai"), image=picture()))
        assert (response.status_code, response.json()["code"]) == (422, "size_mismatch")
        assert "ViT-B-32__openai" in response.json()["detail"]
        assert "ViT-L-14" not in response.json()["detail"].split("choose", 1)[1]
        assert runners.jobs == []

    def test_unknown_names_are_refused_even_then(self) -> None:
        api, _ = make_api(clip_model="ViT-B-16")
        assert post(api, multipart(clip_visual("ViT-Z-99__nobody"), image=picture())).json()["code"] == "unknown_model"


def test_recognition_model_and_ocr_model_answer_whatever_was_asked() -> None:
    api, runners = make_api(recognition_model="buffalo_s", ocr_model="PP-OCRv6_small")
    post(api, multipart({**faces("buffalo_l"), **ocr("PP-OCRv5_server")}, image=picture()))
    assert {job.model for job in runners.jobs} == {"buffalo_s", "PP-OCRv6_small"}


def test_every_answer_carries_its_request_id() -> None:
    api, _ = make_api()
    assert (
        post(api, multipart({}, image=picture()), {**HEADERS, "x-request-id": "abc"}).headers["x-request-id"] == "abc"
    )
    assert len(post(api, b"junk").headers["x-request-id"]) == 16


@pytest.mark.parametrize("forged", ["x status=200", 'x"', "a\tb", "x" * 65, "a;b"])
def test_a_request_id_that_could_pass_for_something_else_is_not_taken_over(forged: str) -> None:
    api, _ = make_api()
    response = post(api, b"junk", {**HEADERS, "x-request-id": forged})
    assert response.headers["x-request-id"].isalnum()
    assert len(response.headers["x-request-id"]) == 16


def test_the_log_has_one_line_per_request(caplog: pytest.LogCaptureFixture) -> None:
    api, _ = make_api()
    with caplog.at_level("INFO", logger="serving.exchange"):
        post(api, multipart(clip_visual(), image=picture()))
        post(api, multipart(clip_visual("nope"), image=picture()))
    good, bad = (record.fields for record in caplog.records)  # type: ignore[attr-defined]
    assert (good["status"], good["task"], good["model"]) == (200, "clip.visual", "ViT-B-32__openai")
    assert (bad["status"], bad["error"]) == (422, "unknown_model")
    assert json.dumps(good)


def test_pictures_that_wait_for_a_model_count_and_further_ones_stay_unread() -> None:
    api, runners = make_api(queue_bytes=2**20)
    body = multipart(clip_visual(), image=picture(700, 700, form="BMP"))  # 1.5 MB: one of them fills the queue
    come = asyncio.Event()

    async def arrival(task: str, model: str) -> None:
        runners.waits.append((task, model))
        await come.wait()
        runners.error = None

    async def scenario() -> None:
        runners.error = ModelOnItsWay("clip_image", "ViT-B-32__openai", "34 %")
        runners.arrival = arrival  # type: ignore[method-assign]
        transport = httpx.ASGITransport(app=create_app(api))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [asyncio.ensure_future(client.post("/predict", content=body, headers=HEADERS)) for _ in range(3)]
            while not runners.waits or api.intake.budget.waiting < 2:
                await asyncio.sleep(0.01)
            assert runners.waits == [("clip_image", "ViT-B-32__openai")]
            assert api.intake.budget.held > 900_000
            come.set()
            assert [response.status_code for response in await asyncio.gather(*asked)] == [200] * 3
        assert api.intake.budget.held == 0

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_an_answer_that_left_text_out_says_so_in_its_header_and_its_log_line(caplog: pytest.LogCaptureFixture) -> None:
    api, runners = make_api()
    pictures, regions = metrics.left_out()
    whole, body = runners.ocr, multipart(ocr(), image=picture())

    async def thinned(job: ImageJob) -> TextLines:
        return replace(await whole(job), left_out=812)

    with caplog.at_level(logging.INFO):
        assert "x-text-regions-left-out" not in post(api, body).headers
        runners.ocr = thinned  # type: ignore[method-assign]
        response = post(api, body)
    assert response.status_code == 200
    assert response.headers["x-text-regions-left-out"] == "812"
    assert [record.fields.get("text_regions_left_out") for record in caplog.records if hasattr(record, "fields")] == [
        None,
        812,
    ]
    assert metrics.left_out() == (pictures + 1, regions + 812)
