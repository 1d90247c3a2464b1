"""What importing the service does (nothing), and what keeps it from starting."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from runners.bento.listen import address_problem, holder, own_addresses, watcher_of
from settings import Settings

ROOT = Path(__file__).parents[3]

# Imports the service in a fork of this process for each line of standard input, an environment as JSON, with everything
# counted that would start, patch or end something. Prints what was counted, then END and the status of the fork.
IMPORTER = """
import json, logging, os, signal, socket, subprocess, sys, threading
import psutil, circus.controller, circus.process, bentoml

def import_service():
    done = []
    sys.addaudithook(lambda event, args: done.append(event) if event in (
        "os.fork", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen", "socket.bind", "socket.connect",
        "_thread.start_new_thread", "_thread.start_joinable_thread", "signal.pthread_kill", "os.kill") else None)
    os.register_at_fork(before=lambda: done.append("fork"))
    watched = lambda: [circus.controller.SysHandler, circus.process.Popen, signal.getsignal(signal.SIGTERM),
                       signal.getsignal(signal.SIGINT), logging.getLogger().handlers[:], sys.excepthook]
    before = watched()
    try:
        import service
        told = None
    except BaseException as error:
        told = [type(error).__name__, str(error)]
    print(json.dumps({"done": done, "patched": watched() != before, "threads": threading.active_count(),
        "children": len(psutil.Process().children()), "told": told, "engine": [
            name for name in ("openvino", "onnxruntime") if name in sys.modules]}), flush=True)

while line := sys.stdin.readline():
    if not (child := os.fork()):
        os.environ.clear()
        os.environ.update(json.loads(line))
        import_service()
        os._exit(0)
    print("END", os.waitpid(child, 0)[1], flush=True)
"""
Import = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def import_service() -> Iterator[Import]:
    """Yield a function that imports the service with more variables than those here, and returns what it did."""
    kept = {name: value for name, value in os.environ.items() if name.isupper() and not name.startswith("IMMICH_")}
    importer = subprocess.Popen(
        (sys.executable, "-c", IMPORTER), cwd=ROOT, env=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with importer:
        assert importer.stdin is not None
        assert importer.stdout is not None
        asked, told = importer.stdin, importer.stdout

        def run(**environment: str) -> dict[str, object]:
            asked.write(json.dumps({**kept, **environment}) + "\n")
            asked.flush()
            said = ["nothing"]
            while said[-1] and not said[-1].startswith("END"):  # empty: the process has ended
                said.append(told.readline())
            assert said[-1] == "END 0\n", said
            found: dict[str, object] = json.loads(said[-2])
            return found

        yield run


def test_importing_the_service_starts_forks_and_patches_nothing(import_service: Import) -> None:
    assert import_service(PRECISION="bf16") == {
        "done": [],
        "patched": False,
        "threads": 1,
        "children": 0,
        "told": None,
        "engine": [],
    }


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DEVICE": "gpu", "MAX_BATCH": "none"}, ["DEVICE", "MAX_BATCH", "docs/settings.md"]),
        (
            {"CLIP_MODEL": "no-such-model"},
            ["CLIP_MODEL: No clip model is called 'no-such-model'", "python -m models list"],
        ),
        (
            {"MACHINE_LEARNING_PRELOAD__OCR__DETECTION": "PP-OCRv6_small, no-such-model"},
            ["MACHINE_LEARNING_PRELOAD__OCR__DETECTION: No ocr model is called 'no-such-model'"],
        ),
        ({"DATABASE_URL": "mysql://immich@db/immich"}, ["DATABASE_URL: must read like postgresql://"]),
        (
            {"DATABASE_URL": "postgres//immich@db", "API_AUTH_KEY": "a key"},
            ["DATABASE_URL: must read like postgresql://"],
        ),
        ({"MODEL_CATALOG": "/nowhere.toml"}, ["/nowhere.toml"]),
        ({"MACHINE_LEARNING_PRELOAD": "{"}, ["MACHINE_LEARNING_PRELOAD: "]),
    ],
)
def test_settings_problems_are_an_error_that_bentoml_prints_as_a_sentence(
    import_service: Import, environment: dict[str, str], words: list[str]
) -> None:
    found = import_service(**environment)
    told = found["told"]
    assert isinstance(told, list)
    assert told[0] == "StartError"
    assert told[1].startswith("immich-bento does not start: ")
    assert [word for word in words if word not in told[1]] == []
    assert (found["done"], found["patched"], found["threads"]) == ([], False, 1)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_AUTH_KEY", "hunter2-secret"),
        ("DATABASE_URL", "postgresql://immich:hunter2-secret@[broken"),
        ("IMMICH_API_KEY", "hunter2-secret"),
        ("UPSTREAM_HEADER", "Authorization hunter2-secret"),
        ("IMMICH_API", "http://user:hunter2-secret@box:3003"),
        ("IMMICH_API", "http://box:3003?key=hunter2-secret"),
        ("MACHINE_LEARNING_PRELOAD__CLIP", "hunter2-secret"),
        ("MACHINE_LEARNING_PRELOAD", '["hunter2-secret"]'),
    ],
)
def test_a_secret_never_appears_in_what_is_told(import_service: Import, variable: str, value: str) -> None:
    """Beside a setting that is wrong too, so that something is told in any case."""
    told = import_service(**{variable: value, "MAX_BATCH": "none"})["told"]
    assert isinstance(told, list)
    assert "MAX_BATCH" in told[1] or variable.removesuffix("__CLIP") in told[1]
    assert "hunter2" not in told[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"DATABASE_URL": ["hunter2"]},
        {"API_AUTH_KEY": ["hunter2"]},
        {"IMMICH_API_KEY": {"hunter2": 1}},
        {"MAX_BATCH": "hunter2"},
        {"MACHINE_LEARNING_PRELOAD": {"clip": {"visual": ["hunter2"]}}},
        {"MACHINE_LEARNING_PRELOAD": {"ocr": "hunter2"}},
    ],
)
def test_an_error_of_the_settings_does_not_repeat_their_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, **wrong)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_told_with_who_has_it(taken: int) -> None:
    problem = address_problem("127.0.0.1", taken, "HTTP_PORT")
    assert problem is not None
    me = psutil.Process()
    assert problem == (
        f"port {taken} is taken by {me.name()} (process {me.pid}); end that, or choose another port with HTTP_PORT "
        f"(now {taken})."
    )
    assert holder(taken) == me


SERVE = """
import socket, subprocess, sys, time
from pathlib import Path
listening = socket.create_server(("127.0.0.1", 0))
worker = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "--service-name", *sys.argv[2:]]
child = subprocess.Popen(worker, stdout=subprocess.PIPE, pass_fds=[listening.fileno()])
child.stdout.readline()
print(listening.getsockname()[1], child.pid, flush=True)
try:
    time.sleep(60)
finally:
    child.kill()
"""


@pytest.mark.parametrize("service", ["immich_bento", "another"])
def test_a_port_that_a_service_of_this_kind_has_is_told_with_the_process_to_end(service: str, tmp_path: Path) -> None:
    program = tmp_path / "bentoml"
    program.write_text(SERVE, "utf-8")
    with subprocess.Popen([sys.executable, program, "serve", service], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        port, worker = map(int, watcher.stdout.readline().split())
        try:
            problem = address_problem("127.0.0.1", port, "IMMICH_PORT")
            found = watcher_of(psutil.Process(worker))
        finally:
            psutil.Process(worker).kill()
            watcher.kill()
    assert problem is not None
    if service == "immich_bento":
        assert found is not None
        assert found.pid == watcher.pid
        assert problem == (
            f"port {port} is taken by another immich-bento (process {watcher.pid}); stop it with Ctrl+C there or "
            f"`kill {watcher.pid}`, or choose another port with IMMICH_PORT (now {port})."
        )
    else:
        assert found is None
        assert "immich-bento" not in problem


def test_a_free_port_is_no_problem_and_stays_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert address_problem("127.0.0.1", port) is None
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_an_address_of_another_machine_is_told_with_those_of_this_one() -> None:
    problem = address_problem("192.0.2.77", 3003)
    assert problem is not None
    assert "192.0.2.77 is not an address of this machine" in problem
    assert "127.0.0.1" in problem
    assert "127.0.0.1" in own_addresses()


def test_a_port_without_the_rights_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    problem = address_problem("127.0.0.1", 80)
    assert problem is not None
    assert "port 80 needs rights" in problem
    assert "IMMICH_PORT" in problem
