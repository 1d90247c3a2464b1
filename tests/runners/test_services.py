"""How runners are packed into BentoML services, and what passes between those."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from _bentoml_impl.serde import Payload, PickleSerde
from starlette.types import Message, Receive, Scope, Send

from errors import ErrorCode
from models.catalog import load_catalog
from runners.contract import Embedding, FaceOptions, Faces, Failure, ImageJob, OcrOptions, TextJob, TextLines
from runners.services import RunnerService, _preloads, runner_services
from runners.transport import CloseEachConnection, Parcel
from settings import Settings

RUNNERS = ("clip_image", "faces", "ocr", "clip_text")


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)


def sent(content: object) -> Any:
    """``content`` after its way between two processes: pickled by BentoML, joined to one body, read again."""
    serde = PickleSerde()
    payload = serde.serialize_value(Parcel(content))
    body = b"".join(bytes(part) for part in payload.data)
    received = serde.deserialize_value(Payload([body], payload.metadata))
    assert isinstance(received, Parcel)
    return received.content


@pytest.mark.parametrize(
    "content",
    [
        ImageJob(bytes(range(256)) * 5000, "buffalo_s", FaceOptions(0.25)),
        ImageJob(b"", "PP-OCRv6_small", OcrOptions(0.1, 0.2, 736)),
        ImageJob(b"\xff\xd8", "ViT-B-16"),
        TextJob("一只猫 😀 cat", "ViT-B-16", "zh-CN"),
        Failure(ErrorCode.MODEL_UNAVAILABLE, "没有网络"),
        None,
    ],
    ids=lambda content: type(content).__name__,
)
def test_jobs_and_failures_arrive_as_they_were_sent(content: object) -> None:
    received = sent(content)
    assert type(received) is type(content)
    assert received == content


def arrays_of(result: Any) -> list[np.ndarray[Any, Any]]:
    return [value for name in result.__slots__ if isinstance(value := getattr(result, name), np.ndarray)]


@pytest.mark.parametrize("number", [0, 1, 300])
def test_results_arrive_with_their_arrays(number: int) -> None:
    random = np.random.default_rng(number)

    def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.normal(size=shape).astype(np.float32)

    results = [
        Embedding(floats(512)),
        Faces(floats(number, 4), floats(number), floats(number, 512)),
        TextLines(("行",) * number, floats(number, 4, 2), floats(number), floats(2 * number)[::2]),  # the last is not contiguous
    ]
    for result in results:
        received = sent(result)
        assert type(received) is type(result)
        for ours, theirs in zip(arrays_of(result), arrays_of(received), strict=True):
            assert theirs.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)
    assert sent(results[2]).texts == ("行",) * number


def inner(service: Any) -> type[RunnerService]:
    found: type[RunnerService] = service.inner
    return found


def test_shared_picture_runners_live_in_one_process_and_text_in_another() -> None:
    services = runner_services(settings(), shared=True)
    assert set(services) == set(RUNNERS)
    assert services["clip_image"] is services["faces"] is services["ocr"]
    assert services["clip_text"] is not services["ocr"]
    assert inner(services["ocr"]).runner_names == ("clip_image", "faces", "ocr")
    assert {service.name for service in services.values()} == {"PictureRunner", "ClipTextRunner"}


def test_split_runners_live_in_a_process_each() -> None:
    services = runner_services(settings(), shared=False)
    assert set(services) == set(RUNNERS)
    assert len({service.name for service in services.values()}) == 4
    for name, service in services.items():
        assert inner(service).runner_names == (name,)
        assert name in service.apis


@pytest.mark.parametrize("shared", [True, False])
def test_each_process_has_its_own_position_and_only_text_is_not_nice(shared: bool) -> None:
    services = runner_services(settings(), shared=shared)
    classes = {inner(service) for service in services.values()}
    assert sorted(service.position for service in classes) == list(range(len(classes)))
    assert [service.runner_names for service in classes if not service.nice] == [("clip_text",)]


@pytest.mark.parametrize("shared", [True, False])
def test_a_service_offers_its_runners_and_nothing_of_others(shared: bool) -> None:
    for service in runner_services(settings(), shared=shared).values():
        assert set(service.apis) & set(RUNNERS) == set(inner(service).runner_names)
        assert {"loaded", "unload"} <= set(service.apis)


def test_connections_to_runners_are_not_closed_under_their_requests() -> None:
    for service in runner_services(settings(request_timeout=100), shared=False).values():
        assert service.config["runner_connection"]["max_requests"] >= 10**9
        assert service.config["runner_connection"]["max_age"] >= 10**9
        assert service.config["traffic"]["timeout"] > 100
        assert service.config["workers"] == 1


def test_the_connection_is_closed_after_each_answer_by_one_header() -> None:
    written: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        written.append(message)

    asyncio.run(CloseEachConnection(app)({"type": "http"}, receive, send))
    start, *body = written
    assert start["headers"] == [(b"content-type", b"text/plain"), (b"connection", b"close")]
    assert body == [{"type": "http.response.body", "body": b"a", "more_body": True}, {"type": "http.response.body", "body": b"b"}]

    written.clear()
    asyncio.run(CloseEachConnection(app)({"type": "lifespan"}, receive, send))
    assert written[0]["headers"] == [(b"content-type", b"text/plain")]


def preload(**groups: dict[str, str]) -> dict[str, Any]:
    return {"preload": groups}


def test_each_runner_preloads_what_its_names_say() -> None:
    config = settings(
        **preload(
            clip={"textual": "RN50, ViT-B-16", "visual": "RN50"},
            facial_recognition={"detection": "buffalo_l", "recognition": "buffalo_l,buffalo_s"},
            ocr={"recognition": "PP-OCRv5_mobile"},
        )
    )
    assert _preloads(config, load_catalog()) == {
        "clip_image": ("RN50",),
        "clip_text": ("RN50", "ViT-B-16"),
        "faces": ("buffalo_l", "buffalo_s"),
        "ocr": ("PP-OCRv5_mobile",),
    }


def test_the_model_that_answers_for_all_is_preloaded_in_place_of_the_names() -> None:
    config = settings(clip_model="ViT-B-16", recognition_model="buffalo_s", **preload(clip={"visual": "x,y"}))
    assert _preloads(config, load_catalog()) == {"clip_image": ("ViT-B-16",), "clip_text": (), "faces": (), "ocr": ()}


def test_models_are_preloaded_under_the_names_that_requests_come_under(caplog: pytest.LogCaptureFixture) -> None:
    """An alias would be a second model in memory beside the one that requests use."""
    wanted = {
        "clip": {"visual": "ViT-B-32::openai, immich-app/ViT-B-32__openai, no-such-model", "textual": "ViT-B-32__openai"},
        "ocr": {"detection": "ocr", "recognition": "PP-OCRv6_small"},
    }
    assert _preloads(settings(preload=wanted), load_catalog()) == {
        "clip_image": ("ViT-B-32__openai",),
        "clip_text": ("ViT-B-32__openai",),
        "faces": (),
        "ocr": ("PP-OCRv6_small",),
    }
    assert "no-such-model" in caplog.text
    tiny = settings(preload=wanted, clip_model="tiny")
    assert _preloads(tiny, load_catalog())["clip_text"] == ("cn-clip-tiny",)
