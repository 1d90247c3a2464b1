"""Pages of one search fit together: through all of them no asset twice, and none missing that may be seen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from compat.immich_search.fusion import fuse
from compat.immich_search.page_order import Listing, Listings, PassedOn
from search.query.text_rank import RankedText

IDS = [UUID(int=n) for n in range(1, 61)]
Lists = st.lists(st.sampled_from(IDS), unique=True, max_size=60)


class Library:
    """Immich's side: its own list, and whom it gives back when asked for single pictures."""

    def __init__(self, own: Sequence[UUID], visible: Iterable[UUID], size: int) -> None:
        self.own = list(own)
        self.visible = set(visible) | set(own)
        self.size = size

    async def next_page(self, number: int) -> tuple[list[UUID], bool]:
        end = number * self.size
        return self.own[end - self.size : end], len(self.own) > end

    async def ask(self, ids: Sequence[UUID]) -> list[UUID]:
        return [one for one in ids if one in self.visible]


def begin(library: Library, texts: Sequence[UUID], size: int) -> Listing:
    first, more = library.own[:size], len(library.own) > size
    order = fuse([RankedText(one, False) for one in texts], first)
    return Listing(deque(order), dict.fromkeys(first, 1), 1, more, {})


async def all_pages(listing: Listing, library: Library, size: int) -> list[list[UUID]]:
    pages: list[list[UUID]] = []
    more = True
    while more:
        page, more = await listing.page(len(pages) + 1, size, library.ask, library.next_page)
        pages.append(page)
        assert len(pages) < 200
    return pages


@given(own=Lists, texts=Lists, visible=st.sets(st.sampled_from(IDS)), size=st.integers(1, 25))
def test_all_pages_hold_each_visible_picture_once(
    own: list[UUID], texts: list[UUID], visible: set[UUID], size: int
) -> None:
    library = Library(own, visible, size)
    listing = begin(library, texts, size)
    pages = asyncio.run(all_pages(listing, library, size))
    shown = [one for page in pages for one in page]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(own) | (set(texts) & library.visible)
    assert all(len(page) == size for page in pages[:-2])  # none is short because of what is not shown
    again = [asyncio.run(listing.page(n + 1, size, library.ask, library.next_page))[0] for n in range(len(pages))]
    assert again == pages


@given(own=Lists, texts=Lists, size=st.integers(1, 25), hidden=st.sets(st.sampled_from(IDS)))
def test_what_is_not_visible_changes_nothing(own: list[UUID], texts: list[UUID], size: int, hidden: set[UUID]) -> None:
    """Texts at the end of the list that Immich does not give back leave no trace in any page."""
    extra = [UUID(int=1000 + one.int) for one in hidden]
    library = Library(own, IDS, size)
    plain = asyncio.run(all_pages(begin(library, texts, size), library, size))
    beside = asyncio.run(all_pages(begin(library, [*texts, *extra], size), library, size))
    assert [page for page in beside if page] == [page for page in plain if page]


@given(own=Lists, new=Lists, size=st.integers(1, 10))
def test_a_library_that_changes_between_pages_shows_nothing_twice(own: list[UUID], new: list[UUID], size: int) -> None:
    library = Library(own, IDS, size)
    listing = begin(library, [], size)

    async def scroll() -> list[UUID]:
        shown: list[UUID] = []
        number, more = 1, True
        while more:
            page, more = await listing.page(number, size, library.ask, library.next_page)
            shown += page
            library.own = [one for one in new if one not in own][: 2 * number] + own
            number += 1
        return shown

    shown = asyncio.run(scroll())
    assert len(shown) == len(set(shown))
    assert set(own) <= set(shown)


def test_pages_that_are_asked_for_at_once_fit_together() -> None:
    library = Library(IDS, IDS, 5)
    listing = begin(library, IDS[::-1][:20], 5)

    async def slow(ids: Sequence[UUID]) -> list[UUID]:
        await asyncio.sleep(0.001)
        return list(ids)

    async def work() -> list[UUID]:
        pages = await asyncio.gather(*(listing.page(n, 5, slow, library.next_page) for n in range(1, 13)))
        return [one for page, _ in pages for one in page]

    shown = asyncio.run(work())
    assert sorted(shown) == sorted(IDS)


def test_a_failed_question_changes_nothing() -> None:
    library = Library(IDS[:5], IDS, 5)
    listing = begin(library, IDS[10:20], 5)

    async def fail(ids: Sequence[UUID]) -> list[UUID]:
        raise ConnectionError

    async def work() -> list[list[UUID]]:
        for _ in range(2):
            try:
                await listing.page(1, 5, fail, library.next_page)
            except ConnectionError:
                continue
        return await all_pages(listing, library, 5)

    assert sorted(one for page in asyncio.run(work()) for one in page) == sorted([*IDS[:5], *IDS[10:20]])


def test_lists_are_bounded_and_end() -> None:
    listings = Listings(most_ids=100)
    for n in range(20):
        listings.keep(bytes([n]), Listing(deque(IDS[:30]), {}, 1, False, {}))
    kept = [n for n in range(20) if listings.find(bytes([n])) is not None]
    assert kept == [17, 18, 19]
    listings.keep(b"large", Listing(deque(IDS * 10), {}, 1, False, {}))
    assert listings.find(b"large") is None
    short = Listings(seconds=-1)
    short.keep(b"x", PassedOn())
    assert short.find(b"x") is None
