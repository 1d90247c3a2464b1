"""Folders, pipes and links where a file is expected are passed by or refused in a sentence, and never waited for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry
from models.convert.checkpoint import read_checkpoint
from models.convert.refusal import ConversionRefused
from models.lookup import Lookup
from models.places import cache_folder
from models.pull import pull
from models.resolve import resolve
from tests.models.conftest import QUICK
from tests.models.small_clip import FILE, FakeConversion, MakeSettings, entry, made_of_words, on_both_hubs
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]


def test_a_folder_and_a_pipe_called_like_the_checkpoint_are_passed_by(
    make_settings: MakeSettings, entry: ModelEntry, made_of_words: FakeConversion, tmp_path: Path
) -> None:
    carried = tmp_path / "carried"
    (carried / "a" / FILE).mkdir(parents=True)
    (carried / "b").mkdir()
    os.mkfifo(carried / "b" / FILE)
    with pytest.raises(ModelUnavailable):
        pull(entry, make_settings(), carried=carried)
    (carried / "c").mkdir()
    (carried / "c" / FILE).write_bytes(b"checkpoint")
    assert pull(entry, make_settings(), carried=carried).how == "stored"
    assert len(made_of_words.digests) == 1


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip_cn.pt")
    with pytest.raises(ConversionRefused, match=r"clip_cn\.pt is neither a file nor a folder"):
        read_checkpoint(tmp_path / "clip_cn.pt")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ConversionRefused, match=r"holds none of model\.safetensors"):
        read_checkpoint(tmp_path)


def test_nothing_is_made_through_a_link(
    web: Web, make_settings: MakeSettings, entry: ModelEntry, made_of_words: FakeConversion, tmp_path: Path
) -> None:
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100))
    work = cache_folder(entry, settings) / ".checkpoint"
    (tmp_path / "large").mkdir()
    work.parent.mkdir(parents=True)
    work.symlink_to(tmp_path / "large")
    with pytest.raises(ModelUnavailable, match=r"\.checkpoint is a link to .*/large; .* Remove the link"):
        resolve(entry, settings, limits=QUICK)
    assert not list((tmp_path / "large").iterdir())
    work.unlink()
    resolve(entry, settings, limits=QUICK)
    shutil.rmtree(tmp_path / "large")


def test_a_reason_is_told_within_bounds(make_settings: MakeSettings, entry: ModelEntry) -> None:
    lookup = Lookup(entry, make_settings())
    lookup.note_cause("the checkpoint", "x" * 3_000_000, "x" * 3_000_000)
    with pytest.raises(ModelUnavailable) as caught:
        lookup.give_up()
    assert len(str(caught.value)) < 2500
    assert len(caught.value.message) <= 300


def test_a_link_out_of_a_folder_that_was_carried_here_leads_to_no_checkpoint(
    make_settings: MakeSettings, entry: ModelEntry, made_of_words: FakeConversion, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere.pt").write_bytes(b"of another person")
    carried = tmp_path / "carried"
    (carried / "a").mkdir(parents=True)
    (carried / "a" / FILE).symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(ModelUnavailable, match=rf"{FILE} is a link that leads out of .*/carried"):
        pull(entry, make_settings(), carried=carried)
    assert made_of_words.digests == []
    (carried / "b").mkdir()
    (carried / "b" / FILE).symlink_to(carried / "c.pt")
    (carried / "c.pt").write_bytes(b"checkpoint")
    assert pull(entry, make_settings(), carried=carried).how == "stored"
