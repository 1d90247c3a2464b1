"""Holds converted graphs to a second forward pass, in numpy, of one picture and one text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.convert import text_graph, vision_graph
from models.convert.architecture import Architecture
from models.convert.forward import image_vector, text_vector
from models.convert.graph import OUTPUT, NotFinite
from models.convert.tensor import Tensors

LEAST_COSINE = 0.9999
_TEXT = "一只在雪地里的猫, and a DOG on the beach: 2024"


def image_cosine(path: Path, architecture: Architecture, tensors: Tensors) -> float:
    """Return the least cosine of the graph at ``path`` to numpy's vector of a picture, alone and in a batch.

    NaN where the graph answers with none. Raises ``NotFinite`` where numpy's is none; ``ConversionRefused``,
    ``OSError``; what ONNX Runtime raises on a graph that it cannot load.
    """
    pixels = _picture(architecture.vision.image_size)
    expected = _with_direction(image_vector(architecture, tensors, pixels), "image", "picture")
    session = open_graph(path)
    batches = [pixels[None], np.stack([pixels, pixels[::-1]])]
    return _least_cosine(session, vision_graph.INPUT, batches, expected)


def text_cosine(path: Path, architecture: Architecture, tensors: Tensors, tokenizer: Tokenizer) -> float:
    """Return the least cosine of the graph at ``path`` to numpy's vector of a text, as it is and padded.

    ``tokenizer``: of the model, padding. NaN where the graph answers with none. Raises as ``image_cosine`` does.
    """
    encoding = tokenizer.encode(_TEXT)
    padded = np.array(encoding.ids, np.int64)
    length = sum(encoding.attention_mask)
    expected = _with_direction(text_vector(architecture, tensors, padded[:length].tolist()), "text", "text")
    session = open_graph(path)
    batches = [padded[None, :length], np.stack([padded, np.roll(padded, 1)])]
    return _least_cosine(session, text_graph.INPUT, batches, expected)


def open_graph(path: Path) -> Any:
    """Return a plain ONNX Runtime session: the file is held to the numbers, not the engine that serves it.

    Nothing is optimised, and no weight is packed anew: that would take the weights' memory a second time. Nodes run in
    the order of the file, so that a weight in fp16 is cast to fp32 where it is used, and not long before.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=False)
    except (
        RuntimeError
    ):  # in a process whose sessions share one pool of threads (runners.engine), a session must join it
        options.use_per_session_threads = False
        return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _picture(side: int) -> NDArray[np.uint8]:
    """Return a picture of noise, slopes and stripes, uint8 (side, side, 3): every patch of it is another."""
    chance = np.random.default_rng(0)
    slope = np.linspace(0, 200, side)
    picture = np.stack(
        [
            np.broadcast_to(slope, (side, side)),
            np.broadcast_to(slope[:, None], (side, side)),
            np.full((side, side), 90),
        ],
        -1,
    )
    picture[:, (np.arange(side) // 8) % 2 == 0] *= 0.5
    return (picture + chance.integers(0, 56, picture.shape)).astype(np.uint8)


def _with_direction(vector: NDArray[np.float32], half: str, what: str) -> NDArray[np.float32]:
    """Return ``vector``, which the ``half`` makes of a ``what``. Raises ``NotFinite`` where it has no direction."""
    if not np.isfinite(vector).all():
        raise NotFinite(f"its {half} half makes no vector of a {what}: its weights are zeros, or too large")
    return vector


def _least_cosine(session: Any, name: str, batches: list[NDArray[Any]], expected: NDArray[np.float32]) -> float:
    """Return the least cosine of the first row of every batch's answer to ``expected`` (d,)."""
    cosines = []
    for batch in batches:
        vectors = session.run([OUTPUT], {name: batch})[0].astype(np.float64)
        if vectors.shape != (len(batch), len(expected)):
            return float("nan")
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines.append(vectors[0] @ expected / np.linalg.norm(vectors[0]) / np.linalg.norm(expected))
    return float(np.min(cosines))
