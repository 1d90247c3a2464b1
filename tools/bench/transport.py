"""The cost of a ``/predict`` beyond its model: gateway, runner and back, for a 400 kB picture.

The tiny CLIP on a preview of 400 kB. The whole is timed over HTTP, one caller; the model's own ``run`` of the same job
(decoding is nearly all of it) in this process, in turns with the service. Their difference is the transport: HTTP,
multipart, the Unix socket, batcher and threads, JSON. The second table compares BentoML's own API and client with
``JobApp`` and ``JobClient`` on a pair of runners that do nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runners.clip import load_clip_image
from runners.contract import Failure, ImageJob
from runners.engine import open_session, plan_engine
from settings import Settings
from tools.bench.load import Connection
from tools.bench.pictures import photo_of
from tools.bench.report import Table
from tools.bench.running import CLIP_MODEL, service
from tools.bench.turns import alternate, median_difference, percentiles
from tools.harness.immich_client import clip_visual, multipart
from tools.harness.server import Server
from tools.harness.tiny_clip import clip_files, tiny_clip_folder

TARGET_MS = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="alternations (10)")
    parser.add_argument("--requests", type=int, default=100, help="requests of each kind per round (100)")
    parser.add_argument("--kb", type=int, default=400, help="size of the picture in kB (400)")


def run(options: argparse.Namespace) -> list[Table]:
    picture = photo_of(options.kb * 1000)
    return [_transport(picture, options), _connections(picture, options)]


def _in_process(picture: bytes, folder: Path) -> Callable[[], float]:
    files = clip_files(tiny_clip_folder(folder))
    config = Settings(device="cpu")
    plan = plan_engine(config)
    model = load_clip_image(
        "cn-clip", files, lambda path: open_session(path, plan), max_pixels=config.max_picture_pixels
    )
    job = ImageJob(picture, CLIP_MODEL)

    def timed() -> float:
        started = time.perf_counter()
        (result,) = model.run([job])
        seconds = time.perf_counter() - started
        if isinstance(result, Failure):
            result.raise_()
        return seconds

    return timed


def _transport(picture: bytes, options: argparse.Namespace) -> Table:
    body = multipart(clip_visual(), image=picture)
    with service() as server, Connection(server.url) as connection, tempfile.TemporaryDirectory() as folder:
        connection.predict(body)
        ways: dict[str, Callable[[], float]] = {
            "POST /predict, whole": lambda: connection.predict(body),
            "the model alone, in process": _in_process(picture, Path(folder)),
            "GET /ping": lambda: connection.ask("GET", "/ping")[2],
        }
        timings = alternate(ways, rounds=options.rounds, requests=options.requests)
    whole, alone, _ = timings.values()
    p50 = median_difference(whole, alone)
    totals = percentiles(timings)
    p95 = totals["POST /predict, whole"][1] - totals["the model alone, in process"][0]
    return Table(
        f"Transport of a picture of {len(picture) / 1000:.0f} kB, one caller",
        ("", "p50, ms", "p95, ms"),
        (*((name, *figures) for name, figures in totals.items()), ("transport: whole less model", p50, p95)),
        f"Transport: at p50 the median over {options.rounds} rounds of the difference of medians; at p95 the whole's "
        "less the model's p50. "
        f"Target: at most {TARGET_MS} ms at the median: {'met' if p50 <= TARGET_MS else 'NOT MET'}.",
    )


def _connections(picture: bytes, options: argparse.Namespace) -> Table:
    with tempfile.TemporaryDirectory(prefix="immich-bento-bench-") as folder:
        command = (sys.executable, "-m", "bentoml", "serve", "tools.bench.connections:Gateway")
        with (
            Server(Path(folder), {"IMMICH_LOG_LEVEL": "warning"}, command) as server,
            Connection(server.url) as connection,
        ):

            def way(path: str) -> Callable[[], float]:
                def timed() -> float:
                    status, answer, seconds = connection.ask("POST", path, picture)
                    if (status, answer) != (200, b"512"):
                        raise RuntimeError(f"POST {path} was answered {status}: {answer[:300]!r}")
                    return seconds

                return timed

            timings = alternate(
                {"BentoML's API and client": way("/bentoml"), "ours": way("/ours")},
                rounds=options.rounds,
                requests=options.requests,
            )
    bentos, ours = timings.values()
    return Table(
        "From the gateway to a runner that does nothing and back, the same picture",
        ("", "p50, ms", "p95, ms"),
        tuple((name, *figures) for name, figures in percentiles(timings).items()),
        f"Ours takes {median_difference(bentos, ours):.2f} ms less at the median (of the rounds' differences).",
    )
