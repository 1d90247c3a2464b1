"""Each benchmark of parts of the service runs, with counts too small to measure anything, and prints its tables.

Those of whole servers: test_compare.py, test_contest.py."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tools.bench.__main__ import BENCHMARKS, main
from tools.bench.chart import bar_chart
from tools.bench.parts import _PARTS, _rows, _Served
from tools.bench.processes import CpuTime
from tools.bench.report import Table, to_text

TINY = {
    "batching": "--rounds 1 --fixed-ms 0.2 --per-picture-ms 0.2 --callers 1 3 --seconds 0.1 --saturate 0.3 --lone 2 "
    "--pause 0.05",
    "ping": "--seconds 1 --idle-seconds 0.5 --callers 1",
    "transport": "--rounds 1 --requests 3 --kb 200",
    "routing": "--rounds 1 --requests 3 --kb 200",
    "tasks": "--callers 2 --seconds 0.5 --ttl 1 --pictures 1",
    "parts": "--tiny --pictures 2 --rounds 1 --idle 0.5",
    "clip-models": "--names RN50 --seconds 0.5 --rest 0",
    "first-start": "--names RN50",
    "bar": "--assets 200 --queries 8 --delay 10",
}

SLOW = ("bar", "clip-models", "first-start", "ping", "routing", "tasks", "transport")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TINY],
)
def test_each_benchmark_measures_something_and_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, *TINY[name].split(), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["benchmark"] == name
    assert report["machine"]["cores"] >= 1
    assert report["tables"]
    for table in report["tables"]:
        assert table["rows"]
        for row in table["rows"]:
            assert len(row) == len(table["columns"])
            # A difference of two measurements, each of one picture here, may come to less than nothing.
            assert row[1] in ("gateway", "runner, besides", "background", "system") or any(
                isinstance(cell, int | float) and cell > 0 for cell in row
            ), row


def test_the_chart_of_lone_requests_is_an_svg_that_names_both_batchers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lone.svg"
    assert main(["batching", *TINY["batching"].split(), "--plot", str(file)]) == 0
    assert "BentoML / ours" in capsys.readouterr().out
    root = ElementTree.parse(file).getroot()
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"ours", "BentoML"} <= texts


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in BENCHMARKS)


def test_a_table_is_markdown_with_its_note_below() -> None:
    table = Table(
        "Speed", ("what", "ms"), (("slow", 1234.5), ("fast", 0.12345), ("never", float("nan")), ("count", 7)), "Note."
    )
    assert to_text("demo", {"cores": 2}, [table]).splitlines() == [
        "# demo: cores 2",
        "",
        "## Speed",
        "",
        "| what  |    ms |",
        "|-------|------:|",
        "| slow  |  1234 |",
        "| fast  | 0.123 |",
        "| never |     - |",
        "| count |     7 |",
        "",
        "Note.",
    ]


@pytest.mark.parametrize(("highest", "axis"), [(0.7, "1"), (1.0, "1"), (55.0, "60"), (229.0, "400"), (3600.0, "4000")])
def test_the_axis_of_a_chart_ends_at_a_round_number_above_the_highest_bar(highest: float, axis: str) -> None:
    root = ElementTree.fromstring(bar_chart("t", "s & s", {"a": [highest, highest / 2], "b": [0, highest / 3]}))
    assert axis in {element.text for element in root.iter() if element.tag.endswith("text")}
    heights = [float(element.attrib["height"]) for element in root.iter() if element.attrib.get("fill") == "#2f6fb5"][
        1:
    ]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)


def test_parts_of_less_than_a_tick_have_no_share() -> None:
    nothing = CpuTime(0.0, 0.0)
    served = _Served(nothing, nothing, 0.0)
    rows = _rows("clip", dict.fromkeys(_PARTS, 0.0), served)
    assert [row[1:] for row in rows] == [(name, 0.0, "-") for name in (*_PARTS, "all", "system")]
