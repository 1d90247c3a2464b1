"""After a power cut no file passes for whole that is not: bytes are on the disk before names and records are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models import store
from models.catalog import ModelEntry
from models.convert import convert, installed_vocabulary
from models.digest import digest_of
from models.durable import write_json
from models.manifest import Manifest, write_manifest
from models.places import cache_folder
from models.resolve import resolve
from tests.models.conftest import QUICK, write_files
from tests.models.small_clip import (
    FakeConversion,
    MakeSettings,
    SmallClip,
    entry,
    made_of_words,
    on_both_hubs,
    small,
)
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words", "small"]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is synced and renamed, a list that grows as it happens: "sync a.onnx", "rename to a.onnx"."""
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def syncing(handle: int) -> None:
        happened.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def replacing(source: Path, target: Path) -> None:
        happened.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    return happened


def test_a_conversion_gets_its_name_when_its_files_are_on_the_disk(
    tmp_path: Path, small: SmallClip, events: list[str]
) -> None:
    folder = tmp_path / "model"
    convert(small.checkpoint, folder, vocabulary=installed_vocabulary())
    names = [path.name for path in folder.rglob("*")]
    assert {f"sync {name}" for name in names} <= set(events[: events.index("rename to model")])
    assert events[-1] == f"sync {tmp_path.name}"


def test_a_stored_model_gets_its_name_when_its_files_are_on_the_disk(
    tmp_path: Path, entry: ModelEntry, events: list[str]
) -> None:
    names = ["visual/model.onnx", "config.json"]
    write_files(tmp_path / "new", names)
    folder = store.save(entry, {name: tmp_path / "new" / name for name in names}, {})
    before = set(events[: events.index(f"rename to {folder.name}")])
    assert {"sync model.onnx", "sync config.json", "sync model.yaml", "sync visual"} <= before


def test_a_record_gets_its_name_when_it_is_on_the_disk(tmp_path: Path, events: list[str]) -> None:
    write_json(tmp_path / "record", {"a": 1}, sync=True)
    assert [event.partition(".")[0] for event in events] == [
        "sync record", "rename to record", f"sync {tmp_path.name}",
    ]  # fmt: skip


def _leave(model: Path, entry: ModelEntry) -> None:
    """Leave what a process that was killed before it renamed anything does."""
    names = [file.name for file in entry.files]
    write_files(model, names)
    files = {name: (digest_of(model / name, "sha256"), len(name)) for name in names}
    write_manifest(model, Manifest("a/b", "0" * 64, files))


def _whole(model: Path) -> None:
    pass


def _emptied(model: Path) -> None:
    os.truncate(model / "visual/model.onnx", 0)


def _zeroed(model: Path) -> None:
    (model / "visual/model.onnx").write_bytes(bytes(len("visual/model.onnx")))


def _lost(model: Path) -> None:
    (model / "visual/model.onnx").unlink()


def _without_record(model: Path) -> None:
    (model / ".manifest.json").write_bytes(b"")


@pytest.mark.parametrize(
    ("cut", "conversions"), [(_whole, 0), (_emptied, 1), (_zeroed, 1), (_lost, 1), (_without_record, 1)]
)
def test_what_a_power_cut_left_of_a_conversion_is_read_before_it_is_taken(
    web: Web,
    make_settings: MakeSettings,
    entry: ModelEntry,
    made_of_words: FakeConversion,
    cut: Callable[[Path], None],
    conversions: int,
) -> None:
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")
    model = cache_folder(entry, settings) / ".checkpoint/model"
    _leave(model, entry)
    cut(model)
    found = resolve(entry, settings, limits=QUICK)
    assert {name: path.read_text() for name, path in found.items()} == {file.name: file.name for file in entry.files}
    assert len(made_of_words.digests) == conversions
    assert not model.exists()
