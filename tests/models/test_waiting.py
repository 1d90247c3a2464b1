"""A model that no hub gives is told as one that waits: for which hubs, since when, and when they are asked again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry
from models.download import download_lock
from models.progress import Progress, Reporter, note_retry, on_its_way
from models.resolve import resolve
from settings import Settings
from tests.models.commands import runner
from tests.models.conftest import QUICK
from tests.models.small_clip import FakeConversion, MakeSettings, entry, made_of_words, on_both_hubs
from tools.harness.fake_hub import Web

__all__ = ["entry", "made_of_words"]


def _fail(entry: ModelEntry, settings: Settings) -> None:
    with pytest.raises(ModelUnavailable):
        resolve(entry, settings, limits=QUICK)


def _waiting(entry: ModelEntry, settings: Settings) -> Progress | None:
    return on_its_way(entry.task, entry.name, settings)


def _note(entry: ModelEntry, settings: Settings, pause: float = 30) -> float | None:
    return note_retry(entry.task, entry.name, settings, time.time() + pause)


def _as_another_process(entry: ModelEntry, settings: Settings) -> None:
    """Have the record say that another process of this service was the first to ask."""
    file = settings.cache_folder / f".progress/clip--{entry.name}.json"
    document = json.loads(file.read_text())
    assert document["teller"] == os.getpid()
    file.write_text(json.dumps({**document, "teller": 1}))


def test_a_model_that_no_hub_gives_waits_until_hubs_are_asked_again(
    make_settings: MakeSettings, entry: ModelEntry
) -> None:
    settings = make_settings()
    _fail(entry, settings)
    assert _waiting(entry, settings) is None, "nobody has said that he will ask again"
    assert _note(entry, settings) is None, "the first to ask tells why"
    progress = _waiting(entry, settings)
    assert progress is not None
    assert progress.percent is None
    begin, end = (time.strftime("%H:%M:%S", time.localtime(at)) for at in (progress.since, progress.again))
    hubs = "(Hugging Face, ModelScope)"
    assert str(progress) == (
        f"small-clip (clip): waiting for a hub that gives it since {begin} {hubs}, asked again at {end}"
    )
    folder = settings.cache_folder / "clip" / entry.name
    with download_lock(folder), Reporter(entry, settings, folder):
        asking = _waiting(entry, settings)
    assert str(asking) == f"small-clip (clip): waiting for a hub that gives it since {begin} {hubs}, being asked again"
    assert _note(entry, settings, pause=-60) is None
    assert _waiting(entry, settings) is None, "whoever was to ask again has gone"


def test_why_is_told_once_by_all_processes_of_a_service(make_settings: MakeSettings, entry: ModelEntry) -> None:
    settings = make_settings()
    _fail(entry, settings)
    _as_another_process(entry, settings)
    since = _note(entry, settings)
    assert since is not None
    _fail(entry, settings)
    assert _note(entry, settings) == since


def test_why_is_told_once_by_a_process_of_two_tasks(make_settings: MakeSettings, entry: ModelEntry) -> None:
    settings = make_settings()
    _fail(entry, settings)
    assert _note(entry, settings) is None
    since = _note(entry, settings)
    assert since is not None
    _fail(entry, settings)
    assert _note(entry, settings) == since


def test_what_an_earlier_start_waited_for_is_told_anew(
    make_settings: MakeSettings, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    _fail(entry, settings)
    _as_another_process(entry, settings)
    monkeypatch.setattr("psutil.Process.create_time", lambda _: time.time())
    _fail(entry, settings)
    assert _note(entry, settings) is None


def test_offline_nobody_waits_for_a_hub_and_each_process_tells_why(
    make_settings: MakeSettings, entry: ModelEntry
) -> None:
    settings, offline = make_settings(), make_settings(offline=True)
    _fail(entry, settings)
    _note(entry, settings)
    _as_another_process(entry, settings)
    assert _waiting(entry, settings) is not None
    _fail(entry, offline)
    assert _note(entry, offline) is None
    assert _waiting(entry, offline) is None


def test_the_note_of_an_earlier_start_is_not_taken_where_no_hub_was_asked_since(
    make_settings: MakeSettings, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    _fail(entry, settings)
    _as_another_process(entry, settings)
    monkeypatch.setattr("psutil.Process.create_time", lambda _: time.time())
    assert _note(entry, settings) is None


def test_a_hub_that_gives_it_after_all_ends_the_wait(
    web: Web, make_settings: MakeSettings, entry: ModelEntry, made_of_words: FakeConversion
) -> None:
    _fail(entry, make_settings())
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")
    resolve(entry, settings, limits=QUICK)
    assert _waiting(entry, settings) is None
    assert _note(entry, settings) is None
    assert not list((settings.cache_folder / ".progress").iterdir())


def test_what_fails_otherwise_waits_for_no_hub(
    web: Web, make_settings: MakeSettings, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.capacity.usable_memory", lambda: 10**6)
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub="huggingface")
    _fail(entry, settings)
    assert _note(entry, settings) is None
    assert _waiting(entry, settings) is None


def test_list_says_what_waits(
    make_settings: MakeSettings,
    entry: ModelEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("MODEL_CATALOG", str(tmp_path / "small.toml"))
    run, settings = runner(capsys), make_settings()
    folder = tmp_path / "folder"

    def line() -> str:
        return next(line for line in run("list").out.splitlines() if line.startswith("small-clip "))

    with download_lock(folder), Reporter(entry, settings, folder) as reporter:
        reporter.expect(1000)
        reporter._tell()
        assert "asking hubs" in line()
        assert "%" not in line()
    _fail(entry, settings)
    _note(entry, settings)
    assert "waiting for a hub" in line()
    told = next(model for model in json.loads(run("list", "--json").out) if model["name"] == "small-clip")
    assert told["on_its_way"]["state"] == "waiting"
    assert told["on_its_way"]["again"] > told["on_its_way"]["since"] > 0
