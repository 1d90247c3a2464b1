"""This working tree against an older commit of the project, with the same weights: nothing may have become slower.

The commit is unpacked into ~/.cache/immich-bento-bench/commits, where its own Makefile installs the packages that it
pins. Both services are loaded in turns: every task with 1, 4 and 16 callers, and `joint`, one request for CLIP, faces
and OCR of one picture. For the latter the bytes that the runner processes read per request are counted too (Linux:
rchar of /proc/PID/io), most of which is the picture. `make bench-against REF=a77f433` runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tools.bench import compare, contenders
from tools.bench.compare import Loading, Rounds
from tools.bench.figures import median, ratios
from tools.bench.generator import Extent, closed_loop
from tools.bench.report import Table, progress
from tools.bench.verdicts import Verdict, at_least, at_most, verdict_table
from tools.bench.workload import TASKS, bodies
from tools.harness.server import ROOT, Server

COMMITS = Path("~/.cache/immich-bento-bench/commits")
RUNNERS = ("PictureRunner", "ClipTextRunner", "ClipImageRunner", "FaceRunner", "OcrRunner")
"""Process names of the runners, which every commit shares."""
JOINT = "joint"
_LEAST_THROUGHPUT, _MOST_LATENCY, _MOST_MEMORY, _MOST_BYTES = 0.98, 1.02, 1.02, 0.36
"""Ratios to the peer: 2 % is what two runs of the same code differ by; a third of the bytes and some headers."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_server_options(parser)
    parser.add_argument("ref", metavar="REF", help="the older commit: a hash, a branch or a tag")
    parser.add_argument("--seconds", type=float, default=3, help="of load per round (3)")
    parser.add_argument("--requests", type=int, help="requests per round, in place of --seconds")
    parser.add_argument("--rounds", type=int, default=5, help="alternations (5)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16], help="closed-loop callers (1 4 16)")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=["clip", "text", "face", "ocr", JOINT], help="(all)"
    )
    parser.add_argument("--python", type=Path, help="run the commit with this Python, in place of one of its own")


def run(options: argparse.Namespace) -> list[Table]:
    folder = unpacked(options.ref)
    python = options.python.absolute() if options.python else installed(folder)
    with _both(options, folder, python) as servers:
        targets = [contenders.target(name, server) for name, server in servers.items()]
        loadings = [Loading(Extent(options.seconds, options.requests), callers=n) for n in options.concurrency]
        results: dict[tuple[str, str], Rounds] = {}
        for task in options.tasks:
            results |= compare.compare(task, targets, loadings, rounds=options.rounds)
        verdicts = speed_verdicts(results)
        found = compare.tables(results)
        if JOINT in options.tasks:
            read = {name: bytes_per_request(server, bodies(JOINT)) for name, server in servers.items()}
            found.append(_bytes_table(read))
            verdicts.append(at_most("bytes that runners read per joint request / peer's", _quotient(read), _MOST_BYTES))
    return [*found, verdict_table(verdicts)]


def unpacked(ref: str) -> Path:
    """Return the folder with the files of the commit, after unpacking it if need be.

    Raise ``ValueError`` if git knows no such commit.
    """
    named = subprocess.run(
        ("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if named.returncode:
        raise ValueError(f"git knows no commit {ref!r} here. Name a hash, a branch or a tag.")
    folder = COMMITS.expanduser() / named.stdout.strip()[:12]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix="unpacking-") as temporary:
            archive, tree = Path(temporary, "tree.tar"), Path(temporary, "tree")
            subprocess.run(("git", "archive", f"--output={archive}", named.stdout.strip()), cwd=ROOT, check=True)
            with tarfile.open(archive) as tar:
                tar.extractall(tree, filter="data")
            shutil.move(tree, folder)
    return folder


def installed(folder: Path) -> Path:
    """Return the Python of the commit in ``folder``, after its Makefile has installed what it needs to serve."""
    progress(f"installing what {folder} needs to serve, once")
    subprocess.run(("make", ".venv/.serve", f"PYTHON={sys.executable}"), cwd=folder, check=True, stdout=sys.stderr)
    return folder / ".venv/bin/python"


@contextlib.contextmanager
def _both(options: argparse.Namespace, folder: Path, python: Path) -> Iterator[dict[str, Server]]:
    """Start both services with the same settings, yield them when they are ready, ours first, and stop them."""
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name in ("ours", "peer"):
            logs = Path(stack.enter_context(TemporaryDirectory(prefix="immich-bento-bench-")))
            kept = contenders.KEPT.expanduser()
            server = contenders.our_server(
                options, logs, cache=kept if name == "ours" else kept.with_name(f"served-{folder.name}")
            )
            if name == "peer":
                server.command = (str(python), *server.command[1:])
                server.working_dir = folder
            servers[name] = stack.enter_context(server)
        yield servers


def speed_verdicts(results: Mapping[tuple[str, str], Rounds]) -> list[Verdict]:
    """Hold each task's throughput, p50 and memory at each load to those of the peer."""
    verdicts = []
    for (task, load), rounds in results.items():
        ours, peer = rounds.values()
        what = f"{task}, {load} callers"
        verdicts += [
            at_least(f"{what}: throughput / peer's", median(ratios(ours, peer, "per_second")), _LEAST_THROUGHPUT),
            at_most(f"{what}: p50 / peer's", median(ratios(ours, peer, "p50")), _MOST_LATENCY),
            at_most(f"{what}: memory / peer's", median(ratios(ours, peer, "pss")), _MOST_MEMORY),
        ]
    return verdicts


def bytes_per_request(server: Server, requests: Sequence[bytes]) -> float:
    """Return the bytes that the runner processes of ``server`` read for one of ``requests``, in the mean.

    Raise ``RuntimeError`` if a request fails.
    """
    before = _read_by_runners(server)
    load = asyncio.run(closed_loop(server.url, requests, callers=1, extent=Extent(requests=len(requests))))
    if load.failures:
        raise RuntimeError(f"{server.url}: {load.failures[0]}")
    return (_read_by_runners(server) - before) / len(requests)


def _read_by_runners(server: Server) -> int:
    processes = [process for runner in RUNNERS for process in server.workers(runner)]
    return sum(psutil.Process(process.pid).io_counters().read_chars for process in processes)


def _quotient(read: Mapping[str, float]) -> float:
    return read["ours"] / read["peer"] if read["peer"] else float("nan")


def _bytes_table(read: Mapping[str, float]) -> Table:
    sent = sum(map(len, bodies(JOINT))) / len(bodies(JOINT))
    return Table(
        "Bytes that the runner processes read per joint request",
        ("server", "kB", "times the request"),
        tuple((name, value / 1000, value / sent) for name, value in read.items()),
        "Mean over one request for each picture, sent by one caller.",
    )
