"""cn-clip-tiny through the running service: with no network, and as good over HTTP as offline."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runners.contract import Float32
from runners.engine import EnginePlan
from tests.e2e.test_predict import T1
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import character_accuracy, mixed_pages
from tools.harness.server import Server
from tools.tiny.evaluate import HeldOut, embed, read_held_out, recall
from tools.tiny.export import WEIGHTS
from tools.tiny.train import DEFAULT_CACHE

QUERIES = 200
UNPLUGGED = {"OFFLINE": "false", "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
"""Downloads are allowed, but no host can be reached."""


def test_with_the_network_unplugged_all_three_tasks_are_answered(tmp_path: Path) -> None:
    settings = {"CLIP_MODEL": "tiny", "RECOGNITION_MODEL": "buffalo_s", "OCR_MODEL": "PP-OCRv6_small"}
    with (
        Server(tmp_path, {**UNPLUGGED, **settings}) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):

        def ask(entries: Any, **parts: Any) -> dict[str, Any]:
            response = client.post("/predict", content=multipart(entries, **parts), headers=HEADERS)
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            return answer

        assert len(json.loads(ask(clip_visual("ViT-B-32__openai"), image=T1)["clip"])) == 512
        assert len(json.loads(ask(clip_textual("ViT-B-32__openai"), text="苹果")["clip"])) == 512
        assert len(ask(faces("buffalo_l", 0.5), image=T1)["facial-recognition"]) == 6
        sheet = mixed_pages()[0]
        assert character_accuracy(ask(ocr("PP-OCRv5_mobile"), image=sheet.data)["ocr"]["text"], sheet.lines) >= 0.95
        assert "knows emoji, not photos" in server.log


def test_without_a_word_tiny_answers_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, UNPLUGGED) as server:
        response = httpx.post(
            server.url + "/predict", content=multipart(clip_textual(), text="苹果"), headers=HEADERS, timeout=60
        )
    assert (response.status_code, response.json()["code"]) == (503, "model_unavailable")
    assert "emoji" not in server.log


async def _vectors(url: str, bodies: list[bytes]) -> Float32:
    vectors: list[list[float]] = [[] for _ in bodies]
    queue = iter(enumerate(bodies))

    async def caller(client: httpx.AsyncClient) -> None:
        for number, body in queue:
            response = await client.post("/predict", content=body, headers=HEADERS)
            assert response.status_code == 200, response.text
            vectors[number] = json.loads(response.json()["clip"])

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(caller(client) for _ in range(8)))
    return np.array(vectors, np.float32)


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    """Return OpenMoji and its names; fetched by npm, once."""
    return read_held_out(DEFAULT_CACHE)


@pytest.mark.slow
def test_held_out_pictures_are_found_over_http_as_well_as_offline(tmp_path: Path, held_out: HeldOut) -> None:
    names = held_out.names["zh"]
    chosen = np.random.default_rng(5).choice(len(names), QUERIES, replace=False).tolist()
    with Server(tmp_path, {"CLIP_MODEL": "tiny"}) as server:
        pictures = asyncio.run(
            _vectors(server.url, [multipart(clip_visual(), image=picture) for picture in held_out.pictures])
        )
        texts = asyncio.run(
            _vectors(server.url, [multipart(clip_textual(language="zh-CN"), text=names[row]) for row in chosen])
        )
    offline_pictures, offline_texts = embed(held_out, WEIGHTS, EnginePlan("cpu", threads=2))
    over_http, offline = recall(texts, pictures, chosen), recall(offline_texts["zh"][chosen], offline_pictures, chosen)
    assert abs(over_http.at_10 - offline.at_10) <= 0.01
    assert over_http.at_10 >= 0.6
