"""Whatever has the name that a file or folder of ours is to get is moved or removed, never followed nor waited for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models import store
from models.catalog import ModelEntry
from models.digest import Digest
from models.download import is_locked, partial_of
from models.durable import clear_path
from models.places import cache_folder
from models.progress import on_its_way
from models.pull import pull
from models.resolve import resolve
from models.succession import record, succeeded
from settings import Settings
from tests.models.conftest import QUICK
from tests.models.small_clip import FILE, MakeSettings, entry, made_of_words, on_both_hubs
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]

pytestmark = pytest.mark.usefixtures("made_of_words")

Block = Callable[[Path], None]


@pytest.fixture
def settings(web: Web, make_settings: MakeSettings) -> Settings:
    return make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")


def _file(path: Path) -> None:
    path.write_text("in the way")


def _folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep/file").write_text("in the way")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("of the user's")
    path.symlink_to(elsewhere)


def _block(path: Path, block: Block) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_path(path)
    block(path)


def _assert_made(entry: ModelEntry, settings: Settings) -> None:
    found = resolve(entry, settings, limits=QUICK)
    assert {name: path.read_text() for name, path in found.items()} == {file.name: file.name for file in entry.files}
    resolve(entry, settings.model_copy(update={"offline": True}))


@pytest.mark.parametrize("block", [_file, _folder, _pipe, _link])
@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        ".manifest.json",
        ".verified.json",
        ".checkpoint/model",
        f".checkpoint/{FILE}",
        "visual/model.onnx",
        "../../.progress/clip--small-clip.json",
    ],
)
def test_what_has_the_name_of_a_file_is_no_hindrance(
    entry: ModelEntry, settings: Settings, name: str, block: Block
) -> None:
    _block(cache_folder(entry, settings) / name, block)
    _assert_made(entry, settings)
    for precious in settings.cache_folder.rglob("precious"):
        assert precious.read_text() == "of the user's"


@pytest.mark.parametrize("block", [_file, _pipe])
@pytest.mark.parametrize("name", [".checkpoint", "visual", "../../.progress"])
def test_what_has_the_name_of_a_folder_is_no_hindrance(
    entry: ModelEntry, settings: Settings, name: str, block: Block
) -> None:
    _block(cache_folder(entry, settings) / name, block)
    _assert_made(entry, settings)
    assert (cache_folder(entry, settings) / "visual.rejected").exists() == (name == "visual")


@pytest.mark.parametrize("block", [_folder, _pipe, _link])
def test_a_file_that_was_rejected_before_is_replaced_by_the_one_that_is_now(
    entry: ModelEntry, settings: Settings, block: Block
) -> None:
    folder = cache_folder(entry, settings)
    rejected = folder / "visual/model.onnx.rejected"
    _block(rejected, block)
    (folder / "visual/model.onnx").write_text("damaged")
    _assert_made(entry, settings)
    assert rejected.read_text() == "damaged"
    (folder / "visual/model.onnx").unlink()
    _assert_made(entry, settings)
    assert not rejected.exists()


@pytest.mark.parametrize("block", [_folder, _pipe, _link])
def test_what_has_the_name_of_an_unfinished_download_is_no_hindrance(
    entry: ModelEntry, settings: Settings, block: Block
) -> None:
    digest = Digest("sha256", hashlib.sha256(b"checkpoint" * 100).hexdigest())
    _block(partial_of(cache_folder(entry, settings) / ".checkpoint" / FILE, digest), block)
    _assert_made(entry, settings)


@pytest.mark.parametrize("block", [_folder, _pipe, _link])
def test_a_pull_is_not_hindered(entry: ModelEntry, settings: Settings, block: Block) -> None:
    _block(store.staging_folder() / "small-clip.lock", block)
    assert pull(entry, settings, limits=QUICK).how == "stored"
    clear_path(store.staging_folder() / "elsewhere")
    _block(store.staging_folder() / "small-clip", block)
    assert pull(entry, settings, limits=QUICK).how == "already stored"


def test_a_pipe_is_not_read(entry: ModelEntry, settings: Settings) -> None:
    _block(cache_folder(entry, settings) / ".lock", _pipe)
    assert not is_locked(cache_folder(entry, settings))
    _block(settings.cache_folder / ".progress/clip--small-clip.json", _pipe)
    assert on_its_way(entry.task, entry.name, settings) is None
    _block(settings.cache_folder / "clip-model", _pipe)
    assert succeeded(settings) is None
    record(entry, settings)
    assert succeeded(settings) == entry.name


@pytest.mark.parametrize("text", ["[" * 200_000, '{"files": ' * 200_000, "", "[1]", '{"files": 1}'])
def test_a_record_that_nests_too_deep_or_holds_nothing_is_as_good_as_none(
    entry: ModelEntry, settings: Settings, text: str
) -> None:
    _assert_made(entry, settings)
    (cache_folder(entry, settings) / ".verified.json").write_text(text)
    _assert_made(entry, settings)
    told = settings.cache_folder / ".progress/clip--small-clip.json"
    told.write_text(text)
    assert on_its_way(entry.task, entry.name, settings) is None
    (cache_folder(entry, settings) / "visual/model.onnx").unlink()
    _assert_made(entry, settings)
