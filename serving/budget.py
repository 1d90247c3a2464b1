"""Room in memory for request bodies: counted as they come, bounded, and shared among clients.

Immich gives a photo up for good after one failed request. So a full memory makes requests wait, unread, in the senders'
own buffers, rather than fail. Four rules keep that safe; all sizes are in bytes.

1. What counts is what has come (and the piece that is being read), from the first byte until the request is answered.
   What a request announces is its *claim*: the most that it may come to hold.
2. Bodies are read side by side, and could fill the memory together with none of them whole. So a body may grow only if
   every body that was begun before it can still be finished: for each of those, its claim plus what all bodies begun
   after it hold must fit into the whole. The oldest then waits for nothing but answers to whole bodies, which need no
   more memory, and once it is whole the same holds for the next. A body whose sender is slow costs others the room of
   its claim, and many such bodies no more than the largest of their claims.
3. No client (address) holds more than a share in bodies that are not whole yet, nor reads more than half of the bodies
   that are read at the same time, nor stands with more than half of the waiting requests in line. While other clients
   wait, its whole bodies count into its share too. The share is half of everything, or one largest body if that is
   more.
4. New requests are admitted in turns among clients, and first come first served for each of them. Small requests (text
   queries) have a sixteenth of the memory for themselves, by the same rules, and never wait behind pictures.

A body that is larger than all the memory counts as all of it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import metrics
from errors import ErrorCode, ServiceError

SMALL = 64 * 1024
"""Bytes: a request that announces no more (a text query) is a small one."""
_SMALL_PART = 16
"""Small requests have one part of this many for themselves."""
_READ_AT_ONCE = 128
"""Bodies that are read at the same time, of each size class."""
_LOOKED_AT = 32
"""Clients in line that are looked at, at most, each time that room comes free; the others are next."""


class Room:
    """The bytes that one request holds. ``ByteBudget.room`` makes it and takes it back."""

    def __init__(self, pool: _Pool, client: str, claim: int) -> None:
        self.client = client
        self.claim = min(claim, pool.share)
        """Bytes that it may come to hold."""
        self.held = 0
        self.wanted = 0
        """Bytes that it asks to hold; no less than ``held``."""
        self.whole = False
        """True once all of the body has come."""
        self.turn: asyncio.Future[None] | None = None
        """Done once it may hold what it wants; None while it does not wait."""
        self._pool = pool

    async def reach(self, size: int) -> bool:
        """Wait until this request may hold ``size`` bytes, or its whole claim if that is less. Return whether it had to
        wait.

        Raises ``ServiceError`` QUEUE_FULL where too many requests wait already.
        """
        size = min(size, self.claim)
        return size > self.held and await self._pool.grow(self, size)

    def complete(self, size: int) -> None:
        """Note that the whole body has come, and that it has ``size`` bytes."""
        self._pool.complete(self, min(size, self.claim))


class ByteBudget:
    """Bounds the bytes of all request bodies in memory; see the top of this module. Belongs to one event loop."""

    def __init__(self, total: int, max_waiting: int, *, largest: int) -> None:
        """``total``: bytes. ``max_waiting``: requests that may wait to be read; one more is refused. ``largest``: bytes
        of the largest body that is read at all.
        """
        small = total // _SMALL_PART
        self._small = _Pool(small, max_waiting, largest=SMALL, on_change=self._tell)
        self._large = _Pool(total - small, max_waiting, largest=largest, on_change=self._tell)

    @property
    def held(self) -> int:
        """Return the bytes that all requests hold."""
        return self._small.held + self._large.held

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait for room, unread."""
        return self._small.waiting + self._large.waiting

    @asynccontextmanager
    async def room(self, client: str, claim: int) -> AsyncIterator[Room]:
        """Give a request of ``client`` that announces ``claim`` bytes its room, and take it back after the block."""
        pool = self._small if claim <= SMALL else self._large
        room = Room(pool, client, claim)
        try:
            yield room
        finally:
            pool.leave(room)

    def _tell(self) -> None:
        metrics.QUEUE_BYTES.set(self.held)
        metrics.QUEUE_WAITING.set(self.waiting)


class _Pool:
    """The room for requests of one size class."""

    def __init__(self, total: int, max_waiting: int, *, largest: int, on_change: Callable[[], None]) -> None:
        self.total = max(total, 1)
        self.share = max(self.total // 2, min(largest, self.total))
        """Bytes for one client."""
        self.held = 0
        self.waiting = 0
        self._max_waiting = max_waiting
        self._on_change = on_change
        self._begun: dict[Room, None] = {}
        """Bodies that are being read, oldest first."""
        self._whole: Counter[str] = Counter()
        """Bytes of whole bodies, by client."""
        self._line: dict[str, deque[Room]] = {}
        """Requests of which nothing was read yet, by client; the client whose turn is next comes first."""

    async def grow(self, room: Room, size: int) -> bool:
        room.wanted = size
        begun = room in self._begun
        if (begun or not self._line) and self._may_grow(room):
            self._grow(room)
            self._on_change()
            return False
        turn = room.turn = asyncio.get_running_loop().create_future()
        if not begun:
            self._stand_in_line(room)
            self._serve()  # those in front may all be of clients who have had their share
        self._on_change()
        await turn
        return True

    def complete(self, room: Room, size: int) -> None:
        self.held += size - room.held
        self._whole[room.client] += size
        room.held, room.whole = size, True
        self._begun.pop(room, None)
        self._serve()
        self._on_change()

    def leave(self, room: Room) -> None:
        self.held -= room.held
        if room.whole:
            self._whole[room.client] -= room.held
            if not self._whole[room.client]:
                del self._whole[room.client]
        self._begun.pop(room, None)
        self._leave_line(room)
        room.held, room.turn = 0, None
        self._serve()
        self._on_change()

    def _stand_in_line(self, room: Room) -> None:
        line = self._line.setdefault(room.client, deque())
        if self.waiting >= self._max_waiting or len(line) >= math.ceil(self._max_waiting / 2):
            if not line:
                del self._line[room.client]
            raise ServiceError(
                ErrorCode.QUEUE_FULL,
                f"{self.waiting} requests are waiting already, {len(line)} of them from this address. Lower Immich's "
                "job concurrency, or raise QUEUE_REQUESTS or QUEUE_BYTES.",
            )
        line.append(room)
        self.waiting += 1

    def _leave_line(self, room: Room) -> None:
        line = self._line.get(room.client)
        if line and room in line:
            line.remove(room)
            self.waiting -= 1
            if not line:
                del self._line[room.client]

    def _serve(self) -> None:
        """Give room to all who wait and may have it: bodies begun, oldest first, then new ones, by clients in turn."""
        for room in list(self._begun):
            if room.turn is not None and self._may_grow(room):
                self._grow(room)
        passed_over = 0
        while passed_over < min(len(self._line), _LOOKED_AT):
            client, line = next(iter(self._line.items()))
            del self._line[client]
            if line:
                self._line[client] = line  # at the end
            if self._may_grow(line[0]):
                self._grow(line[0])
                self._leave_line(line[0])
                passed_over = 0
            else:
                passed_over += 1

    def _grow(self, room: Room) -> None:
        self.held += room.wanted - room.held
        room.held = room.wanted
        self._begun[room] = None
        if room.turn is not None and not room.turn.done():
            room.turn.set_result(None)
        room.turn = None

    def _may_grow(self, room: Room) -> bool:
        more = room.wanted - room.held
        if self.held + more > self.total:
            return False
        of_client = [one for one in self._begun if one.client == room.client]
        if room not in self._begun and (len(self._begun) >= _READ_AT_ONCE or len(of_client) >= _READ_AT_ONCE // 2):
            return False
        of_client_held = self._whole[room.client] + sum(one.held for one in of_client)
        if of_client_held + more > self.share and self._others_wait(room.client):
            return False
        return _older_can_finish(of_client, room, more, self.share) and _older_can_finish(
            list(self._begun), room, more, self.total
        )

    def _others_wait(self, client: str) -> bool:
        return any(other != client for other in self._line) or any(
            one.turn is not None and one.client != client for one in self._begun
        )


def _older_can_finish(begun: Sequence[Room], room: Room, more: int, total: int) -> bool:
    """Return whether each body in ``begun`` (oldest first) that is older than ``room`` fits into ``total`` bytes with
    its claim beside all that younger ones hold, once ``room`` holds ``more`` bytes more.
    """
    is_new = room not in begun
    held_by_younger, is_older = (more if is_new else 0), is_new
    for one in reversed(begun):
        if is_older and held_by_younger + one.claim > total:
            return False
        held_by_younger += one.held
        if one is room:
            held_by_younger += more
            is_older = True
    return True
