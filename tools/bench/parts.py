"""CPU time of a request by part: decoding, preprocessing, inference, post-processing, serialising and transport.

One picture a call and one thread, in this process, with the models, engine and precision that the settings ask for, and
with the runners' options of the allocator, which make page faults that other processes do not have.
``preprocess``: resized, normalised, and faces and lines cut out. ``serialise``: job and result as they travel, the
answer as JSON. Then the same requests over HTTP to the real service, by process: ``gateway``, less ``serialise``: HTTP,
multipart, sockets. ``runner, besides``: the process with the models, less all of the above: its socket, batcher and
threads, and whatever the same work costs more or less there; it is negative if too few rounds were measured to tell.
``background``: what all processes take while nothing is asked, for as long as a request lasted. All is CPU time, which
is what throughput is made of, and which neighbours on the machine distort little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import runners.faces
import runners.ocr
import runners.pictures.decode
import runners.pictures.header
from compat.immich.answers import clip_answer, faces_answer, ocr_answer, to_json
from models.catalog import load_catalog
from runners.allocator import configure_allocator
from runners.bento.codec import decode_picture, decode_results, encode_picture, encode_results
from runners.clip.preprocessing import Preprocessing
from runners.contract import Ask, FaceOptions, Failure, ImageJob, OcrOptions, Options, PictureJob
from runners.engine import Session, plan_engine
from runners.faces.graph import PictureGraph
from runners.pictures.header import Header
from runners.task import Loading, Task
from runners.tasks import CLIP_IMAGE, FACES, OCR, tasks_by_name
from settings import Settings
from tools.bench.load import Connection
from tools.bench.processes import CpuTime, cpu_of
from tools.bench.report import Cell, Table
from tools.bench.stopwatch import MeasuredSession, Stopwatch
from tools.bench.weights import TINY, weights
from tools.bench.workload import pictures, request
from tools.harness.server import Server

_SEAMS: Mapping[str, Sequence[tuple[ModuleType | type, str]]] = {
    "decode": [
        (runners.pictures.decode, "decode_image"),
        (runners.pictures.decode, "decode"),
    ],
    "preprocess": [
        *((Preprocessing, name) for name in ("_resize", "normalised")),
        *((PictureGraph, "_normalise"), (runners.faces.detection, "letterbox"), (runners.faces, "aligned_crop")),
        *((runners.ocr.detection, name) for name in ("_resize", "_normalise")),
        *((runners.ocr, "cut_line"), (runners.ocr.recognition, "_pad")),
    ],
}
"""The functions that these parts consist of. What a model does besides them and inference is ``post-process``."""
_IN_PROCESS = ("decode", "preprocess", "infer", "post-process", "serialise")
_PARTS = (*_IN_PROCESS, "gateway", "runner, besides", "background")
_RUNNER = "PictureRunner"
_SERVED = {"IMMICH_LOG_LEVEL": "warning", "RUNNER_PROCESSES": "shared"}
"""Settings of the service besides the models: on more cores each task would have a process of its own."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One task, and how it is asked for."""

    task: Task[Any]
    model: str
    """Unless the settings name another for all."""
    options: Options
    answer: Callable[[Any, Header], dict[str, Any]]
    """A result, and its picture's header, as the gateway answers it."""


_KINDS = {
    "clip": _Kind(CLIP_IMAGE, TINY, None, clip_answer),
    "face": _Kind(FACES, "buffalo_s", FaceOptions(min_score=0.7), faces_answer),
    "ocr": _Kind(OCR, "PP-OCRv6_small", OcrOptions(), ocr_answer),
}


@dataclass(frozen=True)
class _Measured(Loading):
    """Opens sessions whose inference is measured."""

    watch: Stopwatch

    def open(self, path: Path, **how: Any) -> Session:
        return MeasuredSession(super().open(path, **how), self.watch)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", nargs="+", choices=_KINDS, default=list(_KINDS), help="default: all")
    parser.add_argument("--pictures", type=int, default=8, help="different pictures per task, at most (8)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each picture is looked at (5)")
    parser.add_argument(
        "--idle", type=float, default=5, help="seconds without a request that show what the background takes (5)"
    )
    parser.add_argument(
        "--models",
        type=Path,
        help="cache folder with a CLIP model; default: see `python -m tools.bench compare --help`",
    )
    parser.add_argument("--tiny", action="store_true", help=f"{TINY} in place of a CLIP model of real size")


def run(options: argparse.Namespace) -> list[Table]:
    chosen = {"CLIP_MODEL": TINY} if options.tiny else dict(weights(options.models).environment)
    chosen["MACHINE_LEARNING_MODEL_INTRA_OP_THREADS"] = "1"
    config = Settings(**chosen)  # type: ignore[arg-type]
    rows: list[tuple[Cell, ...]] = []
    configure_allocator()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="immich-bento-bench-"))
        server = stack.enter_context(Server(Path(folder), {**chosen, **_SERVED}))
        # As in a runner: the allocator gives memory back otherwise in a process's first thread.
        lane = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        for task in options.tasks:
            sent = list(pictures(task))[: options.pictures]
            parts = lane.submit(_in_process, _KINDS[task], config, sent, options.rounds).result()
            served = _over_http(server, task, sent, options)
            rows += _rows(task, _with_transport(parts, served), served)
    return [
        Table(
            "CPU time by part",
            ("task", "part", "ms per picture", "%"),
            tuple(rows),
            "system: the kernel's part of all, in the service. "
            f"CLIP is {config.clip_model}. Engine: {config.engine}, precision: {config.precision}, device: "
            f"{config.device}, one thread.",
        )
    ]


@dataclass(frozen=True, slots=True)
class _Served:
    """CPU of the service for one request, by its processes."""

    runner: CpuTime
    others: CpuTime
    background: float
    """Seconds of both that would have been taken without a request, too."""


def _with_transport(parts: Mapping[str, float], served: _Served) -> dict[str, float]:
    """Return the seconds of all parts: those in process, and what the service takes besides."""
    models = sum(parts[name] for name in _IN_PROCESS) - parts["serialise"]
    return {
        **parts,
        "gateway": served.others.total - parts["serialise"],
        "runner, besides": served.runner.total - models - served.background,
        "background": served.background,
    }


def _rows(task: str, parts: Mapping[str, float], served: _Served) -> list[tuple[Cell, ...]]:
    whole, system = sum(parts.values()), served.runner.system + served.others.system
    seconds = [*((name, parts[name]) for name in _PARTS), ("all", whole), ("system", system)]
    # The kernel counts a server's CPU in ticks of 10 ms: a single picture may take none.
    return [(task, name, part * 1000, part / whole * 100 if whole else "-") for name, part in seconds]


def _in_process(kind: _Kind, config: Settings, sent: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Measure CPU seconds per picture by part, without transport."""
    watch = Stopwatch()
    using = _Measured(load_catalog(), config, plan_engine(config), watch)
    with watch.watching(_SEAMS):
        model = kind.task.load(kind.task.override(config) or kind.model, using)
        try:
            for number in range(rounds + 1):
                if number == 1:  # the first round meets every shape once
                    watch.seconds.clear()
                for picture in sent:
                    _once(kind, model, picture, config, watch)
        finally:
            model.close()
    return {name: watch.seconds.get(name, 0.0) / (rounds * len(sent)) for name in _IN_PROCESS}


def _once(kind: _Kind, model: Any, picture: bytes, config: Settings, watch: Stopwatch) -> None:
    tasks = tasks_by_name("")
    job = PictureJob(picture, (Ask(kind.task.name, "bench", kind.options),))
    with watch.measuring("serialise"):
        arrived = decode_picture(*encode_picture(job), tasks)
    with watch.measuring("post-process"):
        (result,) = model.run([ImageJob(arrived.data, "bench", arrived.asks[0].options)])
    if isinstance(result, Failure):
        result.raise_()
    header = runners.pictures.header.read_header(picture, max_pixels=config.max_picture_pixels)
    with watch.measuring("serialise"):
        results = decode_results(encode_results({kind.task.name: result}), tasks)
        to_json(kind.answer(results[kind.task.name], header))


def _over_http(server: Server, task: str, sent: Sequence[bytes], options: argparse.Namespace) -> _Served:
    """Measure the CPU that the service takes for a picture."""
    bodies = [request(task, picture) for picture in sent]
    with Connection(server.url) as connection:
        for body in bodies:
            connection.predict(body)
        before, began = _cpu(server), time.perf_counter()
        for _ in range(options.rounds):
            for body in bodies:
                connection.predict(body)
        seconds, after = time.perf_counter() - began, _cpu(server)
    time.sleep(options.idle)
    idle = sum((late - early).total for late, early in zip(_cpu(server), after, strict=True)) / options.idle
    runner, others = (
        (late - early) / (options.rounds * len(bodies)) for late, early in zip(after, before, strict=True)
    )
    return _Served(runner, others, idle * seconds / (options.rounds * len(bodies)))


def _cpu(server: Server) -> tuple[CpuTime, CpuTime]:
    """Return the CPU time so far of the process with the models, and of all others."""
    runners = server.workers(_RUNNER)
    return cpu_of(runners), cpu_of(process for process in server.processes() if process not in runners)
