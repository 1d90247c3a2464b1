"""How far a model is, as the log and other processes are told."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models import progress as progress_module
from models.catalog import ModelEntry, ModelKind
from models.download import download_lock
from models.progress import Progress, Reporter, on_its_way
from models.resolve import resolve
from settings import Settings
from tests.models.commands import runner
from tests.models.conftest import QUICK
from tools.harness.fake_hub import Fault, Web

MakeSettings = Callable[..., Settings]
MakeEntry = Callable[..., ModelEntry]

DOWNLOADING = Progress(
    ModelKind.CLIP, "ViT-B-16", "downloading", "a.pt", bytes=213_000_000, total=754_000_000, rate=12.3e6
)


@pytest.fixture
def face_model(web: Web, make_entry: MakeEntry) -> ModelEntry:
    return make_entry(web, b"detection" * 1000)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything told at once."""
    monkeypatch.setattr(progress_module, "LOG_EVERY", 0.02)
    monkeypatch.setattr(progress_module, "_WRITE_EVERY", 0.01)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (DOWNLOADING, "ViT-B-16 (clip): downloading a.pt, 213 of 754 MB (28 %), 12.3 MB/s, 43 s left"),
        (
            Progress(ModelKind.OCR, "x", "asking", "Hugging Face", total=100),
            "x (ocr): asking Hugging Face where it can be had",
        ),
        (
            Progress(ModelKind.OCR, "x", "downloading", "m", bytes=1_000_000, total=None, rate=0.0),
            "x (ocr): downloading m, 1 MB, 0.0 MB/s",
        ),
        (
            Progress(ModelKind.CLIP, "x", "downloading", "m", bytes=0, total=3_600_000_000, rate=5e5),
            "x (clip): downloading m, 0 of 3600 MB (0 %), 0.5 MB/s, 2 h 0 min left",
        ),
        (
            Progress(ModelKind.CLIP, "x", "converting", "writing the text half, fp32 (step 3 of 5)", share=0.35),
            "x (clip): converting, writing the text half, fp32 (step 3 of 5)",
        ),
        (
            Progress(ModelKind.CLIP, "x", "checking", "checking the image half (step 4 of 5)", share=0.6),
            "x (clip): checking the image half (step 4 of 5)",
        ),
        (
            Progress(ModelKind.CLIP, "x", "checking", "clip_cn_vit-b-16.pt", bytes=100, total=100),
            "x (clip): checking clip_cn_vit-b-16.pt",
        ),
    ],
)
def test_a_line_says_how_much_is_done_how_fast_and_what_is_left(progress: Progress, line: str) -> None:
    assert str(progress) == line


@pytest.mark.usefixtures("impatient")
def test_what_a_reporter_is_told_others_read(
    face_model: ModelEntry, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, folder = make_settings(), tmp_path / "cache/facial-recognition/own-faces"
    assert on_its_way(ModelKind.FACES, "own-faces", settings) is None
    told: list[Progress] = []

    def read() -> Progress:
        deadline = time.monotonic() + 30
        before = len(told)
        while len(told) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        progress = on_its_way(ModelKind.FACES, "own-faces", settings)
        assert progress is not None
        return progress

    with download_lock(folder), Reporter(face_model, settings, folder, told.append) as reporter:
        reporter.expect(3000)
        reporter.received(Path("a.onnx"), 500, 1000)
        reporter.received(Path("a.onnx"), 900, 1000)
        progress = read()
        assert (progress.state, progress.step, progress.bytes, progress.percent) == ("downloading", "a.onnx", 900, 30)
        reporter.received(Path("a.onnx"), 1000, 1000)
        assert read().state == "checking"
        reporter.received(Path("b.onnx"), 100, 2000)
        assert read().bytes == 1100
        reporter.converts("Writing the image half, fp32", 0.05)
        progress = read()
        assert (progress.state, progress.step, progress.percent) == ("converting", "writing the image half, fp32", 5)
    assert on_its_way(ModelKind.FACES, "own-faces", settings) is None


def test_bytes_that_were_here_before_do_not_count_as_speed(
    face_model: ModelEntry, make_settings: MakeSettings, tmp_path: Path
) -> None:
    reporter = Reporter(face_model, make_settings(), tmp_path)
    reporter.received(Path("a.onnx"), 10**9, 2 * 10**9)
    assert [reporter._tell().rate for _ in range(3)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task": "clip", "folder": "/", "name": "x", "more": 1}'])
def test_a_damaged_file_is_as_good_as_none(make_settings: MakeSettings, text: str) -> None:
    settings = make_settings()
    file = settings.cache_folder / ".progress/clip--x.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert on_its_way(ModelKind.CLIP, "x", settings) is None


def test_a_file_whose_writer_has_ended_is_not_believed(
    face_model: ModelEntry, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings()
    Reporter(face_model, settings, tmp_path / "folder")._tell()
    assert json.loads((settings.cache_folder / ".progress/facial-recognition--own-faces.json").read_text())
    assert on_its_way(ModelKind.FACES, "own-faces", settings) is None
    with download_lock(tmp_path / "folder"):
        assert on_its_way(ModelKind.FACES, "own-faces", settings) is not None


@pytest.mark.usefixtures("impatient")
def test_the_log_tells_of_a_download_while_it_lasts(
    web: Web, face_model: ModelEntry, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models")
    web.faults["/detection.onnx"] = [Fault(stall_after=4500)]
    resolve(face_model, make_settings(), "detection", limits=QUICK)
    assert "own-faces (facial-recognition): downloading model.onnx, 0 of 0 MB (50 %)" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_list_shows_what_is_on_its_way(
    face_model: ModelEntry,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("MODEL_CATALOG", str(tmp_path / "own.toml"))
    run, folder = runner(capsys), tmp_path / "folder"
    with download_lock(folder), Reporter(face_model, make_settings(), folder) as reporter:
        reporter.expect(1000)
        reporter.received(Path("model.onnx"), 280, 1000)
        reporter._tell()
        line = next(line for line in run("list").out.splitlines() if line.startswith("own-faces "))
        assert "downloading 28 %" in line
        models = {model["name"]: model for model in json.loads(run("list", "--json").out)}
        assert models["own-faces"]["on_its_way"]["percent"] == 28
        assert models["buffalo_l"]["on_its_way"] is None


@pytest.mark.usefixtures("impatient")
def test_pull_on_a_terminal_writes_one_line_over_and_over(
    web: Web,
    face_model: ModelEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("MODEL_CATALOG", str(tmp_path / "own.toml"))
    monkeypatch.setattr("models.resolve.Limits", lambda: QUICK)
    run = runner(capsys)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    web.faults["/detection.onnx"] = [Fault(stall_after=4500)]
    ran = run("pull", "own-faces")
    assert ran.code == 0
    assert "\r\x1b[2Kown-faces (facial-recognition): downloading model.onnx" in ran.err
