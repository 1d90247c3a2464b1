"""Stopping and dying: what the service does when it is told to end, when a process is killed, and when models go."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.calls import PAGE, post, wait_for
from tools.harness.immich_client import clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import jpeg, page
from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
    # What it finishes takes two seconds, and longer where much else runs.
    with Server(tmp_path, {"CLIP_MODEL": "ViT-B-16", "MAX_BATCH": "1", "SHUTDOWN_TIMEOUT": "60"}) as running:
        yield running


def is_free(port: int) -> bool:
    """Return whether another service could listen on ``port``."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()
        return True
    return False


def test_sigterm_finishes_what_runs_ends_every_process_and_frees_the_port(own_server: Server) -> None:
    server = own_server
    assert post(server, multipart(ocr(), image=PAGE)).status_code == 200  # the model is loaded
    processes = server.processes()
    assert len(processes) == 4  # arbiter, gateway, two runner processes
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        running = [callers.submit(post, server, multipart(ocr(), image=PAGE)) for _ in range(4)]
        wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
        time.sleep(0.2)
        server.terminate()
        assert [one.result().status_code for one in running] == [200] * 4
    assert psutil.wait_procs(processes, timeout=20)[1] == []  # well before SHUTDOWN_TIMEOUT
    assert "Traceback" not in server.log
    assert server.log.count("immich-bento has stopped.") == 1
    assert is_free(server.port)


def test_clients_that_went_away_do_not_keep_the_service_from_ending(own_server: Server) -> None:
    server = own_server
    assert post(server, multipart(ocr(), image=PAGE)).status_code == 200  # the model is loaded
    processes = server.processes()
    body = multipart(ocr(), image=PAGE)
    kind = b"multipart/form-data; boundary=" + body.split(b"\r\n", 1)[0][2:]
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head % (kind, len(body)) + body)
            wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
    wait_for(lambda: server.log.count("status=499") == 4)
    server.terminate()
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert "did not finish in time" not in server.log
    assert "Traceback" not in server.log


def test_a_stop_finishes_what_still_waits_for_a_runner(tmp_path: Path) -> None:
    """Of sixteen requests most have not reached a runner when the service is told to end."""
    with Server(tmp_path, {"SHUTDOWN_TIMEOUT": "60"}) as server, concurrent.futures.ThreadPoolExecutor(16) as callers:
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200  # the model is loaded
        waiting = [callers.submit(post, server, multipart(ocr(), image=PAGE)) for _ in range(16)]
        wait_for(lambda: callers._work_queue.empty() and any(one.done() for one in waiting))
        server.terminate()
        assert [one.result().status_code for one in waiting] == [200] * 16, [one.result().text for one in waiting]


@pytest.mark.parametrize("forked", ["true", "false"])
def test_sigterm_is_obeyed_while_processes_are_being_started(tmp_path: Path, forked: str) -> None:
    server = Server(tmp_path, {"FORK_PROCESSES": forked})
    server.spawn()
    assert server.process is not None
    try:
        watcher = psutil.Process(server.process.pid)
        wait_for(watcher.children)
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
            wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
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
            wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
            time.sleep(0.3)
            victim.send_signal(
                signal.SIGSTOP
            )  # first: once it is killed, a fast machine has the next one ready within a second
            # A proxy or an orchestrator must not take the service out for it.
            assert httpx.get(server.url + "/readyz", timeout=10).status_code == 200
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


def test_an_idle_connection_is_kept_longer_than_immich_keeps_it(server: Server) -> None:
    """Immich closes after 4 s; a server that closed sooner would lose requests. BentoML's own default would be 5 s."""
    with httpx.Client(base_url=server.url, limits=httpx.Limits(keepalive_expiry=100)) as client:
        first = client.get("/ping").extensions["network_stream"].get_extra_info("client_addr")
        time.sleep(6)
        assert client.get("/ping").extensions["network_stream"].get_extra_info("client_addr") == first


def test_models_are_preloaded_and_idle_ones_unloaded(tmp_path: Path) -> None:
    environment = {
        "MACHINE_LEARNING_PRELOAD__FACIAL_RECOGNITION__DETECTION": "buffalo_s",
        "MACHINE_LEARNING_MODEL_TTL": "1",
        "MACHINE_LEARNING_MODEL_TTL_POLL_S": "1",
    }
    with Server(tmp_path, environment) as server:
        loaded = 'immich_bento_models_loaded{runner="%s"} %s'
        wait_for(lambda: loaded % ("faces", "1.0") in httpx.get(server.url + "/metrics").text)
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
        wait_for(lambda: loaded % ("ocr", "0.0") in httpx.get(server.url + "/metrics").text)
        assert loaded % ("faces", "1.0") in httpx.get(server.url + "/metrics").text  # preloaded stays
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200


def test_a_process_whose_models_are_all_unloaded_is_replaced_by_a_small_one_and_no_request_is_lost(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, {"MACHINE_LEARNING_MODEL_TTL": "1", "MACHINE_LEARNING_MODEL_TTL_POLL_S": "1"}) as server:
        assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
        (used,) = server.workers("PictureRunner")
        memory = used.memory_full_info().uss
        wait_for(lambda: "a fresh process takes over" in server.log)
        while used.is_running():  # in its last moments too
            assert post(server, multipart(ocr(), image=PAGE)).status_code == 200
        wait_for(lambda: server.workers("PictureRunner") not in ([], [used]))
        wait_for(lambda: 'immich_bento_models_loaded{runner="ocr"} 0.0' in httpx.get(server.url + "/metrics").text)
        # The one that took over may have answered the last requests, and be replaced in its turn.
        wait_for(lambda: [own < memory / 2 for own in _own_memory(server, "PictureRunner")] == [True])
        assert "Traceback" not in server.log


def _own_memory(server: Server, service: str) -> list[int]:
    """Return the bytes that each process of ``service`` has for itself."""
    sizes = []
    for worker in server.workers(service):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(worker.memory_full_info().uss)
    return sizes


def test_a_damaged_model_is_told_apart_and_mended_models_are_tried_again(tmp_path: Path) -> None:
    from tests.e2e.test_predict import T1

    folder = tmp_path / "models/facial-recognition/antelopev2"
    (folder / "detection").mkdir(parents=True)
    (folder / "detection/model.onnx").write_bytes(b"half a download")
    (tmp_path / "models/clip/ViT-B-16/visual").mkdir(parents=True)
    with Server(tmp_path, {"MODEL_RETRY_AFTER": "1", "CLIP_MODEL": "ViT-B-16"}, ready_path="/livez") as server:
        wrong = post(server, multipart(faces("antelopev2"), image=T1))
        assert (wrong.status_code, wrong.json()["code"]) == (503, "model_unavailable")
        for needed in ("antelopev2", "model.onnx has wrong bytes"):
            assert needed in wrong.json()["detail"]
        assert str(folder / "detection/model.onnx") in server.log
        missing = post(server, multipart(clip_visual(), image=T1))
        assert missing.status_code == 503
        assert "ViT-B-16" in missing.json()["detail"]
        assert "visual/model.onnx" in server.log  # what its folder lacks
        assert httpx.get(server.url + "/readyz").status_code == 503
        assert post(server, multipart(faces("buffalo_s"), image=T1)).status_code == 200
        shutil.rmtree(tmp_path / "models/clip")
        tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
        time.sleep(1.2)
        assert post(server, multipart(clip_visual(), image=T1)).status_code == 200
        server.ready_path = "/readyz"
        server.wait_until_ready()


@pytest.mark.parametrize("forked", ["true", "false"])
def test_workers_end_when_the_process_that_watches_them_is_killed(tmp_path: Path, forked: str) -> None:
    """They would hold the port, and answer pings, for ever."""
    with Server(tmp_path, {"FORK_PROCESSES": forked}) as server:
        processes = server.processes()
        assert server.process is not None
        server.process.kill()
        assert psutil.wait_procs(processes, timeout=15)[1] == []
        assert is_free(server.port)


def test_a_forced_end_is_no_success(tmp_path: Path) -> None:
    big = jpeg(page(["很长的一页 long page"] * 60, size=(4000, 8000)))
    with (
        concurrent.futures.ThreadPoolExecutor(4) as callers,  # left last: what they ask for takes minutes
        Server(tmp_path, {"SHUTDOWN_TIMEOUT": "1", "MAX_BATCH": "1"}) as server,
    ):
        (runner,) = server.workers("PictureRunner")
        asking = [callers.submit(post, server, multipart(ocr(max_resolution=4000), image=big)) for _ in range(4)]
        wait_for(lambda: "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text)
        time.sleep(0.5)
        runner.send_signal(signal.SIGTERM)
        wait_for(lambda: "PictureRunner (process" in server.log)
    assert any(isinstance(one.exception(), httpx.TransportError) for one in asking)
    assert f"PictureRunner (process {runner.pid}) ended with status 1" in server.log
    assert "the process ends without it" in server.log
