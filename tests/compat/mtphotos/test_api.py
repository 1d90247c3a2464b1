"""mt-photos-ai's API over runners that compute nothing: the very bodies, the models, the log. Real models answer in
tests/e2e.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from compat.immich.api import create_app
from compat.mtphotos.api import routes
from errors import ModelOnItsWay
from metrics import REQUESTS
from runners.contract import Embedding, FaceOptions, Faces, ImageJob, OcrOptions, TextJob, TextLines
from tests.compat.mtphotos.service import KEY, PICTURE_ROUTES, Service, picture


class TestGoldenBodies:
    """The bodies byte for byte."""

    def test_ping_is_pong_as_plain_text(self) -> None:
        response = Service().ask("GET", "/ping", {})
        assert (response.content, response.headers["content-type"]) == (b"pong", "text/plain; charset=utf-8")

    def test_check(self) -> None:
        response = Service().ask("POST", "/check", {})
        assert response.headers["content-type"] == "application/json"
        assert response.text == (
            '{"result":"pass","title":"mt-photos-ai服务","help":"https://mtmt.tech/docs/advanced/ocr_api","device":"cpu"}'
        )

    def test_face_check(self) -> None:
        assert Service().ask("GET", "/face/check", {}).text == (
            '{"title":"mt-photos-ai服务","link":"https://mtmt.tech/docs/advanced/facial_api",'
            '"detector_backend":"insightface","recognition_model":"buffalo_l"}'
        )

    def test_ocr(self) -> None:
        response = Service().upload("/ocr", picture())
        assert response.status_code == 200
        assert response.text == (
            '{"result":{"texts":["发票 A-1"],"scores":["0.99"],'
            '"boxes":[{"x":"10.00","y":"5.00","width":"40.00","height":"10.00"}]}}'
        )

    def test_ocr_of_a_picture_without_text(self) -> None:
        service = Service()
        none = TextLines((), np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32))
        service.runners.ocr = _answering(none)  # type: ignore[method-assign]
        response = service.upload("/ocr", picture())
        assert (response.status_code, response.text) == (200, '{"result":{"texts":[],"scores":[],"boxes":[]}}')

    def test_clip_img(self) -> None:
        assert Service().upload("/clip/img", picture()).text == (
            '{"result":["0.1000000014901161","-0.2500000000000000","0.0000001000000012"]}'
        )

    def test_clip_txt(self) -> None:
        response = Service().ask("POST", "/clip/txt", json={"text": "雪地里的狗"})
        assert response.text == '{"result":["0.5000000000000000","0.5000000000000000"]}'

    def test_represent(self) -> None:
        assert Service().upload("/represent", picture()).text == (
            '{"detector_backend":"insightface","recognition_model":"buffalo_l","result":'
            '[{"embedding":[0.6,0.8],"facial_area":{"x":1,"y":3,"w":29,"h":37},"face_confidence":0.9}]}'
        )

    def test_represent_of_a_picture_without_faces(self) -> None:
        service = Service()
        none = Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 512), np.float32))
        service.runners.faces = _answering(none)  # type: ignore[method-assign]
        response = service.upload("/represent", picture())
        assert response.status_code == 200
        assert response.text == '{"detector_backend":"insightface","recognition_model":"buffalo_l","result":[]}'

    def test_restart(self) -> None:
        assert Service().ask("POST", "/restart").text == '{"result":"unsupported"}'

    def test_restart_v2_unloads_all_models(self) -> None:
        service = Service()
        service.runners.loaded = {"ocr": ("PP-OCRv6_small",)}
        assert service.ask("POST", "/restart_v2").text == '{"result":"pass"}'
        assert service.runners.loaded == {}

    def test_an_error(self) -> None:
        response = Service().ask("POST", "/restart", {})
        assert response.status_code == 401
        assert response.text == (
            '{"result":[],"msg":"The key is missing. Send the service\'s API_AUTH_KEY in the header `api-key`."}'
        )


def _answering(answer: Any) -> Any:
    async def method(job: ImageJob) -> Any:
        return answer

    return method


def test_the_box_of_a_tilted_line_is_the_upright_rectangle_around_it() -> None:
    service = Service()
    corners = np.array([[[10.5, 8.25], [50, 3.126], [52.75, 14], [12, 20.126]]], np.float32)
    service.runners.ocr = _answering(  # type: ignore[method-assign]
        TextLines(("斜",), corners, np.array([0.9], np.float32), np.array([1.0], np.float32))
    )
    assert service.upload("/ocr", picture()).json()["result"] == {
        "texts": ["斜"],
        "scores": ["1.00"],
        "boxes": [{"x": "10.50", "y": "3.13", "width": "42.25", "height": "17.00"}],
    }


def test_numbers_are_never_written_with_an_exponent() -> None:
    service = Service()
    vector = np.array([1e-30, -1e-10, 1, 0], np.float32)
    service.runners.clip_image = _answering(Embedding(vector))  # type: ignore[method-assign]
    assert service.upload("/clip/img", picture()).json()["result"] == [
        "0.0000000000000000",
        "-0.0000000001000000",
        "1.0000000000000000",
        "0.0000000000000000",
    ]


def test_faces_have_width_and_height_of_their_own_never_the_far_corner() -> None:
    """A defect of the old gateway: it took x2, y2 for width and height, and the other way round."""
    service = Service()
    boxes = np.array([[600.4, 300.6, 650.2, 380.9]], np.float32)
    service.runners.faces = _answering(  # type: ignore[method-assign]
        Faces(boxes, np.array([0.5], np.float32), np.ones((1, 512), np.float32))
    )
    (face,) = service.upload("/represent", picture(1000, 500)).json()["result"]
    assert face["facial_area"] == {"x": 600, "y": 301, "w": 50, "h": 80}
    assert all(type(number) is int for number in face["facial_area"].values())
    assert len(face["embedding"]) == 512


class TestModels:
    """A defect of the old service: it answered with one model, whatever was set."""

    def test_without_settings_the_models_are_those_of_the_old_service(self) -> None:
        service = Service()
        data = picture()
        for path in PICTURE_ROUTES:
            service.upload(path, data)
        service.ask("POST", "/clip/txt", json={"text": "dog"})
        assert service.runners.jobs == [
            ImageJob(data, "PP-OCRv6_small", OcrOptions(0.5, 0.5, 736), upright=True),
            ImageJob(data, "ViT-B-16"),
            ImageJob(data, "buffalo_l", FaceOptions(0.65), upright=True),
            TextJob("dog", "ViT-B-16"),
        ]

    def test_settings_choose_others(self) -> None:
        service = Service(
            clip_model="ViT-L-14", recognition_model="buffalo_s", ocr_model="PP-OCRv5_server", detection_threshold=0.4
        )
        data = picture()
        answers = [service.upload(path, data) for path in PICTURE_ROUTES]
        service.ask("POST", "/clip/txt", json={"text": "dog"})
        assert service.runners.jobs == [
            ImageJob(data, "PP-OCRv5_server", OcrOptions(0.5, 0.5, 736), upright=True),
            ImageJob(data, "ViT-L-14"),
            ImageJob(data, "buffalo_s", FaceOptions(0.4), upright=True),
            TextJob("dog", "ViT-L-14"),
        ]
        assert answers[2].json()["recognition_model"] == "buffalo_s"
        assert service.ask("GET", "/face/check").json()["recognition_model"] == "buffalo_s"


def test_room_in_memory_is_held_while_the_model_works_and_given_back() -> None:
    service = Service(queue_bytes=2**20)
    service.runners.delay = 0.01
    data = picture(500, 400, "BMP")
    app = create_app(service.immich, routes(service.mtphotos))

    async def send_all() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            sent = (client.post("/ocr", headers=KEY, files={"file": data}) for _ in range(4))
            return [response.status_code for response in await asyncio.gather(*sent)]

    assert asyncio.run(send_all()) == [200] * 4
    assert service.runners.most_running == 1


@pytest.mark.parametrize("path", PICTURE_ROUTES)
def test_a_picture_waits_for_a_model_that_is_on_its_way(path: str) -> None:
    service = Service()
    task = {"/ocr": "ocr", "/clip/img": "clip_image", "/represent": "faces"}[path]

    async def arrival(task: str, model: str) -> None:
        service.runners.waits.append((task, model))
        service.runners.error = None

    service.runners.error = ModelOnItsWay(task, "some-model", "34 %")
    service.runners.arrival = arrival  # type: ignore[method-assign]
    assert service.upload(path, picture()).status_code == 200
    assert service.runners.waits == [(task, "some-model")]


def test_the_log_has_one_line_per_request_with_its_task_and_never_the_key(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    with caplog.at_level("INFO", logger="serving.exchange"):
        service.upload("/ocr", picture())
        service.upload("/ocr", picture(), {"api-key": "nearly"})
        service.ask("POST", "/clip/txt", json={"text": "私人的查询"})
        service.ask("POST", "/check", {"x-request-id": "abc"})
    lines = [(record.getMessage(), record.fields) for record in caplog.records]  # type: ignore[attr-defined]
    assert [(line, fields["task"], fields["status"]) for line, fields in lines] == [
        ("POST /ocr", "mtphotos.ocr", 200),
        ("POST /ocr", "mtphotos.ocr", 401),
        ("POST /clip/txt", "mtphotos.clip.textual", 200),
        ("POST /check", "mtphotos.check", 200),
    ]
    assert (lines[0][1]["model"], lines[0][1]["bytes"]) == ("PP-OCRv6_small", len(picture()))
    assert lines[3][1]["request_id"] == "abc"
    assert not any(secret in str(lines) for secret in ("s3cret", "nearly", "私人"))
    assert json.dumps(lines)


def test_the_documentation_lists_every_route() -> None:
    service = Service()
    served = {
        f"{method} {route.path}" for route in routes(service.mtphotos) for method in (route.methods or set()) - {"HEAD"}
    }
    page = (Path(__file__).resolve().parents[3] / "docs/mt-photos.md").read_text()
    assert set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", page, re.MULTILINE)) == served | {"GET /", "GET /ping"}


def test_requests_are_counted_under_their_own_task() -> None:
    def count() -> float:
        return float(REQUESTS.labels("mtphotos.facial-recognition", "200")._value.get())

    before = count()
    Service().upload("/represent", picture())
    assert count() == before + 1
