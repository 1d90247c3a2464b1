"""What the tests of indexing share: a service with its own database, the command, and looks into the database from
outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
from PIL import Image
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from search.embedded.server import DATABASE
from search.embedded.setup import server_user, socket_folder
from tools.harness.open_folder import open_folder
from tools.harness.server import ROOT, Server, free_port

KEY = "a key of the tests"


@dataclass(frozen=True)
class Place:
    """Folder and settings of a service under test."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def data(self) -> Path:
        return Path(self.environment["SEARCH_FOLDER"]) / "postgresql"

    def server(self) -> Server:
        """Return the service, not started; every one of a place listens on the same port."""
        return Server(self.folder, self.environment, port=int(self.environment["IMMICH_PORT"]))

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``python -m search`` and return its process."""
        return subprocess.Popen(
            (sys.executable, "-m", "search", *arguments),
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Return what ``python -m search`` says; it must succeed."""
        process = self.command(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def postmaster(self) -> int | None:
        """Return the process id of the database, or None if it does not run."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            return pid
        return None

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of ``query``, by a connection of its own, which starts no database that is down."""
        conninfo = make_conninfo(
            "", host=str(socket_folder(self.data, server_user())), user="postgres", dbname=DATABASE
        )
        with psycopg.connect(conninfo, row_factory=dict_row, connect_timeout=10) as connection:
            return connection.execute(query.encode()).fetchall()

    def stored(self) -> int:
        """Return how many pictures the index has; 0 while there is no database, or no schema in it."""
        try:
            [row] = self.rows("SELECT count(*) AS n FROM immich_ai.asset")
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return 0
        return int(row["n"])

    def wait_for(self, stored: int, command: subprocess.Popen[str]) -> None:
        """Wait until the index has so many pictures, which ``command`` must not end before."""
        deadline = time.monotonic() + 300
        while self.stored() < stored:
            assert command.poll() is None, command.communicate()[0]
            assert time.monotonic() < deadline, f"stuck at {self.stored()} of {stored}"
            time.sleep(0.02)


def write_noise(folder: Path, pictures: int) -> None:
    """Make ``folder`` with so many pictures, all different and quick to compute."""
    folder.mkdir()
    random = np.random.default_rng(20240229)
    for number in range(pictures):
        Image.fromarray(random.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"{number:04}.png")


@contextlib.contextmanager
def place(**environment: str) -> Iterator[Place]:
    """Yield a new place; at the end its database is stopped if it still runs, and its files are removed."""
    with open_folder() as folder:
        settings = {
            "IMMICH_PORT": str(free_port()),
            "CLIP_MODEL": "cn-clip-tiny",
            "OCR_MODEL": "PP-OCRv6_small",
            "API_AUTH_KEY": KEY,
            "SEARCH_ENABLED": "true",
            "SEARCH_FOLDER": str(folder / "search"),
            "OFFLINE": "true",
            **environment,
        }
        here = Place(folder, settings)
        try:
            yield here
        finally:
            if (pid := here.postmaster()) is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    database = psutil.Process(pid)
                    database.send_signal(signal.SIGQUIT)  # at once; its files go anyway
                    database.wait(20)
