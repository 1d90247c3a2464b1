"""CPU time of a request by part: decoding, preprocessing, inference, post-processing, serialising and transport.

One picture a call and one thread, in this process, with the models, engine and precision that the settings ask for.
``preprocess``: resized, normalised, and faces and lines cut out. ``serialise``: job and result as they travel, the
answer as JSON. ``transport``: what all processes of the real service take for the same requests over HTTP, less all of
the above: HTTP, multipart, sockets, batcher, threads; and whatever the same work costs more there, with colder caches,
so that CLIP's is the cleanest figure. It is negative if too few rounds were measured to tell. All is CPU time, which is
what throughput is made of, and which neighbours on the machine distort little.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
from tools.bench.report import Cell, Table
from tools.bench.running import cpu_seconds
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
_PARTS = ("decode", "preprocess", "infer", "post-process", "serialise", "transport")


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
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="immich-bento-bench-"))
        server = stack.enter_context(Server(Path(folder), {**chosen, "IMMICH_LOG_LEVEL": "warning"}))
        for task in options.tasks:
            sent = list(pictures(task))[: options.pictures]
            parts = _in_process(_KINDS[task], config, sent, options.rounds)
            parts["transport"] = _over_http(server, task, sent, options.rounds) - sum(parts.values())
            rows += _rows(task, parts)
    return [
        Table(
            "CPU time by part",
            ("task", "part", "ms per picture", "%"),
            tuple(rows),
            f"CLIP is {config.clip_model}. Engine: {config.engine}, precision: {config.precision}, device: "
            f"{config.device}, one thread.",
        )
    ]


def _rows(task: str, parts: Mapping[str, float]) -> list[tuple[Cell, ...]]:
    whole = sum(parts.values())
    rows: list[tuple[Cell, ...]] = [(task, name, parts[name] * 1000, parts[name] / whole * 100) for name in _PARTS]
    return [*rows, (task, "all", whole * 1000, 100.0)]


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
    return {name: watch.seconds.get(name, 0.0) / (rounds * len(sent)) for name in _PARTS[:-1]}


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


def _over_http(server: Server, task: str, sent: Sequence[bytes], rounds: int) -> float:
    """Measure the CPU seconds that the service takes for a picture."""
    bodies = [request(task, picture) for picture in sent]
    with Connection(server.url) as connection:
        for body in bodies:
            connection.predict(body)
        before = cpu_seconds(server)
        for _ in range(rounds):
            for body in bodies:
                connection.predict(body)
    return (cpu_seconds(server) - before) / (rounds * len(bodies))
