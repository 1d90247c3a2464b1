"""Wrong keys, by the address that they came from: after some of them each further one has to wait twice as long."""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.requests import Request

from errors import ErrorCode, ServiceError
from serving.client_address import client_address
from serving.key import is_key, require_key, sent_keys

_FREE = 5
"""Wrong keys that cost nothing: people mistype."""
_LONGEST = 300.0
"""Seconds between two guesses, at most."""
_FORGOTTEN = 3600.0
"""Seconds after which an address is as if it had never guessed."""
_MOST_ADDRESSES = 10_000
_MOST_DIGESTS = 8
"""Wrong keys of an address that are known again: a program with an old key sends the same one all the time."""

_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class _Wrong:
    number: int
    last: float
    """Time of the last one."""
    digests: tuple[bytes, ...]


class Guesses:
    """The wrong keys of each address, and the time that it has to wait for. The same wrong key again is no guess."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, _Wrong] = OrderedDict()

    def require_key(self, request: Request, key: SecretStr | None) -> None:
        """Return if a header of ``request`` has the key. Raises as ``serving.key.require_key`` does, and
        TOO_MANY_ATTEMPTS.
        """
        if not self.has_key(request, key):
            require_key(request.headers, key)

    def has_key(self, request: Request, key: SecretStr | None) -> bool:
        """Return whether a header of ``request`` has the key. Raises TOO_MANY_ATTEMPTS where one has to wait."""
        return key is not None and self.look(client_address(request), sent_keys(request.headers), key)

    def look(self, address: str, given: Iterable[bytes], key: SecretStr) -> bool:
        """Return whether one of the keys that ``address`` has ``given`` is ``key``, and note those that are not.

        They are compared and noted in one go, so that requests at the same time are no way around the limit. Raises
        ``ServiceError`` TOO_MANY_ATTEMPTS before a key that has to wait, be it right or wrong.
        """
        return any(self.judge(address, one, right=is_key(one, key)) for one in given)

    def judge(self, address: str, given: bytes, *, right: bool) -> bool:
        """Return ``right``, whether what ``address`` has ``given`` is right, and note it where it is not.

        Raises ``ServiceError`` TOO_MANY_ATTEMPTS where the address has to wait.
        """
        self.check(address)
        if not right:
            self._note(address, _digest(given))
        return right

    def check(self, address: str) -> None:
        """Return if a key of ``address`` may be looked at now. Raises ``ServiceError`` TOO_MANY_ATTEMPTS."""
        wrong = self._wrong.get(address)
        left = wrong.last + _wait(wrong.number) - self._clock() if wrong is not None else 0.0
        if wrong is not None and wrong.number >= _FREE and left > 0:
            raise ServiceError(
                ErrorCode.TOO_MANY_ATTEMPTS,
                f"Too many wrong keys came from this address. Try again in {math.ceil(left)} s.",
            )

    def withdraw(self, address: str, given: Iterable[bytes]) -> None:
        """Take back what was noted of ``given``: it is no key of this service, but a credential for another."""
        digests = {_digest(one) for one in given}
        wrong = self._wrong.get(address)
        if wrong is not None and digests & set(wrong.digests):
            left = tuple(one for one in wrong.digests if one not in digests)
            self._wrong[address] = _Wrong(wrong.number - (len(wrong.digests) - len(left)), wrong.last, left)

    def forget(self, address: str) -> None:
        """Forget the wrong keys of ``address``, which has given the right one."""
        self._wrong.pop(address, None)

    def _note(self, address: str, digest: bytes) -> None:
        wrong = self._wrong.get(address)
        now = self._clock()
        if wrong is None or now - wrong.last > _FORGOTTEN:
            wrong = _Wrong(0, now, ())
        if digest in wrong.digests:
            return
        self._wrong[address] = _Wrong(wrong.number + 1, now, (*wrong.digests, digest)[-_MOST_DIGESTS:])
        self._wrong.move_to_end(address)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)


def _wait(number: int) -> float:
    return min(2.0 ** min(number - _FREE, 20), _LONGEST)


def _digest(given: bytes) -> bytes:
    return hashlib.blake2b(given, key=_SECRET, digest_size=16).digest()
