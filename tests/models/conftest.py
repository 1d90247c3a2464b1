"""Models whose files lie on a hub on loopback, and settings that lead there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import digest
from models.catalog import ModelEntry, ModelKind, load_catalog
from models.transfer import Limits
from settings import Settings
from tools.harness.fake_hub import Web, fake_hub

QUICK = Limits(
    connect=1.0, answer=5.0, read=0.4, body=30.0, attempts=3, backoff=0.01, unreachable=1.0, longest_wait=0.2
)
"""The ordinary limits, a hundred times as short; but for an answer: a busy machine may stop a server for a second."""


NOWHERE = {"hf_endpoint": "http://127.0.0.1:9", "modelscope_endpoint": "http://127.0.0.1:9/ms"}
"""Settings that lead to no hub."""


@pytest.fixture
def web() -> Iterator[Web]:
    with fake_hub() as served:
        yield served


@pytest.fixture(autouse=True)
def _own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide proxies between the tests and loopback, and the developer's BentoML store."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9/ms")


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(**{"cache_folder": tmp_path / "cache", **NOWHERE, **changes})

    return make


@pytest.fixture
def make_entry(tmp_path: Path) -> Callable[..., ModelEntry]:
    """Return a face model of the user's whose two files come from plain URLs."""

    def make(web: Web, detection: bytes, recognition: bytes = b"recognition", *, sizes: bool = True) -> ModelEntry:
        lines = []
        for part, data in (("detection", detection), ("recognition", recognition)):
            web.files.setdefault(f"/{part}.onnx", data)
            size = f", bytes = {len(data)}" if sizes else ""
            digest = hashlib.sha256(data).hexdigest()
            lines.append(f'"{part}/model.onnx" = {{ url = "{web.url}/{part}.onnx", sha256 = "{digest}"{size} }}')
        path = tmp_path / "own.toml"
        head = '[[models]]\nname = "own-faces"\nfamily = "insightface"\nembedding_size = 512\nadvice = "For tests."\n'
        head += "[models.files]\n"
        path.write_text(head + "\n".join(lines))
        return load_catalog(path).find(ModelKind.FACES, "own-faces")

    return make


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read to be checked, a list that grows as it happens."""
    read: list[str] = []
    original = digest.digest_of

    def counting(path: Path, algorithm: str) -> digest.Digest:
        read.append(path.name)
        return original(path, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(digest, "digest_of", counting)
    return read


def write_files(folder: Path, names: list[str]) -> None:
    """Write small files of these names below ``folder``."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
