"""CN-CLIP with random weights, converted by the command or the service, served over HTTP, held to torch's vectors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from runners.contract import Float32
from tests.cnclip_reference import (
    image_features,
    official_checkpoint,
    random_model,
    reference_pixels,
    text_features,
)
from tests.fake_hub import fake_hub
from tests.models.small_clip import NAME, make_small_clip, on_both_hubs, write_catalog
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


def _vectors(client: httpx.Client, model: str, pictures: list[Image.Image]) -> tuple[Float32, Float32]:
    """Return what the service answers for the pictures, and for TEXTS."""

    def ask(body: bytes) -> list[float]:
        response = client.post("/predict", content=body, headers=HEADERS)
        assert response.status_code == 200, response.text
        vector: list[float] = json.loads(response.json()["clip"])
        return vector

    images = [ask(multipart(clip_visual(model), image=_png(picture))) for picture in pictures]
    texts = [ask(multipart(clip_textual(model, language="zh-CN"), text=text)) for text in TEXTS]
    return np.array(images, np.float32), np.array(texts, np.float32)


def _held_to_torch(model: Any, size: int, pictures: list[Image.Image], vectors: tuple[Float32, Float32]) -> None:
    pixels = np.stack([reference_pixels(picture, size) for picture in pictures])
    for ours, expected in zip(vectors, (image_features(model, pixels), text_features(model, TEXTS)), strict=True):
        assert ours.shape == expected.shape
        cosines = np.sum(ours * expected, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.9999
        assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["by the command", "by the service"])
def test_vectors_over_http_equal_cn_clip_s_own(tmp_path: Path, how: str) -> None:
    model = random_model()
    checkpoint = official_checkpoint(model, tmp_path / "clip_cn_vit-b-16.pt")
    pictures, settings = _pictures(), {"CLIP_MODEL": "ViT-B-16", "PRECISION": "fp32"}
    with fake_hub() as hub:
        if how == "by the command":
            command = [sys.executable, "-m", "models", "convert", str(checkpoint), "--as", "ViT-B-16"]
            environment = {
                **os.environ,
                "BENTOML_HOME": str(tmp_path / "bentoml"),
                "MACHINE_LEARNING_CACHE_FOLDER": str(tmp_path / "models"),
            }
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
            folder = tmp_path / "bentoml/models/vit-b-16"
        else:
            hub.add_repository(
                "OFA-Sys/chinese-clip-vit-base-patch16", {"clip_cn_vit-b-16.pt": checkpoint.read_bytes()}
            )
            hub.cut_every = 50_000_000
            settings |= {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": f"{hub.url}/ms", "OFFLINE": "false"}
            folder = tmp_path / "models/clip/ViT-B-16"
        with Server(tmp_path, settings) as server, httpx.Client(base_url=server.url, timeout=120) as client:
            vectors, log = _vectors(client, "ViT-B-32__openai", pictures), server.log
    _held_to_torch(model, 224, pictures, vectors)
    taken = [line for line in log.splitlines() if f"is taken from {folder}" in line]
    assert len(taken) == 2, log  # once for each half, when it is loaded


def test_a_checkpoint_on_a_hub_is_all_that_it_takes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    small = make_small_clip(tmp_path_factory.mktemp("checkpoint"))
    catalog, _ = write_catalog(tmp_path)
    pictures = _pictures()
    with fake_hub() as hub:
        endpoints = on_both_hubs(hub, small.data)
        hub.cut_every = 1_000_000
        settings = {name.upper(): value for name, value in endpoints.items()}
        settings |= {"CLIP_MODEL": NAME, "MODEL_CATALOG": str(catalog), "PRECISION": "fp32", "OFFLINE": "false"}
        with Server(tmp_path, settings) as server, httpx.Client(base_url=server.url, timeout=120) as client:
            vectors = _vectors(client, NAME, pictures)
            log = server.log
    _held_to_torch(small.model, 64, pictures, vectors)
    assert f"Converting clip_cn_small.pt to {NAME} (clip)." in log
    assert not list(tmp_path.rglob("*.pt"))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
