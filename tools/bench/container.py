"""The container image against the same service without a container, on one machine: start, memory, throughput.

The image is run by podman as compose.yaml runs it: read-only, without capabilities, as user 1000, its port published.
The other is ``bentoml serve`` of this working tree, as ``make serve`` starts it. Both have the same settings and
weights and keep what they compile, the container in the volume ``immich-bento-bench``. Each is started once to compile,
then in turns; memory (PSS of all processes) is looked at while one runs alone; for the loads both run, and are asked in
turns. "ours" is the container, "peer" the service without. ``make image`` builds the image. Takes five minutes on two
cores.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.bench import compare, contenders, start
from tools.bench.compare import Loading, Rounds
from tools.bench.figures import median, ratios
from tools.bench.generator import Extent
from tools.bench.processes import ProcessTree
from tools.bench.report import Cell, Table, progress
from tools.bench.start import Times
from tools.bench.target import Target
from tools.bench.verdicts import Verdict, at_least, verdict_table
from tools.bench.weights import weights
from tools.bench.workload import bodies
from tools.harness.podman import Container, image_exists
from tools.harness.server import Server
from tools.image.build import image_tag

TASKS = ("clip", "face", "ocr")
LEAST_THROUGHPUT = 0.97
VOLUME = "immich-bento-bench"
_CLIP = "/clip"
_HARDENED = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--user", "1000:1000", "--cap-drop", "ALL")
_SETTLE = 3.0
"""Seconds after which a service that has just started is idle."""


def add_options(parser: argparse.ArgumentParser) -> None:
    contenders.add_our_options(parser)
    add_image_option(parser)
    parser.add_argument("--starts", type=int, default=3, help="starts of each (3)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations of each load (5)")
    parser.add_argument("--seconds", type=float, default=4, help="of load per round (4)")
    parser.add_argument("--concurrency", type=int, default=4, help="closed-loop callers (4)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="(all)")
    parser.add_argument("--rest", type=float, default=13, help="seconds before memory is looked at again, at rest (13)")


def add_image_option(parser: argparse.ArgumentParser) -> None:
    """Add the option of every benchmark that runs the image."""
    parser.add_argument("--image", default=f"localhost/{image_tag('cpu')}", help="the image (that of make image)")


def require_image(image: str) -> None:
    """Raise ``RuntimeError`` where podman or the image is not here."""
    if shutil.which("podman") is None:
        raise RuntimeError("podman is not here (on Debian: apt install podman).")
    if not image_exists(image):
        raise RuntimeError(f"podman has no image {image}: build it with `make image ARGS='--backend podman'`.")


def run(options: argparse.Namespace) -> list[Table]:
    """Measure both. Raise ``RuntimeError`` where podman or the image is not here."""
    require_image(options.image)
    note = Table("Weights", ("", ""), (("image", options.image), ("CLIP", weights(options.models).note)))
    with TemporaryDirectory(prefix="immich-bento-bench-") as folder:
        times = _starts(options, Path(folder))
        memory = {name: _memory(name, options, Path(folder)) for name in ("ours", "peer")}
        results: dict[tuple[str, str], Rounds] = {}
        loading = Loading(Extent(options.seconds), callers=options.concurrency)
        with _started("ours", options, Path(folder)) as ours, _started("peer", options, Path(folder)) as peer:
            for task in options.tasks:
                results |= compare.compare(task, [ours, peer], [loading], rounds=options.rounds)
    return [
        note,
        _start_table(times),
        _memory_table(memory),
        *compare.tables(results),
        verdict_table(verdicts(results)),
    ]


def container(options: argparse.Namespace, *limits: str, volume: str | None = VOLUME) -> Container:
    """Return a container of the image with the settings of the benchmark, not yet started.

    ``limits``: further options of ``podman run``. ``volume``: what it keeps its cache in; None: in a new one.
    """
    settings = {**contenders.our_settings(options), "OFFLINE": "true"}
    mounts = [] if volume is None else ["-v", f"{volume}:/cache"]
    clip = settings.get("CLIP_DOWNLOAD_ROOT")
    if clip is not None:
        mounts += ["-v", f"{clip}:{_CLIP}:ro"]
        settings["CLIP_DOWNLOAD_ROOT"] = _CLIP
    given = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    return Container(options.image, [*_HARDENED, *limits, *mounts, *given])


def verdicts(results: dict[tuple[str, str], Rounds]) -> list[Verdict]:
    """Hold the container's throughput of each task to that of the service without."""
    found = []
    for (task, callers), rounds in results.items():
        ours, peer = rounds.values()
        ratio = median(ratios(ours, peer, "per_second"))
        found.append(at_least(f"{task}, {callers} callers: container / without", ratio, LEAST_THROUGHPUT))
    return found


def _without(options: argparse.Namespace, folder: Path) -> Server:
    return contenders.our_server(options, folder / "served", cache=contenders.KEPT.expanduser())


def _starts(options: argparse.Namespace, folder: Path) -> dict[str, list[Times]]:
    """Time the starts of both in turns, after one each that is not counted: it compiles."""
    times: dict[str, list[Times]] = {"ours": [], "peer": []}
    for _ in range(options.starts + 1):
        began = time.perf_counter()
        with container(options) as running:
            times["ours"].append(start.first_answers(running, began))
        times["peer"].append(start.timed_start(_without(options, folder)))
        progress(", ".join(f"{name}: first picture after {found[-1][1]:.1f} s" for name, found in times.items()))
    return {name: found[1:] for name, found in times.items()}


@contextlib.contextmanager
def _started(name: str, options: argparse.Namespace, folder: Path) -> Iterator[Target]:
    """Start one of the two, yield it when it is ready, and stop it."""
    if name == "ours":
        with container(options) as running:
            running.wait_until_ready()
            yield Target(name, running.url, ProcessTree(running.pid))
        return
    with _without(options, folder) as server:
        yield contenders.target(name, server)


def _memory(name: str, options: argparse.Namespace, folder: Path) -> tuple[float, float, float]:
    """Return MB of one that runs alone: idle, after each picture of every task, and the same at rest."""
    with _started(name, options, folder) as target:
        assert target.tree is not None
        time.sleep(min(_SETTLE, options.rest))
        idle = target.tree.pss()
        for task in (*TASKS, "text"):
            compare.warm_up(target, bodies(task))
        loaded = target.tree.pss()
        time.sleep(options.rest)
        return idle, loaded, target.tree.pss()


def _start_table(times: dict[str, list[Times]]) -> Table:
    columns = ("", "to /ping", "to the first CLIP picture", "to the first CLIP text")
    rows: list[tuple[Cell, ...]] = []
    for name, found in times.items():
        rows.append((name, *(median([one[part] for one in found]) for part in range(3))))
    return Table("Seconds from the start, medians", columns, tuple(rows), "The container's: from `podman run`.")


def _memory_table(memory: dict[str, tuple[float, float, float]]) -> Table:
    columns = ("", "idle", "all four models, after their pictures", "the same, at rest")
    return Table("Memory: PSS of all processes, MB", columns, tuple((name, *sizes) for name, sizes in memory.items()))
