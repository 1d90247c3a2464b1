"""The first start with each of CN-CLIP's architectures: seconds and memory from an empty cache to vectors.

A hub on loopback has a checkpoint in the official form and of the published size (fp32, random weights), and the
service is told nothing but ``CLIP_MODEL`` and where the hub is. It fetches, converts, loads and answers; a picture and
a text are asked for as soon as it listens, and wait. A real download takes longer. Everything is written to a folder
that is removed afterwards (``ViT-H-14``: 12 GB).
"""

from __future__ import annotations

import argparse
import mmap
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.catalog import ModelKind, load_catalog
from models.convert.architecture import KNOWN, Architecture
from tools.bench.load import Connection
from tools.bench.peak_memory import PeakMemory
from tools.bench.pictures import photos
from tools.bench.report import Cell, Table, progress
from tools.bench.weights import random_weight
from tools.harness.fake_hub import fake_hub
from tools.harness.immich_client import clip_textual, clip_visual, multipart
from tools.harness.server import Server

_COLUMNS = (
    "model",
    "checkpoint, MB",
    "to the first picture, s",
    "to the first text, s",
    "CPU, s",
    "the conversion's peak, MB",
    "the service's peak, MB",
    "of it not pages of files, MB",
)
_NOTE = (
    "The conversion's peak: resident memory of its process, with the pages of files that it reads and writes. The "
    "service's: PSS of all its processes, the conversion among them, which ends before the model is loaded. CPU: of "
    "all of them, until both were answered."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", nargs="+", choices=list(KNOWN), default=list(KNOWN), help="architectures (all)")
    parser.add_argument("--precision", default="auto", help="PRECISION of the service (auto)")


def run(options: argparse.Namespace) -> list[Table]:
    rows = []
    for name in options.names:
        progress(name)
        with tempfile.TemporaryDirectory(prefix="immich-bento-bench-") as folder:
            rows.append(_row(name, Path(folder), options.precision))
    return [Table("The first start with CN-CLIP", _COLUMNS, tuple(rows), _NOTE)]


def _row(name: str, folder: Path, precision: str) -> tuple[Cell, ...]:
    published = load_catalog().find(ModelKind.CLIP, name).checkpoint
    if published is None or published.huggingface is None:
        raise ValueError(f"The catalog names no checkpoint of {name} at Hugging Face.")
    data = random_checkpoint(KNOWN[name], folder / published.file)
    with fake_hub() as hub:
        hub.add_repository(published.huggingface, {published.file: data})
        settings = {"CLIP_MODEL": name, "PRECISION": precision, "OFFLINE": "false", "IMMICH_LOG_LEVEL": "warning"}
        settings |= {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": f"{hub.url}/ms"}
        bodies = (multipart(clip_visual(name), image=photos()[0]), multipart(clip_textual(name), text="海边的日落"))
        started = time.perf_counter()
        server = Server(folder / "served", settings, ready_path="/ping")
        server.spawn()
        try:
            assert server.process is not None
            with PeakMemory(server.process.pid, "models.conversion") as memory, ThreadPoolExecutor(2) as callers:
                server.wait_until_ready()
                answered = list(callers.map(lambda body: _first_answer(server.url, body) - started, bodies))
            cpu = _cpu_seconds(server)
        finally:
            server.__exit__(None, None, None)
    return name, len(data) / 1e6, *answered, cpu, memory.apart, memory.pss, memory.anonymous


def _first_answer(url: str, body: bytes) -> float:
    """Return when ``body`` was answered, in seconds of the clock."""
    with Connection(url) as connection:
        connection.predict(body)
    return time.perf_counter()


def _cpu_seconds(server: Server) -> float:
    """Return the CPU seconds of all processes of ``server``, those that have ended among them."""
    return sum(sum(process.cpu_times()[:4]) for process in server.processes())  # the last two: of ended children


def random_checkpoint(architecture: Architecture, path: Path) -> memoryview:
    """Write a checkpoint in the official form with random weights to ``path``, and return a view of its bytes."""
    import torch

    shapes = architecture.shapes().items()
    state = {f"module.{name}": torch.from_numpy(random_weight(name, shape)) for name, shape in shapes}
    torch.save({"epoch": 15, "step": 1, "name": "random", "state_dict": state}, path)
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
