"""The service that the benchmarks load: started as a user would, with models that need no download."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tools.bench.pictures import pages, photos
from tools.harness.immich_client import clip_visual, faces, multipart, ocr
from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder

CLIP_MODEL = "ViT-B-16"


def requests_by_task() -> dict[str, list[bytes]]:
    """Return bodies of requests by what they ask for: CLIP and faces of photos, OCR of pages."""
    return {
        "clip (tiny)": [multipart(clip_visual(), image=photo) for photo in photos()],
        "faces": [multipart(faces(), image=photo) for photo in photos()],
        "ocr": [multipart(ocr(), image=page) for page in pages()],
    }


@contextmanager
def service(environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start the service, yield it when it is ready, and stop it.

    Its models are a tiny CLIP of 512 numbers (in place of ViT-B-16), buffalo_s and PP-OCRv6_small.
    """
    with tempfile.TemporaryDirectory(prefix="immich-bento-bench-") as folder:
        tiny_clip_folder(Path(folder) / "models" / "clip" / CLIP_MODEL)
        with Server(
            Path(folder), {"CLIP_MODEL": CLIP_MODEL, "IMMICH_LOG_LEVEL": "warning", **(environment or {})}
        ) as running:
            yield running


def cpu_seconds(server: Server) -> float:
    """Return the CPU seconds that all processes of ``server`` have used so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in server.processes()))


def pss(server: Server) -> dict[str, float]:
    """Return MB of proportional set size by process: pages that n processes share count 1/n in each."""
    sizes: dict[str, float] = {}
    for process in server.processes():
        with contextlib.suppress(psutil.Error):  # a runner that gives way to a fresh one
            arguments = process.cmdline()
            name = arguments[arguments.index("--service-name") + 1] if "--service-name" in arguments else "arbiter"
            sizes[name] = sizes.get(name, 0) + process.memory_full_info().pss / 2**20
    return sizes
