"""What an earlier process made of a checkpoint gets its place only with its own bytes, and leaves right files alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.catalog import ModelEntry
from models.digest import digest_of
from models.manifest import read_manifest
from models.places import cache_folder
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK
from tests.models.small_clip import FakeConversion, MakeSettings, entry, made_of_words, on_both_hubs
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]


@pytest.fixture
def settings(web: Web, make_settings: MakeSettings) -> Settings:
    return make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")


def _assert_right(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    assert "visual/model.onnx" in manifest.files
    for name, (digest, _) in manifest.files.items():
        assert digest_of(folder / name, "sha256") == digest, name


def test_a_damaged_file_that_was_made_before_does_not_replace_a_right_one(
    entry: ModelEntry, settings: Settings, made_of_words: FakeConversion
) -> None:
    resolve(entry, settings, limits=QUICK)
    folder = cache_folder(entry, settings)
    model = folder / ".checkpoint/model"
    for name in ("visual", "textual", "config.json", ".manifest.json"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copyfile)(folder / name, _below(model, name))
    (model / "visual/model.onnx").write_text("visual/model.onnX")
    (folder / "textual/model.onnx").write_bytes(b"")
    resolve(entry, settings, limits=QUICK)
    _assert_right(folder)
    assert len(made_of_words.digests) == 1
    resolve(entry, settings.model_copy(update={"offline": True}))


def test_only_the_damaged_file_is_replaced_and_named(
    entry: ModelEntry, settings: Settings, made_of_words: FakeConversion, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(entry, settings, limits=QUICK)
    folder = cache_folder(entry, settings)
    kept = (folder / "visual/model.onnx").stat().st_ino
    (folder / "textual/model.onnx").write_bytes(b"damaged")
    caplog.clear()
    resolve(entry, settings, limits=QUICK)
    _assert_right(folder)
    assert (folder / "visual/model.onnx").stat().st_ino == kept
    assert [path.name for path in folder.rglob("*.rejected")] == ["model.onnx.rejected"]
    (told,) = (record.getMessage() for record in caplog.records if "is not the file that it should be" in record.msg)
    assert "textual/model.onnx" in told


def _below(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
