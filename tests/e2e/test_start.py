"""Starting: as which processes the service comes up, and what is said where it must not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.calls import PAGE, post
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.server import ROOT, Server
from tools.harness.tiny_clip import tiny_clip_folder


def _fails_to_start(tmp_path: Path, environment: dict[str, str]) -> str:
    server = Server(tmp_path, environment)
    server.spawn()
    assert server.process is not None
    try:
        assert server.process.wait(60) != 0
    finally:
        server.__exit__(None, None, None)
    return server.log


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"DEVICE": "cuda"}, "DEVICE=cuda, but no GPU can be used"),
        ({"DEVICE": "gpu"}, "DEVICE"),
        ({"CLIP_MODEL": "no-such-model"}, "no-such-model"),
        ({"MACHINE_LEARNING_MODEL_TTL": "soon"}, "MACHINE_LEARNING_MODEL_TTL"),
        ({"MODEL_CATALOG": "/nowhere.toml"}, "/nowhere.toml"),
    ],
)
def test_what_is_set_wrongly_stops_the_start_with_one_sentence(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    log = _fails_to_start(tmp_path, environment)
    assert "immich-bento does not start" in log
    assert told in log
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_told_in_one_sentence(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path, {}, port=server.port)
    other.spawn()
    assert other.process is not None
    assert server.process is not None
    assert other.process.wait(60) == 1
    sentences = [line for line in other.log.splitlines() if line.strip()]
    assert len(sentences) == 1, other.log
    taken = f"immich-bento does not start: port {server.port} is taken by another immich-bento"
    assert f"{taken} (process {server.process.pid})" in sentences[0]


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for PYTHONPATH in which calls by which BentoML's usage tracking posts leave a trace: ``sent``."""
    folder = tmp_path_factory.mktemp("trap")
    (folder / "sitecustomize.py").write_text(
        "import httpx\n"
        "def post(url, *args, **kwargs):\n"
        f"    open({str(folder / 'sent')!r}, 'a').write(str(url) + '\\n')\n"
        "    raise httpx.ConnectError('trapped')\n"
        "httpx.post = post\n"
    )
    return folder


@pytest.fixture(scope="module")
def unusual(trap: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a service of many processes, with a log in JSON, in the trap."""
    folder = tmp_path_factory.mktemp("service")
    tiny_clip_folder(folder / "models/clip/ViT-B-16")
    environment = {
        "CLIP_MODEL": "ViT-B-16",
        "RUNNER_PROCESSES": "split",
        "MACHINE_LEARNING_WORKERS": "2",
        "LOG_FORMAT": "json",
        "PYTHONPATH": str(trap),
    }
    with Server(folder, environment) as running:
        yield running


def test_each_runner_has_a_process_of_its_own_where_that_is_asked_for(unusual: Server) -> None:
    for name in ("ClipImageRunner", "ClipTextRunner", "FaceRunner", "OcrRunner"):
        assert len(unusual.workers(name)) == 1
    assert len(unusual.workers("immich_bento")) == 2
    body = multipart({**clip_visual(), **faces("buffalo_s"), **ocr()}, image=PAGE)
    assert post(unusual, body).status_code == 200


def test_the_log_is_one_json_object_per_line_where_that_is_asked_for(unusual: Server) -> None:
    response = httpx.post(
        unusual.url + "/predict",
        content=multipart(ocr(), image=PAGE),
        headers={**HEADERS, "x-request-id": "my-id"},
        timeout=60,
    )
    assert response.headers["x-request-id"] == "my-id"
    lines = [json.loads(line) for line in unusual.log.splitlines()]
    (mine,) = [line for line in lines if line.get("request_id") == "my-id"]
    assert (mine["status"], mine["task"], mine["model"], mine["level"]) == (200, "ocr", "PP-OCRv6_small", "INFO")
    assert mine["ms"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
@pytest.mark.parametrize(
    ("environment", "fork"),
    [({"PRECISION": "bf16"}, True), ({"FORK_PROCESSES": "false"}, False)],
    ids=["after a check of the engine", "not"],
)
def test_processes_are_forked_from_the_first_unless_they_are_not_to_be(
    environment: dict[str, str], fork: bool, tmp_path: Path
) -> None:
    with Server(tmp_path, environment) as server:
        first, *others = server.processes()
        assert len(others) == 3
        assert all((one.cmdline() == first.cmdline()) is fork for one in others)
        for service in ("PictureRunner", "ClipTextRunner", "immich_bento"):
            assert len(server.workers(service)) == 1
        for one in others:  # what a forked process must not lack: a client that hangs up would end it otherwise
            ignored = next(
                line for line in Path(f"/proc/{one.pid}/status").read_text().splitlines() if line.startswith("SigIgn:")
            )
            assert int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1
        assert post(server, multipart(faces("buffalo_s"), image=PAGE)).status_code == 200
        assert "Traceback" not in server.log


@pytest.mark.parametrize("flag", ["--development", "--reload"])
def test_it_serves_as_developers_start_it(tmp_path: Path, flag: str) -> None:
    tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
    command = (sys.executable, "-m", "bentoml", "serve", flag)
    with Server(tmp_path, {"CLIP_MODEL": "ViT-B-16"}, command=command) as server:
        assert post(server, multipart(clip_textual(), text="dog")).status_code == 200
        assert post(server, multipart({**clip_visual(), **faces("buffalo_s")}, image=PAGE)).status_code == 200
        processes = server.processes()
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert "Traceback" not in server.log


# Last: this one ends the service.
def test_nothing_is_sent_home(unusual: Server, trap: Path, tmp_path: Path) -> None:
    """BentoML's usage tracking would post over httpx: at the start, and at the end."""
    assert httpx.get(unusual.url + "/ping").status_code == 200
    assert unusual.process is not None
    unusual.terminate()
    assert unusual.process.wait(20) == 0
    assert not (trap / "sent").exists()
    # The trap works: without our word BentoML does post.
    tracking = (
        "from bentoml._internal.utils.analytics import CliEvent, track; track(CliEvent(cmd_group='t', cmd_name='t'))"
    )
    subprocess.run(
        [sys.executable, "-c", tracking],
        env={"PYTHONPATH": str(trap), "HOME": str(tmp_path)},
        check=True,
        cwd=ROOT,
    )
    assert (trap / "sent").exists()
