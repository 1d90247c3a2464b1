"""The main job on real input: real models answer Immich's real requests over HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from settings.version import VERSION
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import Look, character_accuracy, jpeg, mixed_pages, page, two_columns
from tools.harness.server import Server

_INSIGHTFACE = importlib.util.find_spec("insightface")
assert _INSIGHTFACE is not None
assert _INSIGHTFACE.origin is not None
T1 = (Path(_INSIGHTFACE.origin).parent / "data/images/t1.jpg").read_bytes()


def predict(client: httpx.Client, entries: Any, **parts: Any) -> dict[str, Any]:
    response = client.post("/predict", content=multipart(entries, **parts), headers=HEADERS)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_routes_that_immich_and_operators_look_at(client: httpx.Client) -> None:
    assert (client.get("/ping").text, client.get("/").json()) == ("pong", {"message": "Immich ML"})
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    assert client.get("/predict").status_code == 405


def test_the_log_says_which_version_starts_and_where_immich_finds_it(server: Server) -> None:
    assert f"immich-bento {VERSION} starts." in server.log.splitlines()[0]
    assert f"Listening on {server.url}. Immich's machine learning URL" in server.log


def test_six_faces_with_unit_embeddings(client: httpx.Client) -> None:
    answer = predict(client, faces("buffalo_s", 0.5), image=T1)
    assert (answer["imageWidth"], answer["imageHeight"]) == Image.open(io.BytesIO(T1)).size
    found = answer["facial-recognition"]
    assert len(found) == 6
    for face in found:
        vector = np.array(json.loads(face["embedding"]))
        assert vector.shape == (512,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert face["boundingBox"]["x1"] < face["boundingBox"]["x2"] <= 1280
        assert 0.5 <= face["score"] <= 1


def test_mixed_chinese_and_english_pages_are_read(client: httpx.Client) -> None:
    accuracy = {}
    for sheet in mixed_pages():
        answer = predict(client, ocr(), image=sheet.data)["ocr"]
        accuracy[sheet.name] = character_accuracy(answer["text"], sheet.lines)
        assert (
            len(answer["box"]) == 8 * len(answer["text"]) == 8 * len(answer["boxScore"]) == 8 * len(answer["textScore"])
        )
        assert all(0 <= edge <= 1 for edge in answer["box"])
    assert len(accuracy) == 8
    assert min(accuracy.values()) >= 0.95, accuracy


def test_two_columns_come_column_by_column(client: httpx.Client) -> None:
    left, right = (
        ["左栏第一行 alpha", "左栏第二行 beta", "左栏第三行 gamma"],
        ["右栏第一行 delta", "右栏第二行 epsilon", "右栏第三行 zeta"],
    )
    answer = predict(client, ocr(), image=jpeg(two_columns(left, right)))["ocr"]
    assert ["".join(line.split()) for line in answer["text"]] == ["".join(line.split()) for line in left + right]


def test_the_older_dialect_reads_too(client: httpx.Client) -> None:
    sheet = mixed_pages()[0]
    answer = predict(client, {"ocr": {"recognition": {"modelName": "ocr"}}}, image=sheet.data)
    assert character_accuracy([answer["ocr"]], sheet.lines) >= 0.95
    assert len(answer["result"]["texts"]) == len(answer["result"]["boxes"]) == len(sheet.lines)


def test_clip_image_and_text_share_a_space_of_512(client: httpx.Client) -> None:
    for answer in (
        predict(client, clip_visual(), image=T1),
        predict(client, clip_textual(language="zh-CN"), text="一只在雪地里的狗"),
    ):
        assert isinstance(answer["clip"], str)
        vector = np.array(json.loads(answer["clip"]))
        assert vector.shape == (512,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_all_tasks_of_a_picture_in_one_request(client: httpx.Client) -> None:
    answer = predict(client, {**clip_visual(), **faces(), **ocr()}, image=T1)
    assert set(answer) == {"clip", "facial-recognition", "ocr", "imageWidth", "imageHeight"}


def test_metrics_show_requests_latency_batches_queue_and_models(client: httpx.Client) -> None:
    predict(client, {**clip_visual(), **faces(), **ocr()}, image=T1)
    metrics = client.get("/metrics").text
    for name in (
        'immich_bento_requests_total{status="200",task="clip.visual+facial-recognition+ocr"}',
        "immich_bento_request_seconds_bucket",
        'immich_bento_batch_size_count{runner="ocr"}',
        "immich_bento_queue_bytes 0.0",
        'immich_bento_models_loaded{runner="faces"} 1.0',
    ):
        assert name in metrics


def test_a_connection_that_got_errors_serves_the_next_request(client: httpx.Client, server: Server) -> None:
    wrong = [
        (multipart(clip_visual("nope"), image=T1), 422),
        (multipart(clip_visual(), image=b"no picture" * 50_000), 415),
        (multipart(clip_visual()), 400),
        (b"junk", 422),
        (multipart(faces("buffalo_l"), image=T1), 503),
    ]
    with httpx.Client(base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=1)) as one:
        connections = set()
        for body, status in wrong:
            response = one.post("/predict", content=body, headers=HEADERS)
            assert response.status_code == status, response.text
            connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            good = one.post("/predict", content=multipart(clip_visual(), image=T1), headers=HEADERS)
            assert good.status_code == 200
            connections.add(good.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(connections) == 1


def test_the_three_names_of_a_model_that_cannot_be_had_are_told(client: httpx.Client, server: Server) -> None:
    response = client.post("/predict", content=multipart(faces("buffalo_l"), image=T1), headers=HEADERS)
    assert response.status_code == 503
    assert response.headers["retry-after"].isdigit()
    detail = response.json()["detail"]
    for needed in ("buffalo_l", "OFFLINE", "python -m models pull buffalo_l"):
        assert needed in detail
    assert str(server.folder / "models") not in detail
    for told in (str(server.folder / "models"), "RECOGNITION_MODEL"):  # where it was looked for, and other ways
        assert told in server.log
    assert len(predict(client, faces("buffalo_s"), image=T1)["facial-recognition"]) == 6


def test_options_never_leak_between_120_requests_at_once(client: httpx.Client, server: Server) -> None:
    lines = page(
        ["发票号码 No. 04482913", "开票日期 2024年02月29日", "small print"],
        size=(480, 300),
        look=Look(font_size=24),
        margin=20,
    )
    text, people = jpeg(lines), shrunk(T1, 640)
    # Faces scored 0.7 and more against all; text looked for at 320 px against 64, where the smaller lines blur.
    strict_faces, lax_faces = faces("buffalo_s", 0.8), faces("buffalo_s", 0.1)
    fine_ocr, coarse_ocr = ocr(max_resolution=320, min_recognition=0.0), ocr(max_resolution=64, min_recognition=0.95)
    kinds = [(strict_faces, people), (lax_faces, people), (fine_ocr, text), (coarse_ocr, text)]
    alone = [predict(client, entries, image=image) for entries, image in kinds]
    assert len({json.dumps(answer, sort_keys=True) for answer in alone}) == 4, (
        "the two settings must differ for the test to say anything"
    )

    async def all_at_once() -> list[Any]:
        async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=16)) as many:

            async def one(number: int) -> Any:
                entries, image = kinds[number % 4]
                response = await many.post("/predict", content=multipart(entries, image=image), headers=HEADERS)
                assert response.status_code == 200, response.text
                return response.json()

            return await asyncio.gather(*(one(number) for number in range(120)))

    for number, answer in enumerate(asyncio.run(all_at_once())):
        assert_same_answer(answer, alone[number % 4])


def shrunk(data: bytes, width: int) -> bytes:
    image = Image.open(io.BytesIO(data))
    return jpeg(image.resize((width, image.height * width // image.width)))


def assert_same_answer(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless both are equal but for the last digits, which depend on what else was in the batch."""
    assert answer.keys() == expected.keys()
    if "ocr" in answer:
        assert answer["ocr"]["text"] == expected["ocr"]["text"]
        assert answer["ocr"]["box"] == pytest.approx(expected["ocr"]["box"], abs=1e-3)
    else:
        boxes, wanted = (
            [list(face["boundingBox"].values()) for face in one["facial-recognition"]] for one in (answer, expected)
        )
        assert len(boxes) == len(wanted)
        assert np.abs(np.array(boxes) - np.array(wanted)).max() <= 1
