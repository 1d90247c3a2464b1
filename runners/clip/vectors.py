"""Vectors of a CLIP graph: run over a batch, normalised and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode
from runners.contract import Embedding, Failure, Float32
from runners.engine import Session


def run_graph(session: Session, feeds: Mapping[str, NDArray[Any]]) -> Float32:
    """Run a graph on feeds of n rows each and return its first output, (n, d) float32.

    A graph whose batch axis is fixed at 1 is called once per row.
    """
    if all(spec.shape[0] is None for spec in session.inputs):
        return np.asarray(session.run(feeds)[0], dtype=np.float32)
    rows = len(next(iter(feeds.values())))
    outputs = [session.run({name: array[row : row + 1] for name, array in feeds.items()})[0] for row in range(rows)]
    return np.concatenate(outputs).astype(np.float32, copy=False)


def to_results(vectors: Float32) -> list[Embedding | Failure]:
    """Return one result for each row of (n, d): the row at L2 norm 1, or a failure where it is zero or not finite."""
    return [_to_result(vector) for vector in vectors]


def _to_result(vector: Float32) -> Embedding | Failure:
    norm = np.float32(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < np.finfo(np.float32).tiny:
        return Failure(
            ErrorCode.INTERNAL,
            "The CLIP model answered with a vector that has no direction (all zero, or not a number). Its weights may "
            "be damaged: "
            "delete the model's folder so that it is fetched again.",
        )
    return Embedding(vector / norm)
