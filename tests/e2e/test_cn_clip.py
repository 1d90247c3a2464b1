"""CN-CLIP with random weights, converted by the command or the service, served over HTTP, held to torch's vectors."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.catalog import ModelKind, load_catalog
from runners.contract import Float32
from tests.cnclip_reference import (
    image_features,
    official_checkpoint,
    random_model,
    reference_pixels,
    text_features,
)
from tests.models.small_clip import NAME, make_small_clip, on_both_hubs, write_catalog
from tools.bench.processes import ProcessTree
from tools.harness.fake_hub import fake_hub
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, multipart
from tools.harness.server import ROOT, Server
from tools.tiny.cn_clip import ARCHITECTURES

log = logging.getLogger(__name__)

LARGE = [pytest.mark.slow, pytest.mark.large]

TEXTS = ["一只在雪地里的狗", "发票", "A dog, on the BEACH", "营业执照 2024 年"]


def _pictures() -> list[Image.Image]:
    chance = np.random.default_rng(3)
    blotches = [Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(4)]
    return [
        blotch.resize(size, Image.Resampling.BICUBIC)
        for blotch, size in zip(blotches, [(640, 480), (480, 640), (224, 224), (900, 100)], strict=True)
    ]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that is emptied afterwards: the largest model's files come to 10 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


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
def test_vectors_of_a_model_that_the_command_converted_equal_cn_clip_s_own(tmp_path: Path) -> None:
    model = random_model()
    checkpoint = official_checkpoint(model, tmp_path / "clip_cn_vit-b-16.pt")
    command = [sys.executable, "-m", "models", "convert", str(checkpoint), "--as", "ViT-B-16"]
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "MACHINE_LEARNING_CACHE_FOLDER": str(tmp_path / "models"),
    }
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    pictures, settings = _pictures(), {"CLIP_MODEL": "ViT-B-16", "PRECISION": "fp32"}
    with Server(tmp_path, settings) as server, httpx.Client(base_url=server.url, timeout=120) as client:
        vectors, log = _vectors(client, "ViT-B-32__openai", pictures), server.log
    _held_to_torch(model, 224, pictures, vectors)
    assert log.count(f"is taken from {tmp_path / 'bentoml/models/vit-b-16'}") == 2, log  # each half, when it is loaded


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("RN50", "ViT-B-16")),
        *(pytest.param(name, marks=LARGE) for name in ("ViT-L-14", "ViT-L-14-336", "ViT-H-14")),
    ],
)
def test_the_name_of_an_architecture_is_all_that_it_takes(name: str, room: Path) -> None:
    """The hub cuts the connection every 50 MB; neither PyTorch nor CN-CLIP's code can be imported by the service."""
    model, size = random_model(ARCHITECTURES[name]), ARCHITECTURES[name].image_size
    published = load_catalog().find(ModelKind.CLIP, name).checkpoint
    assert published is not None
    assert published.huggingface is not None
    checkpoint = official_checkpoint(model, room / published.file, half=True)
    pictures = _pictures()
    settings = {"CLIP_MODEL": name, "PRECISION": "fp32", "OFFLINE": "false", "PYTHONPATH": str(_without_torch(room))}
    with fake_hub() as hub:
        hub.add_repository(published.huggingface, {published.file: checkpoint.read_bytes()})
        checkpoint.unlink()
        hub.cut_every = 50_000_000
        settings |= {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": f"{hub.url}/ms"}
        started = time.monotonic()
        server = Server(room / "service", settings, ready_path="/ping")
        with server, httpx.Client(base_url=server.url, timeout=1200) as client, _Memory(server) as memory:
            vectors = _vectors(client, name, pictures)
            seconds = time.monotonic() - started
    log.info("%s: first answers %.0f s after the start, at most %.0f MB", name, seconds, memory.peak)
    _held_to_torch(model, size, pictures, vectors)
    assert f"is taken from {room / 'service/models/clip' / name}" in server.log


def _without_torch(folder: Path) -> Path:
    """Write what keeps a Python that has it in its path from importing PyTorch and what needs it."""
    path = folder / "without_torch/sitecustomize.py"
    path.parent.mkdir()
    path.write_text(
        "import sys\n"
        "def refuse(event, args):\n"
        "    if event == 'import' and args[0].partition('.')[0] in ('torch', 'torchvision', 'cn_clip'):\n"
        "        raise ImportError(args[0] + ' is refused')\n"
        "sys.addaudithook(refuse)\n"
    )
    return path.parent


class _Memory:
    """The most memory that a service takes from one moment to another: PSS of all its processes, in MB."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self.peak = 0.0
        self._tree = ProcessTree(server.process.pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._done.wait(0.25):
            self.peak = max(self.peak, self._tree.pss())

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


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
