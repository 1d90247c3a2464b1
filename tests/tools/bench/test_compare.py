"""The comparison's command against servers without models."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tools.bench.fake_server import COMMAND, FakeServer, serving
from tools.bench import agreement, contenders, workload
from tools.bench.__main__ import main
from tools.bench.chart import line_chart
from tools.bench.processes import ProcessTree, process_pss, tree_of
from tools.bench.weights import Weights
from tools.harness.immich_client import BOUNDARY, clip_visual, faces, multipart
from tools.harness.rendered import Page, jpeg


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "pictures", lambda task: [b"\xff\xd8 one", b"\xff\xd8 two"])
    small = jpeg(Image.new("RGB", (64, 48), "red"))
    monkeypatch.setattr(agreement, "pictures", lambda task: [small])
    monkeypatch.setattr(agreement, "mixed_pages", lambda: [Page("one", ("营业执照",), small)])


@pytest.fixture
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    with serving(FakeServer()) as ours, serving(FakeServer(delay=lambda number: 0.05)) as peer:
        yield ours, peer


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--rest", "0", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_without_a_name_the_addresses_are_compared_in_turns(
    servers: tuple[FakeServer, FakeServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ours, peer = servers
    arguments = [
        "--url",
        ours.url,
        "--peer",
        peer.url,
        "--tasks",
        "clip,face",
        "--concurrency",
        "1,2",
        "--rounds",
        "2",
        "--requests",
        "4",
    ]
    found = report(capsys, *arguments, "--plot", str(tmp_path / "plot.svg"), "--pid", str(os.getpid()))
    assert found["benchmark"] == "compare"
    names, alike, medians, ratio, detail, memory = found["tables"]
    assert [row[0] for row in names["rows"]] == ["ours", "peer"]
    assert ["faces of the peer", 2] in alike["rows"]
    assert [row[0] for row in memory["rows"]] == ["all models loaded, at rest", "after the loads", "the same, at rest"]
    assert all(row[1] > 1 for row in memory["rows"])
    last = [
        [row[detail["columns"].index("PSS, MB")] for row in detail["rows"] if row[2] == name][-1]
        for name in ("ours", "peer")
    ]
    assert memory["rows"][1][1:3] == last
    assert [row[:3] for row in medians["rows"][:2]] == [["clip", "1", "ours"], ["clip", "1", "peer"]]
    assert len(medians["rows"]) == 8
    assert all(row[medians["columns"].index("requests")] == 8 for row in medians["rows"])
    assert all(row[ratio["columns"].index("throughput")] > 1 for row in ratio["rows"])
    assert all(row[ratio["columns"].index("p50")] < 1 for row in ratio["rows"])
    assert all(row[medians["columns"].index("PSS, MB")] > 1 for row in medians["rows"])
    cpu, system = (medians["columns"].index(f"{what}, ms per request") for what in ("CPU", "system"))
    assert all(0 <= row[system] <= row[cpu] for row in medians["rows"])
    assert len(detail["rows"]) == 8 * 2
    assert sorted(ours.bodies) == sorted(peer.bodies)
    texts = {element.text for element in ElementTree.parse(tmp_path / "plot.svg").getroot().iter()}
    assert {"ours", "peer", "clip 1", "face 2"} <= texts


def test_a_report_can_go_to_a_file_beside_the_tables(
    servers: tuple[FakeServer, FakeServer], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    arguments = [
        "--url",
        servers[0].url,
        "--tasks",
        "text",
        "--open",
        "200",
        "--fixed",
        "--requests",
        "5",
        "--rounds",
        "2",
        "--rest",
        "0",
    ]
    assert main([*arguments, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "200/s" in printed
    assert "Every round" not in printed
    assert json.loads(file.read_text())["tables"][1]["rows"][0][:2] == ["text", "200/s"]


def test_failures_are_counted_and_do_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FakeServer(status=lambda number: 500 if number == 5 else 200)) as fake:
        found = report(
            capsys, "--url", fake.url, "--tasks", "clip", "--concurrency", "1", "--rounds", "1", "--requests", "6"
        )
    columns, (row,) = found["tables"][1]["columns"], found["tables"][1]["rows"]
    assert row[columns.index("failures")] == 1
    assert row[columns.index("requests")] == 5


def test_a_server_that_cannot_answer_a_task_is_said_to_be_so() -> None:
    with (
        serving(FakeServer(status=lambda number: 422)) as fake,
        pytest.raises(
            RuntimeError, match=r"none of these names: PP-OCRv6_small \(.* 422.*PP-OCRv5_mobile .*--ocr-model"
        ),
    ):
        main(["--url", fake.url, "--tasks", "ocr", "--rounds", "1"])


def test_each_server_is_asked_for_the_first_model_that_it_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    immich = FakeServer(knows=lambda body: not any(name in body for name in (b"PP-OCRv6_small", b"buffalo_s")))
    with serving(FakeServer()) as ours, serving(immich) as peer:
        arguments = ["--url", ours.url, "--peer", peer.url, "--tasks", "face,ocr", "--requests", "2", "--rounds", "1"]
        found = report(capsys, *arguments, "--concurrency", "1")
    names, alike, medians = found["tables"][:3]
    assert names["rows"] == [
        ["ours", "ViT-B-32__openai", "buffalo_s", "PP-OCRv6_small"],
        ["peer", "ViT-B-32__openai", "buffalo_l", "PP-OCRv5_mobile"],
    ]
    assert "The names differ" in names["note"]
    assert ["OCR, pages of 1 with the same text", 1] in alike["rows"]
    assert all(row[medians["columns"].index("failures")] == 0 for row in medians["rows"])
    assert not any(b"PP-OCRv5_mobile" in body for body in ours.bodies)


def test_the_names_to_ask_for_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FakeServer(knows=lambda body: b"antelopev2" in body)) as fake:
        arguments = ["--url", fake.url, "--tasks", "face", "--concurrency", "1", "--rounds", "1", "--requests", "2"]
        found = report(capsys, *arguments, "--face-model", "buffalo_m,antelopev2")
    assert found["tables"][0]["rows"] == [["ours", "ViT-B-32__openai", "antelopev2", "PP-OCRv6_small"]]
    assert all(b"antelopev2" in body for body in fake.bodies[1:])


def test_without_an_address_this_service_is_started_and_stopped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "OURS", COMMAND)
    monkeypatch.setattr(contenders, "weights", lambda folder: Weights({"CLIP_MODEL": "none"}, "no model"))
    with serving(FakeServer()) as peer:
        arguments = ["compare", "--peer", peer.url, "--tasks", "face", "--requests", "2", "--rounds", "1"]
        medians = report(capsys, *arguments, "--concurrency", "1")["tables"][2]
    assert [row[2] for row in medians["rows"]] == ["ours", "peer"]
    assert medians["rows"][0][medians["columns"].index("PSS, MB")] > 1


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RuntimeError, match="cannot be reached"):
            main(["--url", f"http://127.0.0.1:{taken.getsockname()[1]}", "--tasks", "clip"])


@pytest.mark.parametrize("wrong", [["--tasks", "clip,dogs"], ["--concurrency", "0"], ["--concurrency", "four"]])
def test_wrong_options_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--url", "http://127.0.0.1:1", *wrong])
    assert wrong[0] in capsys.readouterr().err


def test_bodies_are_immichs_and_mixed_ones_go_through_the_tasks_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workload.bodies("clip")[0] == multipart(clip_visual(), image=b"\xff\xd8 one")
    assert workload.bodies("face")[1] == multipart(faces(), image=b"\xff\xd8 two")
    monkeypatch.setattr(workload, "pictures", lambda task: [bytes([number]) for number in range(8)])
    mixed = workload.bodies("mixed")
    assert len(mixed) == 32
    assert all(kind in body for kind, body in zip([b"visual", b"facial", b"ocr", b"textual"] * 8, mixed, strict=True))
    assert all(BOUNDARY.encode() in body for body in mixed)


LISTENER = """
import multiprocessing, socket, time
listening = socket.create_server(("127.0.0.1", 0))
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
child.start()
print(listening.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_servers_processes_are_found_by_its_port_the_topmost_first() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            tree = tree_of(f"http://127.0.0.1:{int(process.stdout.readline())}")
            assert tree == ProcessTree(process.pid)
            assert len(tree.processes()) == 2
            assert tree.pss() == pytest.approx(sum(map(process_pss, tree.processes())), rel=0.2)
            assert tree.cpu().total > 0
            assert tree.cpu().total == tree.cpu().user + tree.cpu().system
        finally:
            for one in ProcessTree(process.pid).processes():
                one.kill()
    assert tree.processes() == []
    assert tree.pss() == 0


def test_a_server_elsewhere_or_none_at_all_has_no_processes() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert tree_of(f"http://127.0.0.1:{taken.getsockname()[1]}") is None
    assert tree_of("http://192.0.2.7:3003") is None


def test_a_line_chart_has_a_line_per_series_within_its_frame() -> None:
    root = ElementTree.fromstring(line_chart("t & t", "s", {"a": [(0, 1), (10, 20)], "b": [(5, 0)]}))
    lines = [element.attrib["points"] for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    points = [tuple(map(float, point.split(","))) for line in lines for point in line.split()]
    assert all(56 <= x <= 624 and 72 <= y <= 270 for x, y in points)
