"""Ids to assets, by asking Immich with the searcher's own credentials and filters. What it does not give back is not
theirs to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from compat.immich_search.filters import as_filter
from compat.immich_search.wish import METADATA, Wish
from runners.cancellation import gather_in_turns
from search.immich.version import Version
from search.immich.visitor import Credentials, Visitors

_AT_ONCE = 8
"""Calls for single assets in flight, of one search."""
_WORTH_A_LIST = 16
"""Assets from which on one call for everything that Immich itself finds by text is tried before single calls."""
_ONE_CALL = 500
"""Ids in one call of Immich 3.2 and newer."""
_LIST = 1000
"""Assets in one answer, at most."""
_ALBUM_LISTS = 3
"""Answers that a search within albums reads to know what is in them."""
_LARGEST = 64 * 2**20
"""Bytes of an answer: 1000 assets have 2 to 3 MB."""

_FLAGS = ("withExif", "withPeople", "withStacked")
"""What an answer is to have in it."""

Item = dict[str, Any]
OR_SINCE: Version = (3, 2)
"""The first Immich whose ``/search/metadata`` takes alternatives, and so many ids in one call."""


class UnexpectedAnswer(Exception):
    """Immich answered a search of ours otherwise than it should. The message has no text of the search."""


@dataclass(slots=True)
class Assets:
    """The assets that Immich gave back during one request."""

    wish: Wish
    credentials: Credentials
    visitors: Visitors
    version: Version
    known: dict[UUID, Item] = field(default_factory=dict)
    _asked: set[UUID] = field(default_factory=set)
    _listed: bool = False

    def learn(self, items: Iterable[Item]) -> list[UUID]:
        """Keep assets of an answer of Immich; return their ids, in order."""
        ids = []
        for item in items:
            asset = UUID(item["id"])
            self.known[asset] = item
            ids.append(asset)
        return ids

    async def ask_for(self, ids: Sequence[UUID]) -> list[UUID]:
        """Return those of ``ids`` that Immich gives back, in order; their assets are in ``known`` then.

        Raises ``UnexpectedAnswer``, and ``ServiceError`` IMMICH_UNAVAILABLE.
        """
        conditions = as_filter(self.wish.filters) if self.version >= OR_SINCE else None
        if conditions is not None:
            missing = self._missing(ids)
            parts = [missing[at : at + _ONE_CALL] for at in range(0, len(missing), _ONE_CALL)]
            await gather_in_turns(
                [partial(self._by_alternatives, part, conditions) for part in parts], at_once=_AT_ONCE
            )
        else:
            if len(self._missing(ids)) > _WORTH_A_LIST and not self._listed:
                self._listed = True
                await self._by_text()
            await gather_in_turns([partial(self._by_id, one) for one in self._missing(ids)], at_once=_AT_ONCE)
        return [one for one in ids if one in self.known]

    async def of_albums(self) -> list[UUID] | None:
        """Return all pictures that Immich gives for the filters, of which albums are one; None where they are more than
        3000. Locked ones are left out.

        Raises as ``ask_for`` does.
        """
        ids: list[UUID] = []
        for page in range(1, _ALBUM_LISTS + 1):
            answer = await self._answer({**self.wish.filters, "size": _LIST, "page": page})
            items = items_of(answer)
            self.learn(items)
            ids += [UUID(item["id"]) for item in items if item.get("visibility") != "locked"]
            if answer["assets"].get("nextPage") is None:
                return ids
        return None

    def _missing(self, ids: Sequence[UUID]) -> list[UUID]:
        return [one for one in dict.fromkeys(ids) if one not in self.known and one not in self._asked]

    async def _by_id(self, asset: UUID) -> None:
        items = await self._search({**self.wish.filters, "id": str(asset), "size": 1})
        self._asked.add(asset)
        self.learn(item for item in items if item["id"] == str(asset))

    async def _by_text(self) -> None:
        """Ask for what Immich itself finds by the text: most of what was found here, in one call."""
        text = " ".join(word for one in self.wish.parsed.alternatives[:1] for word in one.wanted)
        self.learn(await self._search({**self.wish.filters, "ocr": text, "size": _LIST}))

    async def _by_alternatives(self, ids: Sequence[UUID], conditions: Mapping[str, Any]) -> None:
        wanted = set(map(str, ids))
        alternatives = {"trashedAt": {"eq": None}, **conditions, "or": [{"id": {"eq": one}} for one in wanted]}
        flags = {key: value for key, value in self.wish.filters.items() if key in _FLAGS}
        items = await self._search({**flags, "filter": alternatives, "size": len(ids)})
        self._asked.update(ids)
        self.learn(item for item in items if item["id"] in wanted)

    async def _search(self, content: Mapping[str, Any]) -> list[Item]:
        return items_of(await self._answer(content))

    async def _answer(self, content: Mapping[str, Any]) -> dict[str, Any]:
        reply = await self.visitors.ask("POST", METADATA, self.credentials, content=content, most=_LARGEST)
        if reply.status != 200:
            raise UnexpectedAnswer(f"Immich answered a search for single assets with status {reply.status}")
        return read_answer(reply.body)


def read_answer(body: bytes) -> dict[str, Any]:
    """Return an answer of Immich's search. Raises ``UnexpectedAnswer`` if it has another shape."""
    try:
        answer = orjson.loads(body)
        if all(isinstance(item["id"], str) for item in answer["assets"]["items"]):
            return dict(answer)
    except (ValueError, KeyError, TypeError):
        pass
    raise UnexpectedAnswer("Immich's search has answered in a shape that is not known")


def items_of(answer: Mapping[str, Any]) -> list[Item]:
    """Return the assets in an answer."""
    items: list[Item] = answer["assets"]["items"]
    return items
