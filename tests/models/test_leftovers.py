"""What a process left that was killed when its model was whole takes no room for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import store
from models.catalog import ModelEntry
from models.download import download_lock
from models.places import cache_folder
from models.pull import pull
from models.resolve import resolve
from settings import Settings
from tests.models.conftest import QUICK
from tests.models.small_clip import FILE, FakeConversion, MakeSettings, entry, made_of_words, on_both_hubs
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]


@pytest.fixture
def settings(web: Web, make_settings: MakeSettings) -> Settings:
    return make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")


@pytest.fixture
def left(entry: ModelEntry, settings: Settings, made_of_words: FakeConversion) -> Path:
    """Return the checkpoint that stays where a process is killed after the last file of the model got its name."""
    resolve(entry, settings.model_copy(update={"keep_checkpoints": True}), limits=QUICK)
    path = cache_folder(entry, settings) / ".checkpoint" / FILE
    assert path.is_file()
    return path


def test_the_next_start_removes_the_checkpoint_unless_it_is_to_be_kept(
    entry: ModelEntry, settings: Settings, left: Path
) -> None:
    resolve(entry, settings.model_copy(update={"keep_checkpoints": True}), "visual")
    assert left.exists()
    resolve(entry, settings.model_copy(update={"offline": True}), "visual")
    assert not left.parent.exists()


def test_a_checkpoint_of_which_a_part_can_still_be_made_stays(
    web: Web, entry: ModelEntry, settings: Settings, left: Path
) -> None:
    (cache_folder(entry, settings) / "textual/model.onnx").unlink()
    resolve(entry, settings, "visual")
    assert left.exists()
    asked = len(web.gets(f"/OFA-Sys/small/resolve/main/{FILE}"))
    resolve(entry, settings, "textual", limits=QUICK)
    assert len(web.gets(f"/OFA-Sys/small/resolve/main/{FILE}")) == asked
    assert not left.exists()


def test_a_start_does_not_wait_for_a_process_at_work_to_remove_anything(
    entry: ModelEntry, settings: Settings, left: Path
) -> None:
    with download_lock(cache_folder(entry, settings)):
        resolve(entry, settings, "visual")
    assert left.exists()


def test_a_pull_removes_what_an_earlier_one_left_when_it_had_stored_the_model(
    entry: ModelEntry, settings: Settings, made_of_words: FakeConversion
) -> None:
    pull(entry, settings, limits=QUICK)
    left = store.staging_folder() / store.store_name(entry.name) / ".checkpoint" / FILE
    left.parent.mkdir(parents=True)
    left.write_bytes(b"checkpoint")
    assert pull(entry, settings, limits=QUICK).how == "already stored"
    assert not left.exists()
