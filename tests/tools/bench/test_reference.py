"""The peer answers Immich's protocol, in a process of its own: its sessions have threads of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tools.bench.contenders import REFERENCE
from tools.bench.pictures import group_photo
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import Look, jpeg, page
from tools.harness.server import Server

MODELS = {"CLIP_MODEL": "cn-clip-tiny", "RECOGNITION_MODEL": "buffalo_s", "OCR_MODEL": "PP-OCRv6_small"}
LINES = ["营业执照 BUSINESS LICENSE", "注册资本 人民币 5000 万元整"]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        Server(tmp_path_factory.mktemp("peer"), MODELS, REFERENCE) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def ask(peer: httpx.Client, body: bytes) -> dict[str, Any]:
    response = peer.post("/predict", content=body, headers=HEADERS)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def test_clip_answers_normalised_vectors_of_pictures_and_texts(peer: httpx.Client) -> None:
    picture = ask(peer, multipart(clip_visual(), image=group_photo()))
    assert (picture["imageHeight"], picture["imageWidth"]) == (886, 1280)
    for answer in (picture, ask(peer, multipart(clip_textual(language="zh-CN"), text="一只猫"))):
        vector = np.array(json.loads(answer["clip"]))
        assert vector.shape == (512,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_faces_are_found_at_their_places_and_none_in_an_empty_picture(peer: httpx.Client) -> None:
    found = ask(peer, multipart(faces(), image=group_photo()))["facial-recognition"]
    assert len(found) == 6
    assert all(0 < face["boundingBox"]["x1"] < face["boundingBox"]["x2"] < 1280 for face in found)
    assert all(len(json.loads(face["embedding"])) == 512 and face["score"] >= 0.7 for face in found)
    empty = jpeg(Image.new("RGB", (320, 240), "white"))
    assert ask(peer, multipart(faces(), image=empty))["facial-recognition"] == []


def test_lines_of_text_are_read_with_corners_as_fractions(peer: httpx.Client) -> None:
    picture = jpeg(page(LINES, size=(520, 460), look=Look(font_size=28), margin=60))
    found = ask(peer, multipart(ocr(), image=picture))["ocr"]
    assert ["".join(text.split()) for text in found["text"]] == ["".join(line.split()) for line in LINES]
    assert len(found["box"]) == 16
    assert all(0 <= corner <= 1 for corner in found["box"])
    assert min(found["textScore"]) >= 0.8
    blank = ask(peer, multipart(ocr(), image=jpeg(Image.new("RGB", (100, 100), "white"))))["ocr"]
    assert blank == {"text": [], "box": [], "boxScore": [], "textScore": []}
