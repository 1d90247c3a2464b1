"""Measurement of how much faster than fp32 this machine computes in bf16. CPU flags do not tell.

AVX512-BF16 doubles the speed of an AMD Zen 4. Intel's Xeons since Sapphire Rapids have the same instructions at half
the speed of fp32: they are fast in bf16 with AMX, which many virtual machines hide. On one of those, CLIP's ViT-B-16
took 442 ms a picture in bf16 and 270 in fp32.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov
from openvino import opset13 as ops

from runners.engine.openvino_core import core, cpu_facts

log = logging.getLogger(__name__)

_ROWS, _WIDTH, _LAYERS = 200, 768, 2
"""Size of the timed multiplications: a transformer as wide as ViT-B over one picture; 0.5 GFLOP, 2 to 5 ms."""
_TURNS = 5


def bf16_speedup(folder: Path | None) -> float:
    """Return how many times as fast as in fp32 one thread multiplies in bf16; 0 where OpenVINO does not offer it.

    It is measured once, in a quarter of a second, and kept in ``folder`` (None: nowhere) for as long as CPU and
    OpenVINO stay the same.
    """
    if "BF16" not in cpu_facts()["computes"].split(","):
        return 0.0
    return _remembered(folder)


@lru_cache(maxsize=4)
def _remembered(folder: Path | None) -> float:
    path = folder / _file_name() if folder is not None else None
    if path is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(path.read_text())["speedup"])
    found = round(_measured(), 2)
    log.info("This machine multiplies %.2f times as fast in bf16 as in fp32.", found)
    if path is not None:
        _keep(path, {"speedup": found, **cpu_facts()})
    return found


def _file_name() -> str:
    return f"bf16-{hashlib.sha256(json.dumps(sorted(cpu_facts().items())).encode()).hexdigest()[:40]}.json"


def _keep(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` atomically. Where it cannot be written, the next process measures again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.stem, suffix=".partial", delete=False
        ) as file:
            json.dump(content, file)
        os.replace(file.name, path)
    except OSError as error:
        log.info("How fast bf16 is here is not kept in %s: %s.", path.parent, error)


def _measured() -> float:
    """Measure the speed-up as the ratio of the shortest CPU times, which other processes hardly change."""
    numbers = np.random.default_rng(0)
    value = given = ops.parameter([_ROWS, _WIDTH], np.float32)
    for _ in range(_LAYERS):
        for shape in ((_WIDTH, 2 * _WIDTH), (2 * _WIDTH, _WIDTH)):
            value = ops.matmul(
                value, ops.constant(numbers.standard_normal(shape, np.float32) / np.float32(_WIDTH)), False, False
            )
    model = ov.Model([value], [given])
    feed = numbers.standard_normal((_ROWS, _WIDTH), np.float32)
    requests = [_request(model, precision) for precision in ("f32", "bf16")]
    seconds = [[_timed(request, feed) for request in requests] for _ in range(_TURNS + 1)][1:]
    fp32, bf16 = (min(times) for times in zip(*seconds, strict=True))
    return float(fp32 / bf16)


def _request(model: ov.Model, precision: str) -> ov.InferRequest:
    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, "CPU", config).create_infer_request()


def _timed(request: ov.InferRequest, feed: Any) -> float:
    began = time.process_time()
    request.infer({0: feed})
    return time.process_time() - began
