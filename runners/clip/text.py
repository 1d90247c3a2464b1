"""The text half of a CLIP model: texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import ModelUnavailable
from runners.clip.tokenizer import ClipTokenizer
from runners.clip.vectors import run_graph, to_results
from runners.contract import Embedding, Failure, TextJob
from runners.engine import Session, TensorSpec

_MASK = "attention_mask"
_STEP = 8
"""Tokens. Most queries have fewer than 16, where CN-CLIP's 52 take three times as long."""


class ClipTextModel:
    """The text half of a CLIP model. May be called from several threads at once."""

    def __init__(self, session: Session, tokenizer: ClipTokenizer, *, ignores_padding: bool = False) -> None:
        """Take over ``session``, whose inputs are token ids (n, context), int32 or int64, and in some graphs an
        ``attention_mask`` of the same shape.

        ``ignores_padding``: the vector does not depend on padding at the end, which is then left out as far as the
        graph allows.

        Raises ``ModelUnavailable`` where graph and ``tokenizer`` differ in context length.
        """
        self._session = session
        self._tokenizer = tokenizer
        self._cuts_padding = ignores_padding and all(spec.shape[1] is None for spec in session.inputs)
        for spec in session.inputs:
            if spec.shape[1] not in (None, tokenizer.context_length):
                raise ModelUnavailable(
                    f"The CLIP text graph takes {spec.shape[1]} tokens, but config.json says "
                    f"{tokenizer.context_length}. "
                    "The files are of different models: delete the model's folder so that it is fetched again."
                )

    def run(self, jobs: Sequence[TextJob]) -> list[Embedding | Failure]:
        """Return one result per job, in order, from one batch. Each text is tokenized in its own job's language."""
        if not jobs:
            return []
        ids, mask = self._tokenizer.encode([(job.text, job.language) for job in jobs])
        if self._cuts_padding:
            longest = int(mask.sum(axis=1).max())
            length = min(-(-longest // _STEP) * _STEP, mask.shape[1])  # in steps, so that engines meet few shapes
            ids, mask = np.ascontiguousarray(ids[:, :length]), np.ascontiguousarray(mask[:, :length])
        feeds = {spec.name: _as_input(spec, mask if spec.name == _MASK else ids) for spec in self._session.inputs}
        return to_results(run_graph(self._session, feeds))

    def close(self) -> None:
        """Free the graph."""
        self._session.close()


def _as_input(spec: TensorSpec, tokens: NDArray[np.int64]) -> NDArray[Any]:
    return tokens.astype(spec.dtype, copy=False)
