"""Immich's protocol over runners that compute nothing: shapes, names, errors. The real ones answer in tests/e2e."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from PIL import Image

import metrics
from compat.immich.api import ImmichServer, create_app
from compat.immich.entries import load_entries, parse_entries
from errors import ErrorCode, ModelOnItsWay, ServiceError
from models.catalog import load_catalog
from runners.contract import FaceOptions, ImageJob, OcrOptions, PictureJob, Result, TextJob, TextLines
from serving.body import open_intake
from settings import Settings
from tests.compat.fake_runners import FakeRunners
from tools.harness.immich_client import BOUNDARY, HEADERS, clip_textual, clip_visual, faces, multipart, ocr

CATALOG = load_catalog()


def make_api(**overrides: Any) -> tuple[ImmichServer, FakeRunners]:
    settings = Settings(_env_file=None, **overrides)
    runners = FakeRunners()
    return ImmichServer(catalog=CATALOG, settings=settings, intake=open_intake(settings), runners=runners), runners


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIP_MODEL", "RECOGNITION_MODEL", "OCR_MODEL"):
        monkeypatch.delenv(name, raising=False)


def picture(width: int = 100, height: int = 50, mode: str = "RGB", form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, form)
    return file.getvalue()


def post(api: ImmichServer, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return send(api, "POST", "/predict", headers or HEADERS, body)


def send(api: ImmichServer, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> httpx.Response:
    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(api))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=body, headers=headers)

    return asyncio.run(exchange())


def get(api: ImmichServer, path: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_app(api)), base_url="http://test"
        ) as client:
            return await client.get(path)

    return asyncio.run(send())


def test_ping_and_root_answer_as_immich_expects() -> None:
    api, _ = make_api()
    ping = get(api, "/ping")
    assert (ping.status_code, ping.text, ping.headers["content-type"]) == (200, "pong", "text/plain; charset=utf-8")
    assert get(api, "/").json() == {"message": "Immich ML"}


def test_clip_visual_answers_a_string_of_shortest_floats_and_the_picture_s_size() -> None:
    api, runners = make_api()
    image = picture(100, 50)
    response = post(api, multipart(clip_visual(), image=image))
    assert response.status_code == 200
    assert response.json() == {"clip": "[0.1,-0.25,1e-7]", "imageHeight": 50, "imageWidth": 100}
    assert runners.jobs == [ImageJob(image, "ViT-B-32__openai")]


def test_clip_textual_passes_text_and_language_and_has_no_size() -> None:
    api, runners = make_api()
    response = post(api, multipart(clip_textual(language="zh-CN"), text="雪地里的狗"))
    assert response.json() == {"clip": "[0.5,0.5]"}
    assert runners.jobs == [TextJob("雪地里的狗", "ViT-B-32__openai", "zh-CN")]


@pytest.mark.parametrize(
    "textual", [{"modelName": "ViT-B-32__openai"}, {"modelName": "ViT-B-32__openai", "options": {}}]
)
def test_options_may_be_missing_or_empty(textual: dict[str, Any]) -> None:
    api, runners = make_api()
    assert post(api, multipart({"clip": {"textual": textual}}, text="dog")).status_code == 200
    assert runners.jobs == [TextJob("dog", "ViT-B-32__openai", None)]


def test_faces_have_corner_boxes_rounded_but_float() -> None:
    api, runners = make_api()
    response = post(api, multipart(faces("buffalo_l", 0.7), image=picture()))
    found = response.json()["facial-recognition"]
    assert found == [
        {
            "boundingBox": {"x1": 1.0, "y1": 3.0, "x2": 30.0, "y2": 40.0},
            "embedding": "[0.6,0.8]",
            "score": pytest.approx(0.9),
        }
    ]
    assert b'"x1":1.0' in response.content
    assert runners.jobs[0].options == FaceOptions(0.7)  # type: ignore[union-attr]


def test_ocr_boxes_are_fractions_in_one_flat_list() -> None:
    api, runners = make_api()
    answer = post(api, multipart(ocr("PP-OCRv5_mobile", 0.4, 1000, 0.6), image=picture(100, 50))).json()
    assert answer["ocr"]["text"] == ["发票 A-1"]
    assert answer["ocr"]["box"] == pytest.approx([0.1, 0.1, 0.5, 0.1, 0.5, 0.3, 0.1, 0.3])
    assert answer["ocr"]["boxScore"] == [0.75]
    assert answer["ocr"]["textScore"] == pytest.approx([0.98765])
    assert (answer["imageWidth"], answer["imageHeight"]) == (100, 50)
    assert runners.jobs[0].options == OcrOptions(0.4, 0.6, 1000)  # type: ignore[union-attr]
    assert runners.jobs[0].model == "PP-OCRv5_mobile"


def test_the_older_ocr_dialect_is_answered_in_its_own_form() -> None:
    api, runners = make_api()
    answer = post(api, multipart({"ocr": {"recognition": {"modelName": "ocr"}}}, image=picture())).json()
    assert answer["ocr"] == "发票 A-1"
    assert answer["result"] == {
        "texts": ["发票 A-1"],
        "scores": ["0.99"],
        "boxes": [{"x1": 10.0, "y1": 5.0, "x2": 50.0, "y2": 15.0}],
    }
    assert runners.jobs[0].model == "PP-OCRv6_small"


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


def test_text_that_is_not_utf_8_is_422() -> None:
    api, runners = make_api()
    body = multipart(clip_textual(), text="@@").replace(b"@@", b"\xff\xfe")
    response = post(api, body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "UTF-8" in response.json()["detail"]
    assert runners.jobs == []


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


def test_no_tasks_are_answered_with_the_size_alone() -> None:
    api, _ = make_api()
    assert post(api, multipart({}, image=picture(7, 9))).json() == {"imageHeight": 9, "imageWidth": 7}


def test_a_second_image_part_wins_over_the_first() -> None:
    api, runners = make_api()
    first, second = picture(1, 1), picture(2, 2)
    body = multipart(clip_visual(), image=first)
    body = body.removesuffix(b"--" + BOUNDARY.encode() + b"--\r\n") + multipart(image=second)
    assert post(api, body).json()["imageWidth"] == 2
    assert runners.jobs[0].data == second  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("entries", "status", "code"),
    [
        ({"video": {"visual": {"modelName": "x"}}}, 422, "unknown_task"),
        ({"clip": {"audio": {"modelName": "ViT-B-32__openai"}}}, 422, "unknown_task"),
        (clip_visual("no-such-model"), 422, "unknown_model"),
        (faces("no-such-model"), 422, "unknown_model"),
        (ocr("no-such-model"), 422, "unknown_model"),
        ({"clip": {"visual": {}}}, 422, "invalid_request"),
        ({"clip": {}}, 422, "invalid_request"),
        ({"clip": {"visual": "ViT-B-32__openai"}}, 422, "invalid_request"),
        ({"clip": None}, 422, "invalid_request"),
        ([1], 422, "invalid_request"),
        (faces(min_score=2.0), 422, "invalid_request"),
        ({"clip": {"visual": {"modelName": 5}}}, 422, "invalid_request"),
        (ocr(max_resolution=0), 422, "invalid_request"),
        ({"facial-recognition": {"recognition": {"modelName": "buffalo_l"}}}, 400, "missing_detection"),
        ({"ocr": {"recognition": {"modelName": "PP-OCRv5_mobile"}}}, 400, "missing_detection"),
        (clip_textual(), 400, "missing_input"),
    ],
)
def test_what_is_asked_wrongly_is_refused_with_a_reason(entries: Any, status: int, code: str) -> None:
    api, runners = make_api()
    response = post(api, multipart(entries, image=picture()))
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert len(response.json()["detail"]) > 20
    assert runners.jobs == []


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff\xfe", b"[" * 60_000, b'"text"', b"nul"])
def test_entries_that_are_no_json_object_are_422(raw: bytes) -> None:
    api, _ = make_api()
    response = post(api, multipart(raw_entries=raw, image=picture()))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("part", ["entries", "text"])
def test_more_than_64_kib_of_entries_or_text_is_413(part: str) -> None:
    api, runners = make_api()
    long = "x" * (64 * 1024 + 1)
    body = multipart(raw_entries=long.encode()) if part == "entries" else multipart(clip_textual(), text=long)
    response = post(api, body)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert f"`{part}`" in response.json()["detail"]
    assert runners.jobs == []


@pytest.mark.parametrize(
    "entries",
    [
        b"[" * 65_000,
        b'{"clip":' + b'{"a":' * 10_000,
        b'{"clip":{' + b",".join(b'"%d":0' % number for number in range(6_000)) + b"}}",
        b'{"ocr":{"detection":{"modelName":' + b"9" * 60_000 + b"}}}",
        b"{" + b",".join(b'"%d":0' % number for number in range(6_000)) + b"}",
        b'{"clip":{"visual":{"modelName":[' + b"1e9," * 15_000 + b"1]}}}",
    ],
    ids=["arrays", "objects", "many types", "digits", "many tasks", "long list"],
)
def test_no_entries_that_are_accepted_hold_up_the_event_loop(entries: bytes) -> None:
    api, _ = make_api()
    best = min(_seconds_to_refuse(api, entries) for _ in range(5))
    assert best < 0.02


def _seconds_to_refuse(api: ImmichServer, entries: bytes) -> float:
    began = time.thread_time()
    with pytest.raises(ServiceError):
        parse_entries(load_entries(entries), api.catalog, api.settings)
    return time.thread_time() - began


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://test"},
    ],
)
def test_a_form_of_another_site_is_refused(headers: dict[str, str]) -> None:
    api, runners = make_api()
    response = post(api, multipart(clip_visual(), image=picture()), {**HEADERS, **headers})
    assert (response.status_code, response.json()["code"]) == (403, "foreign_site")
    assert runners.jobs == []


def test_a_form_of_the_service_itself_is_answered() -> None:
    api, _ = make_api()
    for headers in ({"origin": "http://test"}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-mode": "cors"}):
        assert post(api, multipart(clip_visual(), image=picture()), {**HEADERS, **headers}).status_code == 200


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


def test_neither_image_nor_text_is_400_and_no_entries_422() -> None:
    api, _ = make_api()
    missing = post(api, multipart(clip_visual()))
    assert (missing.status_code, missing.json()["detail"]) == (400, "Either image or text must be provided.")
    assert post(api, multipart(image=picture())).status_code == 422
    assert post(api, multipart(clip_visual(), text="dog")).json()["code"] == "missing_input"


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", picture()[:300][:20], b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "text", "cut", "png magic"],
)
def test_what_is_no_picture_is_415(data: bytes) -> None:
    api, runners = make_api()
    response = post(api, multipart(clip_visual(), image=data))
    assert (response.status_code, response.json()["code"]) == (415, "unreadable_picture")
    assert runners.jobs == []


def test_a_picture_with_more_pixels_than_allowed_is_413_before_anything_runs() -> None:
    api, runners = make_api(max_picture_pixels=1000)
    response = post(api, multipart(clip_visual(), image=picture(100, 11)))
    assert (response.status_code, response.json()["code"]) == (413, "picture_too_large")
    assert runners.jobs == []


def test_errors_of_runners_keep_their_code_and_say_when_to_try_again() -> None:
    api, runners = make_api()
    runners.error = ServiceError(ErrorCode.MODEL_UNAVAILABLE, "ViT-B-32__openai cannot be had: …")
    response = post(api, multipart(clip_visual(), image=picture()))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "30"
    assert response.json() == {"detail": "ViT-B-32__openai cannot be had: …", "code": "model_unavailable"}


def test_a_fault_of_our_own_is_500_and_tells_nothing_of_the_inside() -> None:
    api, runners = make_api()
    runners.error = RuntimeError("secret")
    response = post(api, multipart(clip_visual(), image=picture()))
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_request_that_takes_too_long_is_504() -> None:
    api, runners = make_api(request_timeout=0.05)
    runners.delay = 5
    assert post(api, multipart(clip_visual(), image=picture())).status_code == 504


def test_before_the_runners_are_there_requests_are_503() -> None:
    api, _ = make_api()
    api.runners = None
    response = post(api, multipart(clip_visual(), image=picture()))
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


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


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/predict", 405, "method_not_allowed")],
)
def test_what_no_route_takes_is_an_error_of_the_form_of_all(method: str, path: str, status: int, code: str) -> None:
    response = send(make_api()[0], method, path, {})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert set(response.json()) == {"detail", "code"}
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


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
