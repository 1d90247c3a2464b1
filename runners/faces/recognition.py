"""Face recognition: vectors of aligned faces by ArcFace (Deng et al., CVPR 2019).

Own code; numbers agree with insightface 2.1 (``model_zoo/arcface_onnx.py``), but for the L2 norm, which is 1 here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from errors import ModelUnavailable
from runners.contract import Float32
from runners.engine import Session
from runners.faces.alignment import CROP_SIZE, Pixels
from runners.faces.graph import PictureGraph

_STD = 127.5
# Every pack of insightface's model zoo in the catalog (buffalo_*, antelopev2) takes (x - 127.5) / 127.5. insightface
# looks into a graph for "Sub" and "Mul" among its first nodes, the mark of its MXNet exports of 2018, which normalise
# pixels themselves; such a graph is not served here, and cannot be recognised by what an engine tells of it.

_BATCH = 8
# CPU per face with w600k_mbf on one thread, in ms, for 1, 4, 8, 16, 32 at once: 5.9, 4.6, 4.4, 4.4, 4.7 in OpenVINO
# bf16, 7.2, 5.8, 5.8, 6.0, 6.2 in fp32. More than 8 takes memory (3 MB a crop) and shapes that engines prepare for, and
# wins nothing.


class Recognizer:
    """ArcFace over one session. Thread-safe."""

    def __init__(self, session: Session) -> None:
        """Take over ``session``. Raises ``ModelUnavailable`` unless it turns a 112 x 112 face into one vector."""
        if len(session.outputs) != 1:
            raise ModelUnavailable(f"the recognition graph should have one output, not {len(session.outputs)}")
        self._graph = PictureGraph(session, default_size=(CROP_SIZE, CROP_SIZE), std=_STD, at_most=_BATCH)
        if self._graph.size != (CROP_SIZE, CROP_SIZE):
            width, height = self._graph.size
            raise ModelUnavailable(
                f"the recognition graph takes {width} x {height} pixels; faces are aligned for {CROP_SIZE} x "
                f"{CROP_SIZE}"
            )
        (vectors,) = self._graph.run([np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)])
        if vectors.ndim != 2:
            raise ModelUnavailable(
                f"the recognition graph should answer one vector per face, not an array of shape {vectors.shape}"
            )
        self.dimensions = int(vectors.shape[1])
        """Numbers in an embedding."""

    def embed(self, crops: Sequence[Pixels]) -> Float32:
        """Return (n, dimensions) float32, rows of L2 norm 1, for n aligned faces of (112, 112, 3) uint8 RGB."""
        if not crops:
            return np.zeros((0, self.dimensions), np.float32)
        (vectors,) = self._graph.run(crops)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        embeddings: Float32 = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return embeddings

    def close(self) -> None:
        """Free the graph."""
        self._graph.close()
