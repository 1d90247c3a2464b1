"""The cost of each of CN-CLIP's architectures: milliseconds a picture and a text, and memory, over HTTP.

Random weights, which take as long as any others. Each architecture is served alone: the service is asked for pictures
by one caller and by four, then for texts by one. Its memory is looked at right after that and when it is idle again,
with both halves loaded and no other model; it is PSS summed over all processes. Weights are written to a folder
that is removed afterwards (``ViT-H-14``: 4 GB).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from models.convert import installed_vocabulary
from models.convert.architecture import KNOWN
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import read_vocabulary
from tools.bench.load import Connection, closed_loop
from tools.bench.pictures import photos, scenes
from tools.bench.report import Cell, Table, milliseconds, progress
from tools.bench.running import cpu_seconds, pss
from tools.bench.weights import random_clip
from tools.harness.immich_client import clip_textual, clip_visual, multipart
from tools.harness.server import Server

_QUERIES = ("海边的日落", "雪地里的一只猫", "生日蛋糕和蜡烛", "山顶上的全家福", "a child on a bicycle")
_COLUMNS = (
    "model",
    "one caller: ms a picture",
    "four callers: ms a picture",
    "CPU, ms a picture",
    "one caller: ms a text",
    "memory at work, MB",
    "at rest, MB",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", nargs="+", choices=list(KNOWN), default=list(KNOWN), help="architectures (all)")
    parser.add_argument("--seconds", type=float, default=20, help="of each load (20)")
    parser.add_argument("--rest", type=float, default=15, help="seconds before memory is looked at again (15)")


def run(options: argparse.Namespace) -> list[Table]:
    rows = []
    for name in options.names:
        progress(name)
        with tempfile.TemporaryDirectory(prefix="immich-bento-bench-") as folder:
            rows.append(_row(name, Path(folder), options))
    note = "ms a picture: seconds of the load by pictures answered; ms a text: the median."
    return [Table("CN-CLIP's architectures", _COLUMNS, tuple(rows), note)]


def _row(name: str, folder: Path, options: argparse.Namespace) -> tuple[Cell, ...]:
    random_clip(KNOWN[name], cn_clip_tokenizer(read_vocabulary(installed_vocabulary())), folder / "clip" / name)
    settings = {"CLIP_MODEL": name, "CLIP_DOWNLOAD_ROOT": str(folder / "clip"), "IMMICH_LOG_LEVEL": "warning"}
    with Server(folder / "served", settings) as server:
        pictures = [multipart(clip_visual(name), image=picture) for picture in (*photos(), *scenes())]
        texts = [multipart(clip_textual(name, language="zh-CN"), text=text) for text in _QUERIES]
        with Connection(server.url) as connection:
            for body in (*pictures, *texts):  # loads both halves
                connection.predict(body)
        alone, _ = _load(server, pictures, 1, options.seconds)
        many, cpu = _load(server, pictures, 4, options.seconds)
        seconds = closed_loop(server.url, [texts], options.seconds / 4).all_latencies
        at_work = sum(pss(server).values())
        time.sleep(options.rest)
        at_rest = sum(pss(server).values())
    return name, alone, many, cpu, milliseconds(seconds, 50), at_work, at_rest


def _load(server: Server, bodies: list[bytes], callers: int, seconds: float) -> tuple[float, float]:
    """Return milliseconds by the clock, and of CPU, for each picture. Raises ``RuntimeError`` if one failed."""
    cpu = cpu_seconds(server)
    load = closed_loop(server.url, [bodies[number:] + bodies[:number] for number in range(callers)], seconds)
    cpu = cpu_seconds(server) - cpu
    if load.failures:
        raise RuntimeError(f"{len(load.failures)} requests failed, the first with {load.failures[0]}")
    return 1000 / load.per_second, cpu / len(load.all_latencies) * 1000
