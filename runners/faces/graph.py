"""A graph that takes pictures of one size, several in one call where it answers them as it would singly."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import ModelUnavailable
from runners.contract import Float32
from runners.engine import Session
from runners.engine.buffers import Buffers
from runners.faces.alignment import Pixels

log = logging.getLogger(__name__)

_MEAN = np.float32(127.5)
_PROBE_SIDE = 64  # the least size with an anchor on every level up to stride 32; the batch axis is the same at any size


class PictureGraph:
    """A session that takes pictures, as planes or rows of pixels, normalised to ``(x - 127.5) / std``. Thread-safe."""

    def __init__(self, session: Session, *, default_size: tuple[int, int], std: float, at_most: int) -> None:
        """Take over ``session``.

        ``default_size``: width and height in pixels, where the graph leaves them open. ``at_most``: pictures per call.

        Raises ``ModelUnavailable`` where the graph takes no single input of shape (n, 3, height, width) or (1, height,
        width, 3).
        """
        shape = session.inputs[0].shape
        self._takes_rows = len(shape) == 4 and shape[3] == 3
        if self._takes_rows:
            shape = (shape[0], shape[3], *shape[1:3])
        if len(session.inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None):
            raise ModelUnavailable(
                "the graph should take one input of shape (n, 3, height, width), not "
                f"{[i.shape for i in session.inputs]}"
            )
        self._session = session
        self._input = session.inputs[0]
        self._scale = np.float32(1 / std)
        self._buffers = Buffers()
        self.size = (shape[3] or default_size[0], shape[2] or default_size[1])
        """Width and height of the pictures that the graph takes."""
        self.batch = at_most if at_most > 1 and _takes_batches(session) else 1
        """Pictures in one call, at most."""

    def run(self, pictures: Sequence[Pixels]) -> list[Float32]:
        """Return one array per output of the graph, for pictures of ``size``; several calls are joined along axis 0."""
        chunks = (pictures[start : start + self.batch] for start in range(0, len(pictures), self.batch))
        answers = [self._answers(chunk) for chunk in chunks]
        whole = answers[0] if len(answers) == 1 else [np.concatenate(arrays) for arrays in zip(*answers, strict=True)]
        return [array.astype(np.float32, copy=False) for array in whole]

    def close(self) -> None:
        """Free the graph."""
        self._session.close()

    def _answers(self, pictures: Sequence[Pixels]) -> list[NDArray[Any]]:
        width, height = self.size
        sides = (height, width, 3) if self._takes_rows else (3, height, width)
        with self._buffers.borrow((len(pictures), *sides), np.float32) as normalised:
            self._normalise(pictures, normalised)
            return self._session.run({self._input.name: normalised.astype(self._input.dtype, copy=False)})

    def _normalise(self, pictures: Sequence[Pixels], into: NDArray[Any]) -> None:
        for target, picture in zip(into, pictures, strict=True):
            np.subtract(picture if self._takes_rows else picture.transpose(2, 0, 1), _MEAN, out=target)
        into *= self._scale


def _takes_batches(session: Session) -> bool:
    """Return whether a call with two pictures answers both as two calls would, along the first axis of every output.

    A graph's declared shapes do not tell: ArcFace's ``w600k_*`` declare (1, 512) and answer (n, 512). So it is tried.
    """
    spec = session.inputs[0]
    if spec.shape[0] is not None:
        return False
    height, width = (side or _PROBE_SIDE for side in spec.shape[2:])
    noise = np.random.default_rng(0).uniform(-1, 1, (3, height, width))
    ramp = np.broadcast_to(np.linspace(-1, 1, width), noise.shape)
    pair = np.stack([noise, ramp]).astype(spec.dtype)
    singles = [session.run({spec.name: pair[i : i + 1]}) for i in range(2)]
    try:
        both = session.run({spec.name: pair})
    except Exception as error:  # noqa: BLE001  engines raise types of their own that share no base below Exception
        log.info("The graph takes one picture a call: %s", error)
        return False
    return all(_agree(*arrays) for arrays in zip(*singles, both, strict=True))


def _agree(first: NDArray[Any], second: NDArray[Any], both: NDArray[Any]) -> bool:
    """Return whether ``both`` is ``first`` followed by ``second``, up to rounding, which depends on the batch size.

    The tolerance is a share of the difference between the two pictures' own answers.
    """
    if first.shape[0] != 1 or both.shape != (2, *first.shape[1:]):
        return False
    apart = np.abs(first - second).max(initial=0)
    return bool(np.abs(both - np.concatenate([first, second])).max(initial=0) <= 0.05 * apart)
