"""Wrong keys, by the address that they came from: each further one has to wait twice as long."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from errors import ErrorCode, ServiceError

_FREE = 5
"""Wrong keys that cost nothing: people mistype."""
_LONGEST = 300.0
"""Seconds between two guesses, at most."""
_FORGOTTEN = 3600.0
"""Seconds after which an address is as if it had never guessed."""
_MOST_ADDRESSES = 10_000


class Guesses:
    """The wrong keys of each address, and the time that it has to wait for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Number of wrong keys, and the time of the last one."""

    def check(self, address: str) -> None:
        """Return if a key of ``address`` may be looked at now. Raises ``ServiceError`` TOO_MANY_ATTEMPTS."""
        number, last = self._wrong.get(address, (0, 0.0))
        left = last + self._wait(number) - self._clock()
        if number >= _FREE and left > 0:
            raise ServiceError(
                ErrorCode.TOO_MANY_ATTEMPTS,
                f"Too many wrong keys came from this address. Try again in {math.ceil(left)} s.",
            )

    def wrong(self, address: str) -> None:
        """Note that a key of ``address`` was wrong."""
        number, last = self._wrong.pop(address, (0, 0.0))
        if self._clock() - last > _FORGOTTEN:
            number = 0
        self._wrong[address] = number + 1, self._clock()
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """Note that a key of ``address`` was right."""
        self._wrong.pop(address, None)

    @staticmethod
    def _wait(number: int) -> float:
        return min(2.0 ** min(number - _FREE, 20), _LONGEST)
