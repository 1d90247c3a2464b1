"""CN-CLIP's true architectures, converted from checkpoints of random weights, against cn_clip's torch forward."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.catalog import ModelKind, load_catalog
from models.resolve import resolve
from runners.clip import load_clip_image, load_clip_text
from runners.contract import Embedding, ImageJob, TextJob
from runners.engine import EnginePlan, Session, open_session
from settings import Settings
from tests.cnclip_reference import (
    image_features,
    official_checkpoint,
    random_model,
    reference_pixels,
    text_features,
)
from tools.tiny.cn_clip import ARCHITECTURES

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
LEAST_COSINE = 0.9999
TEXTS = ["一只在雪地里的猫", "A dog, on the BEACH", "营业执照 2024", "", "长" * 100]
LARGE = [pytest.mark.slow, pytest.mark.large]


def pictures() -> list[Image.Image]:
    chance = np.random.default_rng(7)
    blotches = [Image.fromarray(chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)) for _ in range(5)]
    return [blotch.resize((320, 240), Image.Resampling.BICUBIC) for blotch in blotches]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def open_on_cpu(path: Path) -> Session:
    return open_session(path, EnginePlan("cpu", threads=2))


def vectors(results: list[Any]) -> NDArray[np.float32]:
    assert all(isinstance(result, Embedding) for result in results), results
    return np.stack([result.vector for result in results])


def worst(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.sum(ours.astype(np.float64) * expected, axis=1).min())


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that is emptied afterwards: the largest model's files come to 13 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("RN50", "ViT-B-16")),
        *(pytest.param(name, marks=LARGE) for name in ("ViT-L-14", "ViT-L-14-336", "ViT-H-14")),
    ],
)
def test_a_converted_checkpoint_answers_as_cn_clips_own_torch_forward(name: str, room: Path) -> None:
    model, size = random_model(ARCHITECTURES[name]), ARCHITECTURES[name].image_size
    images = pictures()
    expected_images = image_features(model, np.stack([reference_pixels(image, size) for image in images]))
    expected_texts = text_features(model, TEXTS)
    # Vectors that are all alike would prove nothing.
    assert np.triu(expected_images @ expected_images.T, 1).max() < 0.9999
    assert np.triu(expected_texts @ expected_texts.T, 1).max() < 0.9999
    checkpoint = official_checkpoint(model, room / "clip_cn.pt")
    del model
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "MACHINE_LEARNING_CACHE_FOLDER": str(room / "cache")}
    image_jobs, text_jobs = [ImageJob(png(image), name) for image in images], [TextJob(text, name) for text in TEXTS]
    sizes = {}
    for precision in ("fp32", "fp16"):
        command = [sys.executable, "-m", "models", "convert", str(checkpoint), "--as", name, "--precision", precision]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert f"{name}: stored as {name.lower()}:" in result.stdout
        files = resolve(load_catalog().find(ModelKind.CLIP, name), Settings(cache_folder=room / "cache"))
        sizes[precision] = sum(path.stat().st_size for path in files.values())
        image_model = load_clip_image("cn-clip", files, open_on_cpu, max_pixels=10**8)
        text_model = load_clip_text(name, "cn-clip", files, open_on_cpu)
        found = [worst(vectors(image_model.run(image_jobs[:count])), expected_images[:count]) for count in (1, 5)]
        found += [worst(vectors(text_model.run(text_jobs[:count])), expected_texts[:count]) for count in (1, 5)]
        image_model.close()
        text_model.close()
        log.info(
            "%s %s, %.0f MB: cosines 1 - %s",
            name,
            precision,
            sizes[precision] / 1e6,
            [f"{1 - cosine:.1e}" for cosine in found],
        )
        assert min(found) > LEAST_COSINE
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
