"""A hub whose checkpoint is what its list says, and yet none that can be converted, is followed by the other one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models import checkpoint as checkpoint_module
from models.catalog import ModelEntry
from models.conversion import CheckpointRefused
from models.places import cache_folder
from models.resolve import resolve
from tests.models.conftest import QUICK
from tests.models.small_clip import (
    FILE,
    HUGGINGFACE,
    HUGGINGFACE_FILE,
    MODELSCOPE,
    MODELSCOPE_FILE,
    FakeConversion,
    MakeSettings,
    entry,
    made_of_words,
    on_both_hubs,
)
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]

GARBAGE, RIGHT = b"garbage" * 100, b"checkpoint" * 100


@pytest.fixture(autouse=True)
def _refusing(made_of_words: FakeConversion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse what begins like garbage."""

    def convert(checkpoint: Path, *others: object) -> tuple[float, float]:
        if checkpoint.read_bytes().startswith(b"garbage"):
            raise CheckpointRefused(f"{checkpoint} is no checkpoint.")
        return made_of_words(checkpoint, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint_module, "run_conversion", convert)


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_the_other_hub_is_asked_and_it_is_said(
    web: Web, make_settings: MakeSettings, entry: ModelEntry, caplog: pytest.LogCaptureFixture, hub: str
) -> None:
    settings = make_settings(**on_both_hubs(web, RIGHT), model_hub=hub)
    if hub == "huggingface":
        web.add_repository(HUGGINGFACE, {FILE: GARBAGE})
    else:
        web.add_modelscope(MODELSCOPE, {FILE: GARBAGE})
    caplog.set_level(logging.WARNING)
    resolve(entry, settings, limits=QUICK)
    assert "is no checkpoint. It came from http://" in caplog.text
    assert "MODEL_HUB names the hub to ask first" in caplog.text
    assert not list(cache_folder(entry, settings).rglob("*.pt*"))
    assert len(web.gets(HUGGINGFACE_FILE)) == len(web.gets(MODELSCOPE_FILE)) == 1


def test_the_same_garbage_is_fetched_once_and_named(web: Web, make_settings: MakeSettings, entry: ModelEntry) -> None:
    settings = make_settings(**on_both_hubs(web, GARBAGE), model_hub="huggingface")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="MODEL_HUB names") as caught:
            resolve(entry, settings, limits=QUICK)
        assert "is no checkpoint" in caught.value.message
    assert len(web.gets(HUGGINGFACE_FILE)) == 1
    assert not web.gets(MODELSCOPE_FILE)


def test_a_hub_that_cannot_be_asked_is_asked_at_the_next_start(
    web: Web, make_settings: MakeSettings, entry: ModelEntry
) -> None:
    settings = make_settings(**on_both_hubs(web, GARBAGE), model_hub="huggingface")
    web.add_modelscope(MODELSCOPE, {FILE: RIGHT})
    nowhere = settings.model_copy(update={"modelscope_endpoint": "http://127.0.0.1:9/ms"})
    with pytest.raises(ModelUnavailable, match="is no checkpoint"):
        resolve(entry, nowhere, limits=QUICK)
    resolve(entry, settings, limits=QUICK)
    assert len(web.gets(HUGGINGFACE_FILE)) == len(web.gets(MODELSCOPE_FILE)) == 1
