"""Measure the ranges of values in PP-OCRv6_small's recogniser, by which it is computed in int8.

``python -m tools.quantize.ranges`` writes them to ``runners/ocr/ranges.json``. They are measured on rendered pictures
of all kinds of the benchmark of reading, none of which is in it. Needs its fonts (``tools/bench/reading/fonts.py``).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov

from models.catalog import ModelKind, load_catalog
from models.digest import digest_of
from models.resolve import resolve
from runners.contract import Float32, ImageJob, OcrOptions
from runners.engine import EnginePlan, Session, open_session
from runners.engine.int8 import Ranges, convolutions
from runners.engine.openvino_core import core
from runners.engine.rewriting import rewrite
from runners.engine.threads import available_cores
from runners.ocr import load_ocr
from runners.ocr.ranges import MEASURED
from settings import Settings
from tools.bench.reading.drawings import KINDS, PER_KIND, drawing
from tools.bench.report import progress

_MODEL = "PP-OCRv6_small"
_PICTURES = 4
"""Pictures of each kind."""
_EVERY_OTHER = 4
"""Of the calls of the recogniser, one in so many is measured."""
_OUTSIDE = 0.01
"""Per cent of a convolution's values, in one call, that may lie above its range, and as many below."""
_MOST_VALUES = 200_000
"""Values of a convolution that the percentiles of one call are taken from."""


class _Recorded:
    """A session that keeps what it is fed."""

    def __init__(self, session: Session) -> None:
        self._session, self.fed = session, list[Float32]()
        self.inputs, self.outputs, self.metadata = session.inputs, session.outputs, session.metadata

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.fed += [np.array(feed) for feed in feeds.values()]
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()


def main() -> int:
    """Measure the recogniser and write what was found; return the exit code."""
    files = resolve(load_catalog().find(ModelKind.OCR, _MODEL), Settings())
    graph, plan = files["recognition/model.onnx"], EnginePlan("cpu", available_cores(), engine="openvino")
    recogniser = _Recorded(open_session(graph, plan, best_class=True))

    def recorded(path: Path, *, best_class: bool = False, ranges: Ranges | None = None) -> Session:
        return recogniser if path == graph else open_session(path, plan)

    model = load_ocr(files, recorded, max_pixels=10**8, max_boxes=4000)
    for kind in KINDS:
        progress(f"reads pictures of the kind {kind}")
        for number in range(PER_KIND, PER_KIND + _PICTURES):
            model.run([ImageJob(drawing(kind, number).data, _MODEL, OcrOptions())])
    progress("measures the ranges")
    ranges = measure(graph, recogniser.fed[::_EVERY_OTHER])
    facts = {"graph": f"{_MODEL}, recognition", "bytes": graph.stat().st_size, "ranges": ranges}
    told = {str(digest_of(graph, "sha256")): facts}
    MEASURED.write_text(_one_layer_a_line(told), encoding="utf-8")
    return 0


def measure(graph: Path, samples: Iterable[Float32]) -> Ranges:
    """Return the range of what each convolution of ``graph`` takes that can be computed in int8.

    ``samples``: what the graph is fed. Those that rewriting adds have no name of their own in the file, and no range.
    """
    named = {node.get_friendly_name() for node in core().read_model(str(graph)).get_ordered_ops()}
    model = core().read_model(str(graph))
    rewrite(model)
    inputs = {
        node.get_friendly_name(): node.input_value(0)
        for node in convolutions(model)
        if node.get_friendly_name() in named
    }
    watched = core().compile_model(
        ov.Model(list(inputs.values()), model.get_parameters()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    limits = []
    for sample in samples:
        values = watched([sample])
        limits.append([_limits(np.asarray(values[place])) for place in range(len(inputs))])
    least, largest = np.min(limits, axis=0)[:, 0], np.max(limits, axis=0)[:, 1]
    return {name: (_rounded(low), _rounded(high)) for name, low, high in zip(inputs, least, largest, strict=True)}


def _one_layer_a_line(told: Mapping[str, Any]) -> str:
    text = json.dumps(told, indent=1)
    return re.sub(r"\[\s+([^\s,]+),\s+([^\s,]+)\s+\]", r"[\1, \2]", text) + "\n"


def _limits(values: Float32) -> tuple[float, float]:
    flat = values.ravel()[:: max(1, values.size // _MOST_VALUES)]
    low, high = np.percentile(flat, (_OUTSIDE, 100 - _OUTSIDE))
    return float(low), float(high)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    sys.exit(main())
