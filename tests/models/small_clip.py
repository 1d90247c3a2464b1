"""A small CN-CLIP of random weights as a hub has it: its checkpoint, and a catalog that names it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from models import checkpoint as checkpoint_module
from models.catalog import ModelEntry, ModelKind, load_catalog
from settings import Settings
from tests.cnclip_reference import TINY, official_checkpoint, random_model
from tests.models.conftest import write_files
from tools.harness.fake_hub import Web

NAME, FILE = "small-clip", "clip_cn_small.pt"
HUGGINGFACE, MODELSCOPE = "OFA-Sys/small", "AI-ModelScope/small"
HUGGINGFACE_FILE = f"/{HUGGINGFACE}/resolve/main/{FILE}"
MODELSCOPE_FILE = f"/ms/models/{MODELSCOPE}/resolve/master/{FILE}"

_CATALOG = f"""
[[models]]
name = "{NAME}"
family = "cn-clip"
embedding_size = 64
input_size = 64
advice = "For tests."
checkpoint = {{ file = "{FILE}", huggingface = "{HUGGINGFACE}", modelscope = "{MODELSCOPE}" }}
"""


@dataclass
class SmallClip:
    """The model and its checkpoint."""

    model: Any
    """cn_clip's own class in torch."""
    checkpoint: Path

    @property
    def data(self) -> bytes:
        return self.checkpoint.read_bytes()


def make_small_clip(folder: Path) -> SmallClip:
    """Write a checkpoint of random weights."""
    model = random_model(TINY)
    return SmallClip(model, official_checkpoint(model, folder / FILE, half=True))


def write_catalog(folder: Path) -> tuple[Path, ModelEntry]:
    """Write a catalog that names the model; return its path and the entry."""
    path = folder / "small.toml"
    path.write_text(_CATALOG)
    return path, load_catalog(path).find(ModelKind.CLIP, NAME)


def on_both_hubs(web: Web, data: bytes) -> dict[str, str]:
    """Put the checkpoint on both hubs of ``web``; return the settings that lead there."""
    web.add_repository(HUGGINGFACE, {FILE: data})
    web.add_modelscope(MODELSCOPE, {FILE: data})
    return {"hf_endpoint": web.url, "modelscope_endpoint": f"{web.url}/ms"}


@dataclass
class FakeConversion:
    """Stands for ``run_conversion``: counts calls, reads the checkpoint, copies a model that was converted before."""

    model: Path
    digests: list[str] = field(default_factory=list)
    """Of the checkpoints."""
    during: Callable[[], None] = lambda: None

    def __call__(
        self, checkpoint: Path, folder: Path, vocabulary: Path, entry: ModelEntry, report: Callable[[str, float], None]
    ) -> tuple[float, float]:
        self.digests.append(hashlib.sha256(checkpoint.read_bytes()).hexdigest())
        assert vocabulary.stat().st_size == 109540
        report("Writing the image half, fp32", 0.25)
        self.during()
        shutil.copytree(self.model, folder)
        return 1.0, 1.0


MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallClip:
    return make_small_clip(tmp_path_factory.mktemp("small"))


@pytest.fixture
def entry(tmp_path: Path) -> ModelEntry:
    return write_catalog(tmp_path)[1]


@pytest.fixture
def made_of_words(tmp_path: Path, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch) -> FakeConversion:
    """Replace the conversion by one that reads nothing of the checkpoint, and whose files hold their own names."""
    write_files(tmp_path / "words", [file.name for file in entry.files])
    fake = FakeConversion(tmp_path / "words")
    monkeypatch.setattr(checkpoint_module, "run_conversion", fake)
    return fake
