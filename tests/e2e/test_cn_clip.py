"""CN-CLIP's true ViT-B-16 with random weights: converted by the command, served over HTTP, held to its own torch
forward.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.cnclip_reference import (
    image_features,
    official_checkpoint,
    random_model,
    reference_pixels,
    text_features,
)
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, multipart
from tools.harness.server import ROOT, Server

TEXTS = ["一只在雪地里的狗", "发票", "A dog, on the BEACH", "营业执照 2024 年"]


def _pictures() -> list[Image.Image]:
    chance = np.random.default_rng(3)
    blotches = [Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(4)]
    return [
        blotch.resize(size, Image.Resampling.BICUBIC)
        for blotch, size in zip(blotches, [(640, 480), (480, 640), (224, 224), (900, 100)], strict=True)
    ]


@pytest.mark.slow
def test_vectors_over_http_equal_cn_clip_s_own(tmp_path: Path) -> None:
    model = random_model()
    checkpoint = official_checkpoint(model, tmp_path / "clip_cn_vit-b-16.pt")
    command = [sys.executable, "-m", "models", "convert", str(checkpoint), "--as", "ViT-B-16"]
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "MACHINE_LEARNING_CACHE_FOLDER": str(tmp_path / "models"),
    }
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    pictures = _pictures()
    with (
        Server(tmp_path, {"CLIP_MODEL": "ViT-B-16", "PRECISION": "fp32"}) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):

        def ask(body: bytes) -> list[float]:
            response = client.post("/predict", content=body, headers=HEADERS)
            assert response.status_code == 200, response.text
            vector: list[float] = json.loads(response.json()["clip"])
            return vector

        images = np.array([ask(multipart(clip_visual(), image=_png(picture))) for picture in pictures])
        texts = np.array([ask(multipart(clip_textual(language="zh-CN"), text=text)) for text in TEXTS])
        log = server.log
    expected_images = image_features(model, np.stack([reference_pixels(picture, 224) for picture in pictures]))
    expected_texts = text_features(model, TEXTS)
    for ours, expected in ((images, expected_images), (texts, expected_texts)):
        assert ours.shape == (4, 512)
        cosines = np.sum(ours * expected, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.9999
        assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)
    store = tmp_path / "bentoml/models/vit-b-16"
    taken = [line for line in log.splitlines() if f"is taken from {store}" in line]
    assert len(taken) == 2, log  # once for each half, when it is loaded


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
