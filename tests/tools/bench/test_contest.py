"""The benchmarks that start both servers run, with servers without models in their place and counts too small to
measure anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tools.bench.fake_server import COMMAND
from tools.bench import against, agreement, contenders, interactive, memory, scaling, transport, weights, workload
from tools.bench.__main__ import main
from tools.bench.weights import Weights
from tools.harness.rendered import Page, jpeg
from tools.harness.server import ROOT

_USABLE = os.sched_getaffinity(0)


@pytest.fixture(autouse=True)
def _without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [
        jpeg(Image.new("RGB", (64, 48), color))
        for color in ("red", "green", "blue", "white", "black", "gray", "pink", "brown")
    ]
    monkeypatch.setattr(workload, "pictures", lambda task: small)
    monkeypatch.setattr(memory, "pictures", lambda task: small)
    monkeypatch.setattr(agreement, "mixed_pages", lambda: [Page("one", ("营业执照",), small[0])])
    monkeypatch.setattr(contenders, "OURS", COMMAND)
    monkeypatch.setattr(contenders, "REFERENCE", COMMAND)
    monkeypatch.setattr(contenders, "weights", lambda folder: Weights({"CLIP_MODEL": "none"}, "no model"))
    for pause in ("_SETTLE", "_AT_REST", "_RENEWAL"):
        monkeypatch.setattr(memory, pause, 0.0)
    monkeypatch.setattr(interactive, "_HEAD_START", 0.1)
    monkeypatch.setattr(scaling, "SIZES", (32, 48))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {min(_USABLE)})


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    for table in found["tables"]:
        assert table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    return found


def targets(found: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the last table's rows, by what they are about."""
    assert found["tables"][-1]["title"] == "Targets"
    return {row[0]: row[1:] for row in found["tables"][-1]["rows"]}


def test_interactive_measures_queries_and_what_they_cost_the_bulk_of_both_servers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = report(
        capsys, "interactive", "--callers", "3", "--rate", "40", "--seconds", "0.3", "--rounds", "1", "--with-peer"
    )
    assert [row[0] for row in found["tables"][0]["rows"]] == ["ours", "peer"]
    due = targets(found)
    assert due["text query while 3 callers saturate: p95, ms"][1] == "at most 150"
    assert due["bulk throughput with queries / without"][0] > 0


@pytest.mark.slow
def test_memory_goes_through_its_steps_and_draws_the_long_load(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    counts = (
        "--mixed",
        "8",
        "--requests",
        "20",
        "--warm-up",
        "4",
        "--shapes",
        "2",
        "--callers",
        "2",
        "--peer-requests",
        "5",
    )
    found = report(capsys, "memory", *counts, "--plot", str(tmp_path / "memory.svg"))
    steps = {row[0]: row[1:] for row in found["tables"][0]["rows"]}
    assert list(steps) == [
        "idle",
        "one request of each task",
        "after 8 mixed requests",
        "the same, at rest",
        "after unloading",
    ]
    assert all(row[0] > 1 for row in steps.values())
    assert steps["after unloading"][1] is None
    assert targets(found)["memory idle, MB"][2] == "yes"
    assert (
        sum(element.tag.endswith("polyline") for element in ElementTree.parse(tmp_path / "memory.svg").getroot().iter())
        == 2
    )


def test_start_times_cold_and_warm_starts_and_the_peers(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "start", "--rounds", "1")
    rows = {row[0]: row[1:] for row in found["tables"][0]["rows"]}
    assert list(rows) == ["ours, cold", "ours, warm", "peer"]
    assert all(seconds > 0.05 for row in rows.values() for seconds in row)


def test_scaling_starts_servers_anew_and_draws_a_chart_for_each_part(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("scaling", "--parts", "cores", "sizes", "--requests", "2", "--plot", str(tmp_path / "grow.svg"))
    cores, sizes = report(capsys, *arguments)["tables"]
    assert cores["columns"] == ["cores", "1"]
    assert {row[0] for row in cores["rows"]} == {
        f"{task}, {name}" for task in ("clip", "face", "ocr") for name in ("ours", "peer")
    }
    assert sizes["columns"][1:] == ["32", "48"]
    assert {path.name for path in tmp_path.iterdir()} == {"grow-cores.svg", "grow-sizes.svg"}


@pytest.mark.slow
def test_all_ends_with_the_targets_and_leaves_parts_out_when_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tools.bench.overview.weights", lambda folder: Weights({}, "no model"))
    monkeypatch.setattr(transport, "run", lambda options: pytest.fail("transport was to be left out"))
    counts = ("--requests", "2", "--rounds", "1", "--concurrency", "1", "2", "--int8")
    found = report(
        capsys,
        "all",
        *counts,
        "--plots",
        str(tmp_path),
        "--skip",
        "interactive",
        "memory",
        "start",
        "transport",
        "scaling",
    )
    titles = [table["title"] for table in found["tables"]]
    assert titles[:3] == ["Weights", "Medians of the rounds", "Ours / peer"]
    assert "Agreement with the peer" in titles
    due = targets(found)
    assert due["faces: share of the peer's found by ours, IoU above 0.9"] == [1.0, "at least 1", "yes"]
    assert due["OCR: character accuracy, ours less the peer's"] == [0.0, "at least 0", "yes"]
    assert {
        "OCR, 2 callers: throughput / peer's",
        "CLIP text, 1 caller: p50 / peer's",
        "CLIP image, int8, 2 callers: throughput / peer's",
    } <= set(due)
    assert (tmp_path / "throughput.svg").is_file()


def test_settings_for_ours_can_be_given_and_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        main(["start", "--env", "ENGINE"])


def test_weights_are_the_users_own_where_there_are_any_and_said_to_be_random_or_tiny_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for half in ("visual", "textual"):
        (tmp_path / "clip/ViT-B-16" / half).mkdir(parents=True)
        (tmp_path / "clip/ViT-B-16" / half / "model.onnx").write_bytes(b"")
    found = weights.weights(tmp_path)
    assert found.environment["CLIP_DOWNLOAD_ROOT"] == str(tmp_path / "clip")
    assert found.environment["CLIP_MODEL"] == "ViT-B-16"
    with pytest.raises(FileNotFoundError, match="python -m models convert"):
        weights.weights(tmp_path / "elsewhere")
    monkeypatch.setenv("MACHINE_LEARNING_CACHE_FOLDER", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights, "_can_make", lambda: False)
    fallback = weights.weights()
    assert fallback.environment["CLIP_MODEL"] == "cn-clip-tiny"
    assert "say nothing about a real model" in fallback.note


def test_an_older_commit_is_held_to_what_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against, "unpacked", lambda ref: ROOT)
    arguments = ["against", "a77f433", "--python", sys.executable, "--requests", "8", "--rounds", "1"]
    found = report(capsys, *arguments, "--concurrency", "1", "4", "--tasks", "clip", "joint")
    due = targets(found)
    assert [name for name in due if name.startswith("joint, 4 callers")] == [
        "joint, 4 callers: throughput / peer's",
        "joint, 4 callers: p50 / peer's",
        "joint, 4 callers: memory / peer's",
    ]
    # A fake server has no runner processes: nothing is known, and what is not known is not met.
    assert due["bytes that runners read per joint request / peer's"] == [None, "at most 0.36", "NO"]


def test_a_commit_is_unpacked_once_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "ROOT", tmp_path / "project")
    monkeypatch.setattr(against, "COMMITS", tmp_path / "commits")
    git = ("git", "-C", str(tmp_path / "project"), "-c", "user.name=a", "-c", "user.email=a@localhost")
    (tmp_path / "project").mkdir()
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "one")):
        (tmp_path / "project/service.py").write_text("first")
        subprocess.run((*git, *command), check=True, capture_output=True)
    (tmp_path / "project/service.py").write_text("second")
    folder = against.unpacked("HEAD")
    assert (folder / "service.py").read_text() == "first"
    assert against.unpacked("HEAD") == folder
    assert [path.name for path in (tmp_path / "commits").iterdir()] == [folder.name]


def test_a_commit_that_git_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match="no commit 'nowhere'"):
        against.unpacked("nowhere")
