"""Starting, stopping and dying: what the service does when it is told to end, when a process is killed, and when it
must not start.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import jpeg, mixed_pages, page
from tools.harness.server import ROOT, Server
from tools.harness.tiny_clip import tiny_clip_folder

PAGE = mixed_pages()[0].data


def post(server: Server, body: bytes) -> httpx.Response:
    return httpx.post(server.url + "/predict", content=body, headers=HEADERS, timeout=120)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
    with Server(tmp_path, {"CLIP_MODEL": "ViT-B-16", "MAX_BATCH": "1"}) as running:
        yield running


def test_sigterm_finishes_what_runs_ends_every_process_and_frees_the_port(own_server: Server) -> None:
    server = own_server
    assert post(server, multipart(ocr(), image=PAGE)).status_code == 200  # the model is loaded
    processes = server.processes()
    assert len(processes) == 4  # arbiter, gateway, two runner processes
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        running = [callers.submit(post, server, multipart(ocr(), image=PAGE)) for _ in range(4)]
        _wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
        time.sleep(0.2)
        told = time.monotonic()
        server.terminate()
        assert [one.result().status_code for one in running] == [200] * 4
    assert server.process is not None
    server.process.wait(10 - (time.monotonic() - told))
    _, alive = psutil.wait_procs(processes, timeout=max(0.0, 10 - (time.monotonic() - told)))
    assert alive == []
    assert "Traceback" not in server.log
    assert server.log.count("immich-bento has stopped.") == 1
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", server.port))


def test_a_stop_finishes_what_still_waits_for_a_runner(tmp_path: Path) -> None:
    """Of sixteen requests most have not reached a runner when the service is told to end."""
    with Server(tmp_path, {"SHUTDOWN_TIMEOUT": "60"}) as server, concurrent.futures.ThreadPoolExecutor(16) as callers:
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200  # the model is loaded
        waiting = [callers.submit(post, server, multipart(ocr(), image=PAGE)) for _ in range(16)]
        _wait_for(lambda: callers._work_queue.empty() and any(one.done() for one in waiting))
        server.terminate()
        assert [one.result().status_code for one in waiting] == [200] * 16, [one.result().text for one in waiting]


@pytest.mark.parametrize("forked", ["true", "false"])
def test_sigterm_is_obeyed_while_processes_are_being_started(tmp_path: Path, forked: str) -> None:
    server = Server(tmp_path, {"FORK_PROCESSES": forked})
    server.spawn()
    assert server.process is not None
    try:
        watcher = psutil.Process(server.process.pid)
        _wait_for(watcher.children)
        processes = server.processes()
        server.terminate()
        assert server.process.wait(10) == 0
        assert psutil.wait_procs(processes, timeout=10)[1] == []
        assert "Traceback" not in server.log
    finally:
        server.__exit__(None, None, None)


def test_work_that_does_not_finish_does_not_keep_the_service_from_ending(tmp_path: Path) -> None:
    big = jpeg(page(["很长的一页 long page"] * 60, size=(4000, 8000)))
    with Server(tmp_path, {"SHUTDOWN_TIMEOUT": "2", "MAX_BATCH": "1"}) as server:
        processes = server.processes()
        with concurrent.futures.ThreadPoolExecutor(6) as callers:
            running = [callers.submit(post, server, multipart(ocr(max_resolution=4000), image=big)) for _ in range(6)]
            _wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
            server.terminate()
            _, alive = psutil.wait_procs(processes, timeout=10)
            assert alive == []
            outcomes = [one.exception() or one.result().status_code for one in running]
    # A proxy that holds requests sends those again whose connection broke; an answer, whatever it says, is passed on.
    assert all(isinstance(outcome, httpx.TransportError) or outcome == 200 for outcome in outcomes), outcomes
    assert any(isinstance(outcome, httpx.TransportError) for outcome in outcomes)


def test_a_killed_runner_loses_no_request_and_is_back(own_server: Server) -> None:
    server = own_server
    assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
    assert post(server, multipart(clip_textual(), text="dog")).status_code == 200
    (victim,) = server.workers("PictureRunner")
    stop, others = threading.Event(), []

    def ask_the_other_runner() -> None:
        while not stop.is_set():
            others.append(post(server, multipart(clip_textual(), text="dog")).status_code)
            time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor(5) as callers:
        bystander = callers.submit(ask_the_other_runner)
        try:
            in_flight = [
                callers.submit(post, server, multipart(ocr(max_resolution=2000), image=PAGE)) for _ in range(4)
            ]
            _wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
            time.sleep(0.3)
            victim.send_signal(
                signal.SIGSTOP
            )  # first: once it is killed, a fast machine has the next one ready within a second
            assert httpx.get(server.url + "/readyz", timeout=10).status_code == 503
            victim.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            # Requests made while the process is away wait for it rather than fail.
            assert post(server, multipart(faces("buffalo_s"), image=PAGE)).status_code == 200
            back_after = time.monotonic() - killed
            # They are sent once more, to the process that takes the killed one's place.
            assert [one.result().status_code for one in in_flight] == [200] * 4
            assert "asked once more" in server.log
        finally:
            stop.set()
        bystander.result()
    assert back_after < 30
    assert set(others) == {200}
    assert len(others) > 20
    assert [worker.pid for worker in server.workers("PictureRunner")] != [victim.pid]
    assert httpx.get(server.url + "/readyz", timeout=10).status_code == 200
    assert 'immich_bento_models_loaded{runner="faces"} 1.0' in httpx.get(server.url + "/metrics").text
    assert 'immich_bento_models_loaded{runner="ocr"} 1.0' in httpx.get(server.url + "/metrics").text


def _wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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


def test_an_idle_connection_is_kept_longer_than_immich_keeps_it(server: Server) -> None:
    """Immich closes after 4 s; a server that closed sooner would lose requests. BentoML's own default would be 5 s."""
    with httpx.Client(base_url=server.url, limits=httpx.Limits(keepalive_expiry=100)) as client:
        first = client.get("/ping").extensions["network_stream"].get_extra_info("client_addr")
        time.sleep(6)
        assert client.get("/ping").extensions["network_stream"].get_extra_info("client_addr") == first


def test_each_runner_has_a_process_of_its_own_where_that_is_asked_for(tmp_path: Path) -> None:
    tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
    with Server(
        tmp_path, {"CLIP_MODEL": "ViT-B-16", "RUNNER_PROCESSES": "split", "MACHINE_LEARNING_WORKERS": "2"}
    ) as server:
        for name in ("ClipImageRunner", "ClipTextRunner", "FaceRunner", "OcrRunner"):
            assert len(server.workers(name)) == 1
        assert len(server.workers("immich_bento")) == 2
        body = multipart({**clip_visual(), **faces("buffalo_s"), **ocr()}, image=PAGE)
        assert post(server, body).status_code == 200


def test_models_are_preloaded_and_idle_ones_unloaded(tmp_path: Path) -> None:
    environment = {
        "MACHINE_LEARNING_PRELOAD__FACIAL_RECOGNITION__DETECTION": "buffalo_s",
        "MACHINE_LEARNING_MODEL_TTL": "1",
        "MACHINE_LEARNING_MODEL_TTL_POLL_S": "1",
    }
    with Server(tmp_path, environment) as server:
        loaded = 'immich_bento_models_loaded{runner="%s"} %s'
        _wait_for(lambda: loaded % ("faces", "1.0") in httpx.get(server.url + "/metrics").text)
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
        _wait_for(lambda: loaded % ("ocr", "0.0") in httpx.get(server.url + "/metrics").text)
        assert loaded % ("faces", "1.0") in httpx.get(server.url + "/metrics").text  # preloaded stays
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200


def test_a_process_whose_models_are_all_unloaded_is_replaced_by_a_small_one_and_no_request_is_lost(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, {"MACHINE_LEARNING_MODEL_TTL": "1", "MACHINE_LEARNING_MODEL_TTL_POLL_S": "1"}) as server:
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
        (used,) = server.workers("PictureRunner")
        memory = used.memory_full_info().uss
        _wait_for(lambda: "a fresh process takes over" in server.log)
        while used.is_running():  # in its last moments too
            assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
        _wait_for(lambda: server.workers("PictureRunner") not in ([], [used]))
        _wait_for(lambda: 'immich_bento_models_loaded{runner="ocr"} 0.0' in httpx.get(server.url + "/metrics").text)
        # The one that took over may have answered the last requests, and be replaced in its turn.
        _wait_for(lambda: [own < memory / 2 for own in _own_memory(server, "PictureRunner")] == [True])
        assert "Traceback" not in server.log


def _own_memory(server: Server, service: str) -> list[int]:
    """Return the bytes that each process of ``service`` has for itself."""
    sizes = []
    for worker in server.workers(service):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(worker.memory_full_info().uss)
    return sizes


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


def test_the_log_is_one_json_object_per_line_where_that_is_asked_for(tmp_path: Path) -> None:
    with Server(tmp_path, {"LOG_FORMAT": "json"}) as server:
        response = httpx.post(
            server.url + "/predict",
            content=multipart(ocr(), image=PAGE),
            headers={**HEADERS, "x-request-id": "my-id"},
            timeout=60,
        )
        assert response.headers["x-request-id"] == "my-id"
        lines = [json.loads(line) for line in server.log.splitlines()]
    (mine,) = [line for line in lines if line.get("request_id") == "my-id"]
    assert (mine["status"], mine["task"], mine["model"], mine["level"]) == (200, "ocr", "PP-OCRv6_small", "INFO")
    assert mine["ms"] > 0


def test_a_damaged_model_is_told_apart_and_mended_models_are_tried_again(tmp_path: Path) -> None:
    from tests.e2e.test_predict import T1

    folder = tmp_path / "models/facial-recognition/antelopev2"
    (folder / "detection").mkdir(parents=True)
    (folder / "detection/model.onnx").write_bytes(b"half a download")
    (tmp_path / "models/clip/ViT-B-16/visual").mkdir(parents=True)
    with Server(tmp_path, {"MODEL_RETRY_AFTER": "1", "CLIP_MODEL": "ViT-B-16"}, ready_path="/livez") as server:
        wrong = post(server, multipart(faces("antelopev2"), image=T1))
        assert (wrong.status_code, wrong.json()["code"]) == (503, "model_unavailable")
        for needed in ("antelopev2", str(folder / "detection/model.onnx"), "wrong bytes"):
            assert needed in wrong.json()["detail"]
        missing = post(server, multipart(clip_visual(), image=T1))
        assert missing.status_code == 503
        assert "visual/model.onnx" in missing.json()["detail"]
        assert httpx.get(server.url + "/readyz").status_code == 503
        assert post(server, multipart(faces("buffalo_s"), image=T1)).status_code == 200
        shutil.rmtree(tmp_path / "models/clip")
        tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
        time.sleep(1.2)
        assert post(server, multipart(clip_visual(), image=T1)).status_code == 200
        server.ready_path = "/readyz"
        server.wait_until_ready()


def test_nothing_is_sent_home(tmp_path: Path) -> None:
    """BentoML's usage tracking would post over httpx; here that call is made to leave a trace."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap/sitecustomize.py").write_text(
        "import httpx\n"
        "def post(url, *args, **kwargs):\n"
        f"    open({str(tmp_path / 'sent')!r}, 'a').write(str(url) + '\\n')\n"
        "    raise httpx.ConnectError('trapped')\n"
        "httpx.post = post\n"
    )
    with Server(tmp_path / "service", {"PYTHONPATH": str(tmp_path / "trap")}) as server:
        assert httpx.get(server.url + "/ping").status_code == 200
    assert not (tmp_path / "sent").exists()
    # The trap works: without our word BentoML does post.
    tracking = (
        "from bentoml._internal.utils.analytics import CliEvent, track; track(CliEvent(cmd_group='t', cmd_name='t'))"
    )
    subprocess.run(
        [sys.executable, "-c", tracking],
        env={"PYTHONPATH": str(tmp_path / "trap"), "HOME": str(tmp_path)},
        check=True,
        cwd=ROOT,
    )
    assert (tmp_path / "sent").exists()


@pytest.mark.parametrize("forked", ["true", "false"])
def test_workers_end_when_the_process_that_watches_them_is_killed(tmp_path: Path, forked: str) -> None:
    """They would hold the port, and answer pings, for ever."""
    server = Server(tmp_path, {"FORK_PROCESSES": forked})
    with server:
        processes = server.processes()
        assert server.process is not None
        server.process.kill()
        assert psutil.wait_procs(processes, timeout=15)[1] == []
    again = Server(tmp_path, {"FORK_PROCESSES": forked}, port=server.port)
    with again:
        assert httpx.get(again.url + "/ping").text == "pong"


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


def test_a_forced_end_is_no_success(tmp_path: Path) -> None:
    big = jpeg(page(["很长的一页 long page"] * 60, size=(4000, 8000)))
    with Server(tmp_path, {"SHUTDOWN_TIMEOUT": "1", "MAX_BATCH": "1"}) as server:
        (runner,) = server.workers("PictureRunner")
        with concurrent.futures.ThreadPoolExecutor(4) as callers:
            asking = [callers.submit(post, server, multipart(ocr(max_resolution=4000), image=big)) for _ in range(4)]
            _wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
            time.sleep(0.5)
            runner.send_signal(signal.SIGTERM)
            _wait_for(lambda: "PictureRunner (process" in server.log)
            for one in asking:
                one.exception()
    assert f"PictureRunner (process {runner.pid}) ended with status 1" in server.log
    assert "the process ends without it" in server.log
