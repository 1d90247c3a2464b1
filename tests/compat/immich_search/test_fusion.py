"""The fused order: both lists count, exact hits come first."""

from __future__ import annotations

from uuid import UUID

from compat.immich_search.fusion import fuse
from search.query.text_rank import RankedText

A, B, C, D, *MANY = [UUID(int=n) for n in range(1, 60)]


def texts(*ids: UUID, exact: tuple[UUID, ...] = ()) -> list[RankedText]:
    return [RankedText(one, one in exact) for one in ids]


def test_what_both_found_comes_before_what_one_found() -> None:
    assert fuse(texts(A, B), [C, B, D]) == [B, A, C, D]


def test_equal_ranks_begin_with_text() -> None:
    assert fuse(texts(A, B), [C, D]) == [A, C, B, D]


def test_weights_move_the_lists() -> None:
    assert fuse(texts(A, B), [C, D], text_weight=0.5) == [C, D, A, B]


def test_without_texts_the_order_is_immichs() -> None:
    assert fuse([], [C, A, B]) == [C, A, B]


def test_few_exact_hits_are_among_the_first_ten() -> None:
    found = [*MANY[:30]]
    order = fuse(texts(*found, A, exact=(A,)), MANY[30:50])
    assert A in order[:10]
    assert order.index(A) == 9


def test_many_exact_hits_keep_their_places() -> None:
    found = MANY[:30]
    assert fuse(texts(*found, exact=tuple(found[15:])), [])[0] == found[0]
