"""Compiled models on disk: found again, made anew when anything changed, bounded, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import pytest

from runners.allocator import configure_allocator
from runners.engine import EnginePlan, compiled_models, open_session, trim_idle_sessions
from runners.engine.compiled_models import CompiledModels
from runners.engine.openvino import OpenVinoSession
from tests.runners.engine.graphs import FEATURES, METADATA, linear_graph
from tests.runners.ocr.test_model import FILES

ROOT = Path(__file__).parents[3]
FACTS = {"version": "1"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def models(tmp_path: Path) -> CompiledModels:
    return CompiledModels(tmp_path / "compiled")


def content(text: bytes = b"machine code") -> Callable[[BufferedIOBase], None]:
    def write(file: BufferedIOBase) -> None:
        file.write(text)

    return write


def test_an_entry_is_found_again_with_what_was_said_of_it(models: CompiledModels, source: Path) -> None:
    assert models.open(source, FACTS) is None
    alphabet = "一二" * 20000  # that of PP-OCR has 18,708 characters
    assert models.write(source, FACTS, {"alphabet": alphabet}, content())
    found = models.open(source, FACTS)
    assert found is not None
    assert found.mapping[found.start :] == b"machine code"
    assert found.entry.metadata == {"alphabet": alphabet}
    found.drop_pages()
    assert found.mapping[found.start :] == b"machine code"
    assert [path.suffix for path in models.folder.iterdir()] == [".blob"]


def test_another_model_another_version_and_a_changed_file_are_other_entries(
    models: CompiledModels, source: Path
) -> None:
    models.write(source, FACTS, {}, content())
    assert models.open(source, {"version": "2"}) is None
    source.with_name("model.onnx.data").write_bytes(b"more weights")
    assert models.open(source, FACTS) is None
    source.with_name("model.onnx.data").unlink()
    assert models.open(source, FACTS) is not None
    os.utime(source, (1, 1))
    assert models.open(source, FACTS) is None


@pytest.mark.parametrize("damage", [b"", b"no json\n", b"{}\n", b'{"source": "x", "facts": {}}\n' + b" " * 70000])
def test_a_damaged_entry_counts_as_none(models: CompiledModels, source: Path, damage: bytes) -> None:
    models.write(source, FACTS, {}, content())
    (entry,) = models.folder.iterdir()
    entry.write_bytes(damage)
    assert models.open(source, FACTS) is None


def test_what_breaks_off_leaves_no_entry(models: CompiledModels, source: Path) -> None:
    def full(file: BufferedIOBase) -> None:
        raise OSError("No space left on device")

    assert not models.write(source, FACTS, {}, full)
    assert models.open(source, FACTS) is None
    assert list(models.folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_done_without(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").touch()
    models = CompiledModels(tmp_path / "file" / "compiled")
    assert not models.write(source, FACTS, {}, content())
    assert models.open(source, FACTS) is None


def test_entries_that_nobody_uses_go(models: CompiledModels, source: Path) -> None:
    models.write(source, FACTS, {}, content())
    (old,) = models.folder.iterdir()
    (broken := models.folder / "x.partial").touch()
    (foreign := models.folder / "README").touch()
    long_ago = time.time() - 40 * 86400
    for path in (old, broken, foreign):
        os.utime(path, (long_ago, long_ago))
    models.write(source, {"version": "2"}, {}, content())
    assert not old.exists()
    assert not broken.exists()
    assert foreign.exists()
    assert models.open(source, {"version": "2"}) is not None


def test_beyond_the_room_the_least_recently_used_goes(
    models: CompiledModels, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_models, "_ROOM", 250_000)  # three entries of 66 kB and no fourth
    for number in range(3):
        models.write(source, {"version": str(number)}, {}, content())
    for age, number in ((300, 1), (200, 0), (100, 2)):
        os.utime(models._path(source, {"version": str(number)}), (time.time() - age,) * 2)
    models.write(source, {"version": "3"}, {}, content())
    left = [number for number in range(4) if models.open(source, {"version": str(number)})]
    assert left == [0, 2, 3]


def load(path: Path, folder: Path, *, stays_packed: bool = False) -> OpenVinoSession:
    plan = EnginePlan("cpu", 2, engine="openvino", precision="bf16", compiled=folder)
    session = open_session(path, plan, stays_packed=stays_packed)
    assert isinstance(session, OpenVinoSession)
    return session


def test_the_second_load_of_a_graph_comes_from_disk_and_answers_the_same(tmp_path: Path) -> None:
    path, folder = linear_graph(tmp_path / "linear.onnx"), tmp_path / "compiled"
    first, second = load(path, folder), load(path, folder)
    assert (first.is_from_disk, second.is_from_disk) == (False, True)
    assert dict(second.metadata) == METADATA
    assert (second.inputs, second.outputs) == (first.inputs, first.outputs)
    x = np.random.default_rng(0).normal(size=(5, FEATURES)).astype(np.float32)
    for one, other in zip(first.run({"x": x}), second.run({"x": x}), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_openvino_cannot_import_is_made_anew(tmp_path: Path) -> None:
    path, folder = linear_graph(tmp_path / "linear.onnx"), tmp_path / "compiled"
    load(path, folder)
    (entry,) = folder.glob("*.blob")
    kept = entry.read_bytes()
    entry.write_bytes(kept[: compiled_models._PAGE] + b"rubbish" * 1000)
    session = load(path, folder)
    assert not session.is_from_disk
    assert session.run({"x": np.zeros((1, FEATURES), np.float32)})[0].shape == (1, FEATURES)
    assert load(path, folder).is_from_disk


def test_without_a_folder_a_graph_is_loaded_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    session = load(linear_graph(tmp_path / "linear.onnx"), tmp_path / "file" / "compiled")
    assert session.run({"x": np.zeros((1, FEATURES), np.float32)})[0].shape == (1, FEATURES)


@pytest.mark.parametrize("stays_packed", [False, True], ids=["closed", "kept open"])
def test_an_idle_session_rests_once_and_works_on(stays_packed: bool, tmp_path: Path) -> None:
    session = load(linear_graph(tmp_path / "linear.onnx"), tmp_path / "compiled", stays_packed=stays_packed)
    x = np.ones((2, FEATURES), np.float32)
    before = session.run({"x": x})[0]
    assert not session.trim(idle_for=3600)
    assert trim_idle_sessions(0) >= 1
    assert (session._compiled is not None) == stays_packed
    assert not session.trim(idle_for=0), "it had nothing left to give"
    np.testing.assert_array_equal(session.run({"x": x})[0], before)
    assert not session.shrink(idle_for=3600)
    assert session.shrink(idle_for=0)
    assert not session.shrink(idle_for=0), "it had nothing left to give"
    np.testing.assert_array_equal(session.run({"x": x})[0], before)
    assert session.trim(idle_for=0)
    session.close()
    assert not session.trim(idle_for=0)
    with pytest.raises(RuntimeError, match="closed"):
        session.run({"x": x})


def test_what_is_not_kept_on_disk_stays_open_at_rest(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    session = load(linear_graph(tmp_path / "linear.onnx"), tmp_path / "file" / "compiled")
    x = np.ones((2, FEATURES), np.float32)
    before = session.run({"x": x})[0]
    assert session.trim(idle_for=0)
    np.testing.assert_array_equal(session.run({"x": x})[0], before)


def test_a_session_that_rests_again_and_again_loses_no_call(tmp_path: Path) -> None:
    path, folder = linear_graph(tmp_path / "linear.onnx"), tmp_path / "compiled"
    session = load(path, folder)
    (entry,) = folder.glob("*.blob")
    entry.unlink()  # what is mapped stays readable
    x = np.random.default_rng(0).normal(size=(3, FEATURES)).astype(np.float32)
    expected = session.run({"x": x})[0]

    def runs_and_rests(times: int) -> int:
        rests = 0
        for _ in range(times):
            np.testing.assert_array_equal(session.run({"x": x})[0], expected)
            rests += session.trim(idle_for=0)
        return rests

    with ThreadPoolExecutor(4) as callers:
        assert sum(callers.map(runs_and_rests, [50] * 4)) >= 1


def test_at_rest_graphs_give_back_what_the_shapes_took_that_they_met(tmp_path: Path) -> None:
    """PP-OCR's recogniser reads lines of 40 widths; most of what they take is prepared for those."""
    path, folder = FILES["recognition/model.onnx"], tmp_path / "compiled"
    load(path, folder).close()  # compiling takes more memory than the graph
    script = """
import sys, psutil, numpy as np
from pathlib import Path
from runners.engine import EnginePlan, open_session
from runners.allocator import configure_allocator
from runners.model_cache import give_memory_back
def megabytes():
    give_memory_back()
    return psutil.Process().memory_full_info().uss / 1e6
def run(width):
    session.run({session.inputs[0].name: np.zeros((1, 3, 48, width), np.float32)})
configure_allocator()
session = open_session(Path(sys.argv[1]), EnginePlan("cpu", 2, engine="openvino", precision="bf16",
compiled=Path(sys.argv[2])))
run(320)
session.trim(idle_for=0)
rested_after_one = megabytes()
for width in range(32, 672, 16):
    run(width)
worked = megabytes()
session.trim(idle_for=0)
print(rested_after_one, worked, megabytes())
"""
    printed = subprocess.run(
        [sys.executable, "-c", script, path, folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    rested_after_one, worked, rested = map(float, printed.stdout.split())
    assert worked > rested_after_one + 30
    assert worked - rested > 0.7 * (worked - rested_after_one)  # the rest is oneDNN's, of all models of the process


def test_the_allocator_is_set_where_it_is_glibcs() -> None:
    import ctypes

    assert configure_allocator() == hasattr(ctypes.CDLL(None), "mallopt")
