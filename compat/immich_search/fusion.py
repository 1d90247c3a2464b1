"""Two ranked lists made one: what text found, and what Immich found by meaning.

Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009), exact hits first, as ``immich_ai.hybrid_search`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:  # it imports the database's client, which most starts never need
    from search.query.text_rank import RankedText

_K = 60
_FIRST = 10
"""The first places, which hold all exact hits if there are no more of them."""


def fuse(
    texts: Sequence[RankedText], meanings: Sequence[UUID], *, text_weight: float = 1.0, clip_weight: float = 1.0
) -> list[UUID]:
    """Return the ids of both lists, best first, each once. Equal scores: what text found first.

    ``meanings``: ids, nearest first.
    """
    scores: dict[UUID, float] = {}
    for rank, text in enumerate(texts, 1):
        scores[text.id] = text_weight / (_K + rank)
    for rank, asset in enumerate(meanings, 1):
        scores[asset] = scores.get(asset, 0.0) + clip_weight / (_K + rank)
    ordered = sorted(scores, key=lambda asset: -scores[asset])  # stable: texts were put in first
    exact = {text.id for text in texts if text.exact}
    if not 0 < len(exact) <= _FIRST:
        return ordered
    others = [asset for asset in ordered if asset not in exact][: _FIRST - len(exact)]
    first = exact.union(others)
    return [*(asset for asset in ordered if asset in first), *(asset for asset in ordered if asset not in first)]
