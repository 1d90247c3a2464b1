"""The benchmark of the container runs, with counts too small to measure anything, and prints its tables."""

from __future__ import annotations

import json

import pytest

from tools.bench.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.image]


def test_it_measures_start_memory_and_throughput_of_both(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--starts", "1", "--rounds", "1", "--seconds", "1", "--rest", "0", "--tasks", "face"]
    assert main(["container", "--image", image, *few, "--json"]) == 0
    tables = {table["title"]: table for table in json.loads(capsys.readouterr().out)["tables"]}
    for title in ("Seconds from the start, medians", "Memory: PSS of all processes, MB"):
        rows = tables[title]["rows"]
        assert [row[0] for row in rows] == ["ours", "peer"]
        assert all(value > 0 for row in rows for value in row[1:])
    (ratio,) = tables["Ours / peer"]["rows"]
    assert ratio[0] == "face"
    assert ratio[2] > 0
    assert [row[0] for row in tables["Targets"]["rows"]] == ["face, 4 callers: container / without"]


def test_what_a_limit_of_memory_does_is_counted(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--env", "CLIP_MODEL=cn-clip-tiny", "--callers", "2", "--seconds", "5"]
    assert main(["memory-limit", "--image", image, *few, "--limits", "400", "1536", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    (little, _, _, killed), (enough, answered, unanswered, spared) = table["rows"]
    assert (little, enough) == (400, 1536)
    assert killed > 0
    assert answered > 0
    assert (unanswered, spared) == (0, 0)
