"""What is asked wrongly, or goes wrong, is refused with a status, a code and a reason."""

from __future__ import annotations

import time
from typing import Any

import pytest

from compat.immich.api import ImmichServer
from compat.immich.entries import load_entries, parse_entries
from errors import ErrorCode, ServiceError
from tests.compat.immich.asking import make_api, picture, post, send
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr


def test_text_that_is_not_utf_8_is_422() -> None:
    api, runners = make_api()
    body = multipart(clip_textual(), text="@@").replace(b"@@", b"\xff\xfe")
    response = post(api, body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "UTF-8" in response.json()["detail"]
    assert runners.jobs == []


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


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/predict", 405, "method_not_allowed")],
)
def test_what_no_route_takes_is_an_error_of_the_form_of_all(method: str, path: str, status: int, code: str) -> None:
    response = send(make_api()[0], method, path, {})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert set(response.json()) == {"detail", "code"}
    assert response.headers.get("allow") == ("POST" if status == 405 else None)
