"""Sessions of classifying graphs that return only the value and number of the best class, and the value of the last.

PP-OCR's recogniser knows 18,710 characters: its whole answer to four short lines is 12 MB, of which 1 kB is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runners.engine.session import Session, TensorSpec

CLASSES = "classes"
"""Key of a reduced session's metadata: the number of classes, where the graph has a fixed one."""
VALUE, CLASS, LAST = "best value", "best class", "last value"
"""Names of a reduced session's outputs. PP-OCR's last class is the blank between words."""


def reduced_metadata(metadata: Mapping[str, str], classes: int | None) -> dict[str, str]:
    """Return ``metadata`` of the graph with the number of its classes added."""
    return {**metadata, **({CLASSES: str(classes)} if classes is not None else {})}


def no_best_class(outputs: int) -> ValueError:
    """Return the error for a graph with ``outputs`` outputs that cannot be reduced."""
    return ValueError(
        f"The graph has {outputs} outputs; to find its best class it must have one, with an axis of classes."
    )


class BestClassSession:
    """A session whose one output (..., classes) is reduced: ``VALUE`` and ``LAST``, of its dtype, and ``CLASS``, int32.

    All have the shape (...).
    """

    def __init__(self, whole: Session) -> None:
        """Take over ``whole``. Raises ``ValueError`` where it has several outputs or no axis of classes."""
        if len(whole.outputs) != 1 or not whole.outputs[0].shape:
            raise no_best_class(len(whole.outputs))
        (answer,) = whole.outputs
        self._whole = whole
        self.inputs = whole.inputs
        self.outputs = (
            TensorSpec(VALUE, answer.dtype, answer.shape[:-1]),
            TensorSpec(CLASS, np.dtype(np.int32), answer.shape[:-1]),
            TensorSpec(LAST, answer.dtype, answer.shape[:-1]),
        )
        self.metadata = reduced_metadata(whole.metadata, answer.shape[-1])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        (values,) = self._whole.run(feeds)
        best = values.argmax(axis=-1)
        best_values = np.take_along_axis(values, best[..., None], axis=-1)[..., 0]
        return [best_values, best.astype(np.int32), values[..., -1].copy()]

    def close(self) -> None:
        self._whole.close()
