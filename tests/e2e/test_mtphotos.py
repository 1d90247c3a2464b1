"""mt-photos-ai's API on real input: real models answer over HTTP, to those with the key."""

from __future__ import annotations

import concurrent.futures
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_predict import T1
from tools.harness.immich_client import HEADERS, multipart
from tools.harness.immich_client import faces as immich_faces
from tools.harness.immich_client import ocr as immich_ocr
from tools.harness.rendered import character_accuracy, jpeg, mixed_pages, page
from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder

KEY = "密钥 s3cret"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield the service with a key, a tiny CLIP, buffalo_s and PP-OCRv6_small."""
    folder = tmp_path_factory.mktemp("mtphotos")
    tiny_clip_folder(folder / "models" / "clip" / "ViT-B-16")
    with Server(folder, {"API_AUTH_KEY": KEY, "RECOGNITION_MODEL": "buffalo_s"}) as running:
        yield running


@pytest.fixture
def caller(keyed: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=keyed.url, timeout=120, headers={b"api-key": KEY.encode()}) as client:
        yield client


def upload(caller: httpx.Client, path: str, data: bytes) -> Any:
    response = caller.post(path, files={"file": ("IMG_0001.JPG", data, "image/jpeg")})
    assert response.status_code == 200, response.text
    return response.json()


def predict(caller: httpx.Client, entries: Any, image: bytes) -> Any:
    response = caller.post("/predict", content=multipart(entries, image=image), headers=HEADERS)
    assert response.status_code == 200, response.text
    return response.json()


def test_pages_are_read_and_their_boxes_lie_around_their_lines(caller: httpx.Client) -> None:
    for sheet in mixed_pages()[:3]:  # tests/e2e/test_predict.py reads all of them, by the same runner
        found = upload(caller, "/ocr", sheet.data)["result"]
        assert character_accuracy(found["texts"], sheet.lines) >= 0.95, sheet.name
        assert len(found["texts"]) == len(found["scores"]) == len(found["boxes"])
        assert all(0.5 <= float(score) <= 1 and len(score) == 4 for score in found["scores"])
        # The same lines from Immich's route, whose corners are fractions.
        answer = predict(caller, immich_ocr(min_recognition=0.5), sheet.data)
        corners = np.array(answer["ocr"]["box"]).reshape(-1, 4, 2) * (answer["imageWidth"], answer["imageHeight"])
        upright = np.hstack([corners.min(axis=1), corners.max(axis=1) - corners.min(axis=1)])
        assert found["texts"] == answer["ocr"]["text"]
        assert [[float(box[side]) for side in ("x", "y", "width", "height")] for box in found["boxes"]] == [
            pytest.approx(one, abs=0.011) for one in upright.tolist()
        ]


def test_a_picture_without_text_or_faces_is_an_empty_result(caller: httpx.Client) -> None:
    blank = jpeg(Image.new("RGB", (640, 480), "white"))
    assert upload(caller, "/ocr", blank) == {"result": {"texts": [], "scores": [], "boxes": []}}
    assert upload(caller, "/represent", blank)["result"] == []


def test_six_faces_where_immichs_route_sees_them(caller: httpx.Client) -> None:
    answer = upload(caller, "/represent", T1)
    assert (answer["detector_backend"], answer["recognition_model"]) == ("insightface", "buffalo_s")
    seen = predict(caller, immich_faces("buffalo_s", 0.65), T1)["facial-recognition"]
    assert len(answer["result"]) == len(seen) == 6
    for face, box in zip(answer["result"], (face["boundingBox"] for face in seen), strict=True):
        area = face["facial_area"]
        assert [area["x"], area["y"], area["x"] + area["w"], area["y"] + area["h"]] == [
            box[side] for side in ("x1", "y1", "x2", "y2")
        ]
        assert 0.65 <= face["face_confidence"] <= 1
        assert len(face["embedding"]) == 512
        assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-5)


def test_clip_vectors_are_512_strings_of_length_1(caller: httpx.Client) -> None:
    """A defect of the old service: its vectors were not normalised."""
    image = upload(caller, "/clip/img", T1)["result"]
    text = caller.post("/clip/txt", json={"text": "一只在雪地里的狗"}).json()["result"]
    for vector in (image, text):
        assert len(vector) == 512
        assert all(isinstance(number, str) and len(number.partition(".")[2]) == 16 for number in vector)
        assert np.linalg.norm([float(number) for number in vector]) == pytest.approx(1, abs=1e-5)
    assert image != text


@pytest.mark.parametrize("path", ["/ocr", "/clip/img", "/represent"])
def test_a_picture_cut_short_is_415(caller: httpx.Client, path: str) -> None:
    """A defect of the old service: it took what there was for the whole, and stored that."""
    for share in (0.3, 0.6, 0.95):
        response = caller.post(path, files={"file": T1[: int(len(T1) * share)]})
        assert (response.status_code, response.json()["result"]) == (415, [])


def test_a_panorama_too_long_is_refused_in_the_old_words(caller: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("L", (10_001, 10)).save(file, "PNG")
    response = caller.post("/ocr", files={"file": file.getvalue()})
    assert (response.status_code, response.json()) == (413, {"result": [], "msg": "height or width out of range"})


@pytest.mark.parametrize("path", ["/ocr", "/clip/img", "/clip/txt", "/represent", "/restart", "/restart_v2"])
def test_wrong_keys_are_401_and_no_key_set_403(keyed: Server, server: Server, path: str) -> None:
    form = {"files": {"file": T1}}
    for headers in ({}, {"api-key": "mt_photos_ai_extra"}, {b"api-key": KEY.encode() + b"x"}):
        assert httpx.post(keyed.url + path, headers=headers, timeout=60, **form).status_code == 401  # type: ignore[arg-type]
        refused = httpx.post(server.url + path, headers=headers, timeout=60, **form)  # type: ignore[arg-type]
        assert refused.status_code == 403
        assert "API_AUTH_KEY" in refused.json()["msg"]


def test_a_connection_that_was_refused_with_its_body_unread_serves_the_next_request(keyed: Server) -> None:
    with httpx.Client(base_url=keyed.url, timeout=60, limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            assert client.post("/ocr", files={"file": b"x" * 5_000_000}).status_code == 401
            assert client.get("/ping").text == "pong"


def test_checks_tell_the_device_and_the_page_the_models(caller: httpx.Client, keyed: Server) -> None:
    upload(caller, "/represent", T1)
    check = httpx.post(keyed.url + "/check").json()
    assert (check["result"], check["device"]) == ("pass", "cpu")
    assert httpx.get(keyed.url + "/face/check").json()["recognition_model"] == "buffalo_s"
    page_text = httpx.get(keyed.url + "/", headers={"accept": "text/html"}).text
    assert "facial-recognition: buffalo_s" in page_text
    assert KEY not in page_text
    assert httpx.get(keyed.url + "/").json() == {"message": "Immich ML"}


def test_restart_v2_frees_the_models_and_the_next_request_loads_them_again(caller: httpx.Client) -> None:
    upload(caller, "/ocr", mixed_pages()[0].data)
    assert 'immich_bento_models_loaded{runner="ocr"} 1.0' in caller.get("/metrics").text
    assert caller.post("/restart_v2").json() == {"result": "pass"}
    for runner in ("ocr", "faces", "clip_image", "clip_text"):
        assert f'immich_bento_models_loaded{{runner="{runner}"}} 1.0' not in caller.get("/metrics").text
    assert upload(caller, "/ocr", mixed_pages()[0].data)["result"]["texts"]


def test_pings_are_answered_during_a_long_ocr(caller: httpx.Client, keyed: Server) -> None:
    """A defect of the old service: models ran in its event loop, and it looked dead meanwhile."""
    long = jpeg(page(["很长的一页 a long page with text"] * 60, size=(3000, 6000)))
    with concurrent.futures.ThreadPoolExecutor(1) as background, httpx.Client(base_url=keyed.url, timeout=10) as other:
        reading = background.submit(upload, caller, "/ocr", long)
        answered_meanwhile = 0
        while not reading.done():
            assert other.get("/ping").text == "pong"
            answered_meanwhile += not reading.done()
        assert reading.result()["result"]["texts"]
    assert answered_meanwhile >= 20


def test_metrics_count_these_routes_by_task_and_status(caller: httpx.Client) -> None:
    upload(caller, "/clip/img", T1)
    caller.post("/clip/img", files={"file": b"no picture"})
    figures = caller.get("/metrics").text
    for status in (200, 415):
        assert f'immich_bento_requests_total{{status="{status}",task="mtphotos.clip.visual"}}' in figures


def test_the_key_is_nowhere_in_the_log(caller: httpx.Client, keyed: Server) -> None:
    upload(caller, "/clip/img", T1)
    assert "POST /clip/img" in keyed.log
    assert "s3cret" not in keyed.log
