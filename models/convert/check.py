"""Holds a converted graph to CN-CLIP's own torch forward, on inputs that show differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.convert.configuration import MEAN, STD
from models.convert.graphs import INPUTS, Half
from models.convert.tokenizer import cn_clip_tokenizer

LEAST_COSINE: Mapping[str, float] = {"fp32": 0.9999, "fp16": 0.999}
_TEXTS = ("一只在雪地里的猫", "", "A dog, on the BEACH: 2024", "营业执照", "长" * 60)


def inputs(half: Half, image_size: int) -> NDArray[Any]:
    """Five: pictures of noise, black, white, a gradient and stripes, uint8 (5, s, s, 3); or texts short, empty and long, int64 (5, 52)."""
    if half == "textual":
        return np.array([cn_clip_tokenizer().encode(text).ids for text in _TEXTS], np.int64)
    pictures = np.zeros((5, image_size, image_size, 3), np.uint8)
    pictures[0] = np.random.default_rng(0).integers(0, 256, pictures[0].shape, np.uint8)
    pictures[2] = 255
    ramp = np.linspace(0, 255, image_size).astype(np.uint8)
    pictures[3, ..., 0], pictures[3, ..., 1], pictures[3, ..., 2] = ramp, ramp[:, None], ramp[::-1]
    pictures[4, :, (np.arange(image_size) // 8) % 2 == 0] = (200, 30, 90)
    return pictures


def reference(model: Any, half: Half, batch: NDArray[Any]) -> NDArray[np.float32]:
    """What cn_clip itself answers, (n, d) float32 of L2 norm 1. One by one, to keep memory low."""
    import torch

    rows = []
    with torch.no_grad():
        for item in torch.from_numpy(batch).split(1):
            if half == "visual":
                scaled = item.permute(0, 3, 1, 2).float().div(255)
                features = model.encode_image((scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
            else:
                features = model.encode_text(item)
            rows.append(features / features.norm(dim=-1, keepdim=True))
    return np.asarray(torch.cat(rows), np.float32)


def least_cosine(path: Path, half: Half, batch: NDArray[Any], expected: NDArray[np.float32]) -> float:
    """The lowest cosine of the graph's rows to ``expected``, in batches of 1 and of all; NaN if a row has none."""
    session = open_graph(path)
    cosines = []
    for rows in (1, len(batch)):
        vectors = session.run(["embedding"], {INPUTS[half]: batch[:rows]})[0].astype(np.float64)
        if vectors.shape != (rows, expected.shape[1]):
            return float("nan")
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected[:rows].astype(np.float64), axis=1)
        cosines.append(np.sum(vectors * expected[:rows], axis=1) / norms)
    return float(np.min(np.concatenate(cosines)))


def open_graph(path: Path) -> Any:
    """A plain ONNX Runtime session: conversion holds the file to torch, not the engine that serves it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=False)
    except RuntimeError:  # in a process whose sessions share one pool of threads (runners.engine), a session must join it
        options.use_per_session_threads = False
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
