"""The image half of a CLIP model: pictures to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from errors import ModelUnavailable, ServiceError
from runners.clip.preprocessing import Preprocessing
from runners.clip.vectors import run_graph, to_results
from runners.contract import Embedding, Failure, ImageJob
from runners.engine import Session


class ClipImageModel:
    """The image half of a CLIP model. May be called from several threads at once."""

    def __init__(self, session: Session, preprocessing: Preprocessing, *, max_pixels: int) -> None:
        """Take over ``session``, which has one input: uint8 (n, h, w, 3), which the graph normalises, or float
        (n, 3, h, w), normalised here.

        ``max_pixels``: larger pictures are refused. Raises ``ModelUnavailable`` where the input is neither, or where
        graph and ``preprocessing`` differ in size.
        """
        self._session = session
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._input = session.inputs[0]
        self._takes_bytes = self._input.dtype == np.uint8
        self._require_form()
        expected = (preprocessing.height, preprocessing.width)
        shape = self._input.shape[1:3] if self._takes_bytes else self._input.shape[2:4]
        if any(size not in (None, side) for size, side in zip(shape, expected, strict=True)):
            raise ModelUnavailable(
                f"The CLIP image graph takes pictures of {shape} pixels, but preprocess_cfg.json says {expected} "
                "(height, width). "
                "The files are of different models: delete the model's folder so that it is fetched again."
            )

    def run(self, jobs: Sequence[ImageJob]) -> list[Embedding | Failure]:
        """Return one result per job, in order.

        A picture that cannot be read is a ``Failure``; the others are embedded in one batch.
        """
        inputs = [self._pixels(job) for job in jobs]
        readable = [pixels for pixels in inputs if not isinstance(pixels, Failure)]
        embedded = iter(self._embed(np.stack(readable)) if readable else [])
        return [item if isinstance(item, Failure) else next(embedded) for item in inputs]

    def close(self) -> None:
        """Free the graph."""
        self._session.close()

    def _require_form(self) -> None:
        """Raise ``ModelUnavailable`` unless pixels can be given to the graph in one of the two forms."""
        shape, channels = self._input.shape, 3 if self._takes_bytes else 1
        if len(shape) == 4 and shape[channels] in (None, 3):
            return
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        raise ModelUnavailable(
            f"The CLIP image graph takes {self._input.dtype.name} of the shape ({sides}). Served are graphs that take "
            "uint8 (n, height, width, 3) or floats (n, 3, height, width). Of Immich's revision v2: set "
            "MACHINE_LEARNING_MODEL_REVISION=main and delete the model's folder v2."
        )

    def _pixels(self, job: ImageJob) -> NDArray[np.uint8] | Failure:
        try:
            return self._preprocessing.pixels(job.data, max_pixels=self._max_pixels)
        except ServiceError as error:
            return Failure(error.code, error.message)

    def _embed(self, pixels: NDArray[np.uint8]) -> list[Embedding | Failure]:
        """Embed (n, h, w, 3) uint8 RGB."""
        batch = (
            pixels
            if self._takes_bytes
            else self._preprocessing.normalised(pixels).astype(self._input.dtype, copy=False)
        )
        return to_results(run_graph(self._session, {self._input.name: batch}))
