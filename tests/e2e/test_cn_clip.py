"""CN-CLIP with random weights, converted by the command or the service, served over HTTP, held to torch's vectors."""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.catalog import ModelKind, load_catalog
from tests.cnclip_reference import official_checkpoint, random_model
from tests.e2e.clip_vectors import answered_vectors, assert_torch_answers_so, blotches
from tests.models.small_clip import NAME, make_small_clip, on_both_hubs, write_catalog
from tools.bench.peak_memory import PeakMemory
from tools.harness.fake_hub import fake_hub
from tools.harness.server import ROOT, Server
from tools.tiny.cn_clip import ARCHITECTURES

log = logging.getLogger(__name__)

LARGE = [pytest.mark.slow, pytest.mark.large]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that is emptied afterwards: the largest model's files come to 12 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


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
    pictures, settings = blotches(), {"CLIP_MODEL": "ViT-B-16", "PRECISION": "fp32"}
    with Server(tmp_path, settings) as server, httpx.Client(base_url=server.url, timeout=120) as client:
        vectors, log = answered_vectors(client, "ViT-B-32__openai", pictures), server.log
    assert_torch_answers_so(model, 224, pictures, vectors)
    for half in ("visual", "textual"):
        assert f"ViT-B-16 (clip, {half}) is taken from {tmp_path / 'bentoml/models/vit-b-16'}" in log


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
    checkpoint = official_checkpoint(model, room / published.file)
    pictures = blotches()
    settings = {"CLIP_MODEL": name, "PRECISION": "fp32", "OFFLINE": "false", "PYTHONPATH": str(_without_torch(room))}
    with checkpoint.open("rb") as file, fake_hub() as hub:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        hub.add_repository(published.huggingface, {published.file: data})
        checkpoint.unlink()
        hub.cut_every = 50_000_000
        settings |= {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": f"{hub.url}/ms"}
        started = time.monotonic()
        server = Server(room / "service", settings, ready_path="/ping")
        with server, httpx.Client(base_url=server.url, timeout=1200) as client, _peak_memory(server) as memory:
            vectors = answered_vectors(client, name, pictures)
            seconds = time.monotonic() - started
    told = "%s: first answers %.0f s after the start; at most %.0f MB, %.0f MB without pages of files"
    log.info(told, name, seconds, memory.pss, memory.anonymous)
    assert_torch_answers_so(model, size, pictures, vectors)
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


def _peak_memory(server: Server) -> PeakMemory:
    assert server.process is not None
    return PeakMemory(server.process.pid, "models.conversion")


def test_a_checkpoint_on_a_hub_is_all_that_it_takes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    small = make_small_clip(tmp_path_factory.mktemp("checkpoint"))
    catalog, _ = write_catalog(tmp_path)
    pictures = blotches()
    with fake_hub() as hub:
        endpoints = on_both_hubs(hub, small.data)
        hub.cut_every = 1_000_000
        settings = {name.upper(): value for name, value in endpoints.items()}
        settings |= {"CLIP_MODEL": NAME, "MODEL_CATALOG": str(catalog), "PRECISION": "fp32", "OFFLINE": "false"}
        with Server(tmp_path, settings) as server, httpx.Client(base_url=server.url, timeout=120) as client:
            vectors = answered_vectors(client, NAME, pictures)
            log = server.log
    assert_torch_answers_so(small.model, 64, pictures, vectors)
    assert f"Converting clip_cn_small.pt to {NAME} (clip)." in log
    assert not list(tmp_path.rglob("*.pt"))
