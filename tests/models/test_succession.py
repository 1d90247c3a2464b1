"""What is said when another CLIP model answers than at the last start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.catalog import Catalog, ModelEntry, ModelKind, load_catalog
from models.command import main
from models.succession import record, succeeded, succession
from settings import Settings


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, cache_folder=tmp_path / "cache")


def clip(catalog: Catalog, name: str, milliseconds: int | None = 360) -> ModelEntry:
    return replace(catalog.find(ModelKind.CLIP, name), milliseconds=milliseconds)


def test_at_the_first_start_nothing_is_said(catalog: Catalog, settings: Settings) -> None:
    assert succeeded(settings) is None
    assert succession(clip(catalog, "ViT-B-16"), catalog, settings) is None


def test_the_same_model_is_no_change(catalog: Catalog, settings: Settings) -> None:
    record(clip(catalog, "ViT-B-16"), settings)
    assert succeeded(settings) == "ViT-B-16"
    assert succession(clip(catalog, "ViT-B-16"), catalog, settings) is None


def test_a_change_says_what_is_to_be_done_again_how_long_it_takes_and_the_way_back(
    catalog: Catalog, settings: Settings
) -> None:
    record(clip(catalog, "ViT-B-16"), settings)
    told = succession(clip(catalog, "ViT-L-14"), catalog, settings)
    assert told is not None
    assert told.startswith("ViT-L-14 in place of ViT-B-16: ")
    assert "choose a CLIP model of 768 numbers, then run Smart Search → All" in told
    assert "about 60 minutes for 10,000 pictures" in told
    assert "start with CLIP_MODEL=ViT-B-16 before" in told
    record(clip(catalog, "ViT-L-14"), settings)
    assert succession(clip(catalog, "ViT-L-14"), catalog, settings) is None


def test_a_model_of_the_same_size_needs_no_other_choice_in_immich(catalog: Catalog, settings: Settings) -> None:
    record(clip(catalog, "ViT-L-14"), settings)
    told = succession(clip(catalog, "ViT-L-14-336", 1080), catalog, settings)
    assert told is not None
    assert "In Immich run Smart Search → All" in told
    assert "about 3.0 hours for 10,000 pictures" in told


def test_immichs_own_choice_is_told_too_and_a_duration_only_where_it_was_measured(
    catalog: Catalog, settings: Settings
) -> None:
    record(None, settings)
    told = succession(clip(catalog, "ViT-B-16", None), catalog, settings)
    assert told is not None
    assert told.startswith("ViT-B-16 in place of whatever Immich names: ")
    assert "Two cores" not in told
    assert "start with CLIP_MODEL unset" in told
    record(clip(catalog, "ViT-B-16"), settings)
    told = succession(None, catalog, settings)
    assert told is not None
    assert told.startswith("whatever Immich names in place of ViT-B-16: ")


def test_a_cache_folder_that_cannot_be_written_is_said(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    record(clip(catalog, "ViT-B-16"), Settings(_env_file=None, cache_folder=tmp_path / "file/cache"))
    assert "the next change of CLIP_MODEL will not be told" in caplog.text


def test_pull_says_before_the_setting_is_changed_what_it_will_mean(
    catalog: Catalog, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(clip(catalog, "ViT-B-16"), settings)
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(settings.cache_folder))
    assert main(["pull", "tiny"]) == 0
    assert "CLIP_MODEL=cn-clip-tiny will mean: cn-clip-tiny in place of ViT-B-16: " in capsys.readouterr().out
    record(catalog.find(ModelKind.CLIP, "tiny"), settings)
    assert main(["pull", "tiny"]) == 0
    assert "will mean" not in capsys.readouterr().out
