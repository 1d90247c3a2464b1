"""The speed of indexing a folder, by the service and on a Ray cluster of this machine, beside that of ``/predict``.

The same pictures for all three, CLIP and OCR of each: previews of photos and rendered pages, by the weights of the
other benchmarks. A rate counts from the time when a tenth of the pictures is stored, so that no start is in it. All in
turns; medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

from runners.engine.threads import available_cores
from search.store.database import open_database
from settings import Settings
from tools.bench.load import closed_loop
from tools.bench.report import Cell, Table, progress
from tools.bench.weights import weights
from tools.bench.workload import pictures
from tools.harness.immich_client import clip_visual, multipart, ocr
from tools.harness.open_folder import open_folder
from tools.harness.server import ROOT, Server, free_port

_CALLERS = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=80, help="in the folder (80)")
    parser.add_argument("--rounds", type=int, default=3, help="alternations (3)")
    parser.add_argument("--seconds", type=float, default=20, help="of /predict's load (20)")


def run(options: argparse.Namespace) -> list[Table]:
    if find_spec("ray") is None:
        raise SystemExit("There is no ray: make test-ray installs it.")
    with open_folder() as folder:
        library = folder / "library"
        library.mkdir()
        for number, picture in enumerate(islice(cycle(pictures("joint")), options.pictures)):
            # What follows the end of a JPEG is not read, and makes each file another one.
            (library / f"{number:05}.jpg").write_bytes(picture + str(number).encode())
        environment = {
            **weights().environment,
            "IMMICH_PORT": str(free_port()),
            "SEARCH_ENABLED": "true",
            "SEARCH_FOLDER": str(folder / "search"),
            "OFFLINE": "true",
            "IMMICH_LOG_LEVEL": "warning",
        }
        rounds = [_round(number, folder, library, environment, options.seconds) for number in range(options.rounds)]
    return [_table(rounds, options)]


def _round(
    number: int, folder: Path, library: Path, environment: Mapping[str, str], seconds: float
) -> tuple[float, float, float]:
    """Return pictures per second of ``/predict``, of the service's index, and of that on Ray."""
    progress(f"round {number + 1}")
    with Server(folder / f"served{number}", environment, port=int(environment["IMMICH_PORT"])) as server:
        bodies = [multipart(clip_visual() | ocr(), image=path.read_bytes()) for path in library.iterdir()]
        closed_loop(server.url, [bodies[:1]] * _CALLERS, 1)  # loads the models
        load = closed_loop(server.url, [bodies[at::_CALLERS] for at in range(_CALLERS)], seconds)
        if load.failures:
            raise RuntimeError(f"{len(load.failures)} requests failed, the first with {load.failures[0]}")
        served = _indexed(library, environment, f"service {number}")
    on_ray = _indexed(library, environment, f"ray {number}", "--ray", "local", "--ray-cpus", str(available_cores()))
    return load.per_second, served, on_ray


def _indexed(library: Path, environment: Mapping[str, str], owner: str, *more: str) -> float:
    """Index ``library`` for ``owner``, and return pictures per second once a tenth of them was stored."""
    command = (sys.executable, "-m", "search", "index", str(library), "--owner", owner, "--no-progress", *more)
    done = subprocess.run(  # this repository's own command
        (*command, "--jobs", str(_CALLERS)),
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode or " failed" in done.stdout:
        raise RuntimeError(done.stdout + done.stderr)
    at = _stored_at(environment, owner)
    first = len(at) // 10
    return (len(at) - 1 - first) / (at[-1] - at[first])


def _stored_at(environment: Mapping[str, str], owner: str) -> list[float]:
    """Return when each picture of ``owner`` was stored, Unix time, in order. Starts the database where it is down."""

    async def inside() -> list[float]:
        config = Settings(SEARCH_FOLDER=Path(environment["SEARCH_FOLDER"]))
        async with await open_database(config) as database, database.connection() as connection:
            found = await connection.execute(
                "SELECT added_at FROM immich_ai.asset WHERE owner = %s ORDER BY added_at", (owner,)
            )
            return [row["added_at"].timestamp() for row in await found.fetchall()]

    return asyncio.run(inside())


def _table(rounds: list[tuple[float, float, float]], options: argparse.Namespace) -> Table:
    predicted, served, on_ray = (statistics.median(column) for column in zip(*rounds, strict=True))
    rows: tuple[tuple[Cell, ...], ...] = (
        (f"/predict, {_CALLERS} callers", predicted, 1.0, "-"),
        ("search index", served, served / predicted, 1.0),
        ("search index --ray local", on_ray, on_ray / predicted, on_ray / served),
    )
    columns = ("how", "pictures per second", "of /predict", "of search index")
    note = "Targets: search index 0.95 of /predict; on Ray 0.95 of search index."
    return Table(f"Indexing {options.pictures} pictures, CLIP and OCR", columns, rows, note)
