"""Vectors that a service answers for some pictures and texts, held to those of cn_clip's own torch forward."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from runners.contract import Float32
from tests.cnclip_reference import image_features, reference_pixels, text_features
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, multipart

TEXTS = ["一只在雪地里的狗", "发票", "A dog, on the BEACH", "营业执照 2024 年"]


def blotches() -> list[Image.Image]:
    """Return four pictures of several shapes, whose vectors differ."""
    chance = np.random.default_rng(3)
    small = [Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(4)]
    return [
        picture.resize(size, Image.Resampling.BICUBIC)
        for picture, size in zip(small, [(640, 480), (480, 640), (224, 224), (900, 100)], strict=True)
    ]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def picture_bodies(model: str, pictures: list[Image.Image]) -> list[bytes]:
    """Return a request for the vector of each picture."""
    return [multipart(clip_visual(model), image=png(picture)) for picture in pictures]


def text_bodies(model: str) -> list[bytes]:
    """Return a request for the vector of each of ``TEXTS``."""
    return [multipart(clip_textual(model, language="zh-CN"), text=text) for text in TEXTS]


def ask(client: httpx.Client, body: bytes) -> list[float]:
    """Return the vector that is answered. Fails where it is not answered 200."""
    response = client.post("/predict", content=body, headers=HEADERS)
    assert response.status_code == 200, response.text
    vector: list[float] = json.loads(response.json()["clip"])
    return vector


def answered_vectors(client: httpx.Client, model: str, pictures: list[Image.Image]) -> tuple[Float32, Float32]:
    """Return what the service answers for ``pictures``, and for ``TEXTS``: (n, d) float32 each."""
    images = [ask(client, body) for body in picture_bodies(model, pictures)]
    texts = [ask(client, body) for body in text_bodies(model)]
    return np.array(images, np.float32), np.array(texts, np.float32)


def assert_torch_answers_so(
    model: Any, size: int, pictures: list[Image.Image], vectors: tuple[Float32, Float32]
) -> None:
    """Compare with torch's vectors of ``pictures``, made ``size`` px wide, and of ``TEXTS``: cosines above 0.9999."""
    pixels = np.stack([reference_pixels(picture, size) for picture in pictures])
    for ours, expected in zip(vectors, (image_features(model, pixels), text_features(model, TEXTS)), strict=True):
        assert ours.shape == expected.shape
        cosines = np.sum(ours * expected, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.9999
        assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)
