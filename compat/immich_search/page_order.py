"""The order of one search, kept so that its pages fit together: ids alone, and which of them Immich has shown.

A list begins with what text and Immich's first page were fused to, and goes on with Immich's further pages. Ids that
only text found are asked for as a page needs them; those that Immich does not give back leave the list unseen, and
the next ones take their places, so that neither a page's length nor a number tells of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias
from uuid import UUID

_KEPT_SECONDS = 600.0
_MOST_IDS = 100_000
"""Ids of all lists together: about 20 MB."""
_MOST_LISTS = 1000

Visible: TypeAlias = "Callable[[Sequence[UUID]], Awaitable[Iterable[UUID]]]"
"""Asks Immich for pictures; returns the ids of those that the searcher may see and that the filters let through."""
NextPage: TypeAlias = "Callable[[int], Awaitable[tuple[Sequence[UUID], bool]]]"
"""Asks Immich for a page of its own, from 1; returns its ids, and whether there are more."""


@dataclass(slots=True)
class Listing:
    """The list of one search. ``order``: what is not looked at yet."""

    order: deque[UUID]
    own: dict[UUID, int]
    """Ids that Immich's own pages had: they need no asking. The page of each."""
    pages: int
    """Immich's own pages that are in it."""
    more: bool
    """True: Immich has more of its own."""
    skeleton: dict[str, Any]
    """An answer of Immich without its pictures."""
    shown: list[UUID] = field(default_factory=list)
    """The beginning of the list, as far as it is known to be visible."""
    _growing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def held(self) -> int:
        """Return the number of ids that are kept."""
        return len(self.order) + len(self.shown) + len(self.own)

    async def page(self, number: int, size: int, visible: Visible, next_page: NextPage) -> tuple[list[UUID], bool]:
        """Return the ids of a page, from 1, and whether there is another. Raises what asking Immich raises."""
        end = number * size
        async with self._growing:
            while len(self.shown) <= end:
                if self.order:
                    await self._look_at(tuple(islice(self.order, end + 1 - len(self.shown))), visible)
                elif self.more and len(self.shown) < end:
                    await self._append(next_page)
                else:
                    break
        return self.shown[end - size : end], len(self.shown) > end or self.more

    async def _look_at(self, ids: Sequence[UUID], visible: Visible) -> None:
        unknown = [one for one in ids if one not in self.own]
        seen = set(await visible(unknown)) if unknown else set()
        for _ in ids:  # only now that they are known: what fails changes nothing
            self.order.popleft()
        self.shown += [one for one in ids if one in self.own or one in seen]

    async def _append(self, next_page: NextPage) -> None:
        ids, self.more = await next_page(self.pages + 1)
        self.pages += 1
        known = {*self.shown, *self.own}
        for one in dict.fromkeys(ids):
            if one not in known:
                self.order.append(one)
            self.own.setdefault(one, self.pages)


@dataclass(frozen=True, slots=True)
class PassedOn:
    """Stands for a search whose first page was Immich's own: so are its others."""

    held: int = 0


class Listings:
    """Lists of searches, kept for ten minutes, as far as there is room. Keys are hashes of caller and search."""

    def __init__(self, *, most_ids: int = _MOST_IDS, seconds: float = _KEPT_SECONDS) -> None:
        self._kept: OrderedDict[bytes, tuple[float, Listing | PassedOn]] = OrderedDict()
        self._most_ids = most_ids
        self._seconds = seconds

    def find(self, key: bytes) -> Listing | PassedOn | None:
        """Return the list of a search, or None where it is not kept any more."""
        kept = self._kept.get(key)
        if kept is None or time.monotonic() > kept[0]:
            self._kept.pop(key, None)
            return None
        return kept[1]

    def keep(self, key: bytes, listing: Listing | PassedOn) -> None:
        """Keep a list, which may have grown since; drop the oldest ones for it. One that is too large is not kept."""
        self._kept.pop(key, None)
        self._kept[key] = time.monotonic() + self._seconds, listing
        held = sum(one.held for _, one in self._kept.values())
        while self._kept and (held > self._most_ids or len(self._kept) > _MOST_LISTS):
            _, (_, dropped) = self._kept.popitem(last=False)
            held -= dropped.held
