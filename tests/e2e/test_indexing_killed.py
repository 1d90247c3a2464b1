"""kill -9 of the service, the database and the command in the middle of a run, five times: nothing is lost, doubled or
half written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

import httpx
import psutil
import pytest

from tests.e2e.indexed import KEY, Place, place, write_noise
from tools.harness.server import Server

PICTURES = 1000
KILLED = (("service",), ("database",), ("service", "database"), ("database",), ("service", "database", "command"))
"""Processes that are killed in each round, as soon as another sixth of the pictures is stored."""


def _kill_service(server: Server) -> None:
    for process in server.processes():
        with contextlib.suppress(psutil.Error):
            if process.name() != "postgres":
                process.kill()
    assert server.process is not None
    server.process.wait(10)


def _kill_database(here: Place) -> None:
    pid = here.postmaster()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_five_kills_in_the_middle_of_a_thousand_pictures_cost_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with place(SHUTDOWN_TIMEOUT="2") as here:
        write_noise(here.folder / "pictures", PICTURES)
        arguments = ("index", str(here.folder / "pictures"), "--tasks", "clip", "--no-progress", "--jobs", "4")
        told, began = [], time.monotonic()
        with contextlib.ExitStack() as servers:
            server = servers.enter_context(here.server())
            command = here.command(*arguments)
            for number, victims in enumerate(KILLED, start=1):
                here.wait_for(number * PICTURES // (len(KILLED) + 1), command)
                at = here.stored()
                if "command" in victims:
                    command.kill()
                    command.communicate()
                if "database" in victims:
                    _kill_database(here)
                if "service" in victims:
                    _kill_service(server)
                    server = servers.enter_context(here.server())
                if "command" in victims:
                    command = here.command(*arguments)
                told.append(f"{' + '.join(victims)} at {at}")
            said, _ = command.communicate(timeout=300)
            assert command.returncode == 0, said
            seconds = time.monotonic() - began
            _search_is_back(server)
            _nothing_is_wrong(here)
            assert "0 computed, 1,000 unchanged" in here.run(*arguments)
        with capsys.disabled():
            print(  # noqa: T201 - figures for a person
                f"\nkilled: {'; '.join(told)}; {seconds:.0f} s in all; the last run: {said.splitlines()[0]}"
            )


def _search_is_back(server: Server) -> None:
    """Check that the service opens its database by itself, whoever killed it."""
    deadline = time.monotonic() + 60
    while (answer := httpx.get(server.url + "/stats", headers={"api-key": KEY}, timeout=30)).status_code == 503:
        assert time.monotonic() < deadline, f"{answer.text}\n{server.log}"
        time.sleep(0.2)
    assert answer.json()["assets"] == PICTURES


def _nothing_is_wrong(here: Place) -> None:
    (row,) = here.rows(
        """
        SELECT (SELECT count(*) FROM immich_ai.asset) AS assets,
               (SELECT count(DISTINCT uri) FROM immich_ai.asset) AS uris,
               (SELECT count(*) FROM immich_ai.embedding) AS vectors,
               (SELECT count(*) FROM immich_ai.asset a LEFT JOIN immich_ai.embedding e ON e.asset_id = a.id WHERE e
               IS NULL) AS half,
               (SELECT count(*) FROM immich_ai.embedding WHERE vector_dims(vector) <> 512) AS odd,
               (SELECT count(*) FROM immich_ai.failure) AS failures,
               (SELECT count(*) FROM pg_indexes WHERE tablename = 'embedding' AND indexdef LIKE '%%hnsw%%') AS indexes
        """
    )
    assert row == {
        "assets": PICTURES,
        "uris": PICTURES,
        "vectors": PICTURES,
        "half": 0,
        "odd": 0,
        "failures": 0,
        "indexes": 1,
    }
