"""The guests of the page, and what they may see.

Either a user of Immich, by the session that their browser has there: they see what Immich gives them. Or whoever has
the service's key, in the cookie of the page or in a header: they see everything, the pictures of Immich through the
keys of their owners.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from pydantic import SecretStr
from starlette.requests import Request

from errors import ErrorCode, ServiceError
from runners.cancellation import gather_in_turns
from search.immich.keys import keys_of
from search.immich.visitor import Credentials, Visitor, Visitors, bearer_alone, credentials_of, credentials_of_key
from search.query.timeline import Timeline
from serving.client_address import client_address
from serving.guesses import Guesses
from serving.key import bearer_keys, sent_keys
from settings import Settings
from web import session

_AT_ONCE = 8
"""Questions to Immich about single assets, at the same time."""
_KEPT_SECONDS = 60.0
_MOST_KEPT = 20_000
_MOST_COOKIES = 1000
_LARGEST = 2**20
"""Bytes of an answer about an asset."""


@dataclass(frozen=True, slots=True)
class Guest:
    """Whoever looks at the page."""

    user: Visitor | None
    """Of Immich; None: whoever has the service's key."""
    credentials: tuple[Credentials, ...]
    """Credentials to ask Immich with for this guest: their own, or the keys of its users."""
    by_cookie: bool = False
    """True where the key came in the page's cookie, which can be given back."""

    @property
    def may_see_system(self) -> bool:
        """Return True for an administrator of Immich, and for whoever has the key."""
        return self.user is None or self.user.is_admin

    @property
    def owners(self) -> tuple[str, ...] | None:
        """Return the owners of the pictures that are the guest's own: the user; None: everybody."""
        return None if self.user is None else (str(self.user.id),)

    @property
    def timeline(self) -> Timeline | None:
        """Return whose pictures the guest's searches are for: the user's and their partners'; None: everybody's."""
        return None if self.user is None else self.user.timeline


class Guests:
    """Tells guests apart, and asks Immich what each may see."""

    def __init__(self, settings: Settings, visitors: Visitors | None, guesses: Guesses) -> None:
        """``visitors``: None where there is no IMMICH_URL. ``guesses``: notes wrong keys, in headers and cookies."""
        self._settings = settings
        self._visitors = visitors
        self._guesses = guesses
        self._cookies: OrderedDict[bytes, None] = OrderedDict()
        """Digests of cookies that were right: whoever has one does not wait for the wrong keys of others."""
        self._seen: OrderedDict[tuple[bytes, UUID], tuple[float, bool]] = OrderedDict()
        self._keys = tuple(map(credentials_of_key, keys_of(settings)))

    async def who(self, request: Request) -> Guest | None:
        """Return who sends the request, or None where nobody is known.

        Raises ``ServiceError``: IMMICH_UNAVAILABLE; TOO_MANY_ATTEMPTS where a key in a header has to wait, and nothing
        else tells who it is.
        """
        key = self._settings.api_auth_key
        too_many: ServiceError | None = None
        if key is not None:
            try:
                if self._guesses.look(client_address(request), sent_keys(request.headers), key):
                    return Guest(None, self._keys)
            except ServiceError as error:
                too_many = error
            if await self._has_cookie(request, key):
                return Guest(None, self._keys, by_cookie=True)
        guest = await self._by_immich(request)
        if guest is None and too_many is not None:
            raise too_many
        return guest

    async def _has_cookie(self, request: Request, key: SecretStr) -> bool:
        """Return whether the request has the page's cookie. It is signed by the key, so that a wrong one is a guess."""
        cookie = request.cookies.get(session.COOKIE)
        if cookie is None:
            return False
        digest = hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
        is_valid = await asyncio.to_thread(session.is_valid, cookie, key)
        if not (is_valid and digest in self._cookies):
            try:
                self._guesses.judge(client_address(request), digest, right=is_valid)
            except ServiceError:  # as if there were none: the page asks for the key, and tells how long it has to wait
                return False
        if is_valid:
            self._cookies[digest] = None
            while len(self._cookies) > _MOST_COOKIES:
                self._cookies.popitem(last=False)
        return is_valid

    async def _by_immich(self, request: Request) -> Guest | None:
        """Return the user of Immich who sends the request."""
        if self._visitors is None:
            return None
        credentials = credentials_of(request)
        user = await self._visitors.who(credentials)
        if user is None:
            return None
        if bearer_alone(request):  # only what Immich itself has taken was no guess
            self._guesses.withdraw(client_address(request), bearer_keys(request.headers))
        return Guest(user, (credentials,))

    async def require(self, request: Request) -> Guest:
        """Return who sends the request. Raises ``ServiceError`` UNAUTHORIZED, IMMICH_UNAVAILABLE."""
        guest = await self.who(request)
        if guest is None:
            raise ServiceError(ErrorCode.UNAUTHORIZED, "Log in with the service's key, or in Immich, first.")
        return guest

    async def seen(self, guest: Guest, ids: Collection[UUID]) -> set[UUID]:
        """Return those of ``ids`` that the guest may see: all with the key, otherwise those that Immich gives them.

        Immich's answers are believed for a minute. Raises ``ServiceError`` IMMICH_UNAVAILABLE.
        """
        if guest.user is None:
            return set(ids)
        assets = list(dict.fromkeys(ids))
        looks = [partial(self._sees, guest.credentials[0], asset) for asset in assets]
        answers = await gather_in_turns(looks, at_once=_AT_ONCE)
        return {asset for asset, sees in zip(assets, answers, strict=True) if sees}

    async def require_seen(self, guest: Guest, asset: UUID) -> None:
        """Raise ``ServiceError`` UNKNOWN_ASSET unless the guest may see the asset."""
        if not await self.seen(guest, [asset]):
            raise unknown(asset)

    async def has_permission(self, guest: Guest, permission: str) -> bool:
        """Return whether the guest may do what needs Immich's ``permission``: an API key of Immich that has it, or the
        permission ``all``; a session; whoever has the service's key. Raises ``ServiceError`` IMMICH_UNAVAILABLE.
        """
        if guest.user is None or self._visitors is None:
            return True
        held = await self._visitors.permissions(guest.credentials[0])
        return held is None or bool(held & {permission, "all"})

    async def require_permission(self, guest: Guest, permission: str) -> None:
        """Return where ``has_permission`` is true. Raises ``ServiceError`` FORBIDDEN, IMMICH_UNAVAILABLE."""
        if not await self.has_permission(guest, permission):
            raise ServiceError(
                ErrorCode.FORBIDDEN,
                f"This needs a session of Immich, or an API key of it with the permission {permission}, and nothing "
                "else in the request that tells Immich who asks.",
            )

    async def _sees(self, credentials: Credentials, asset: UUID) -> bool:
        known = self._seen.get((credentials.digest, asset))
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        assert self._visitors is not None  # noqa: S101 - without it there is no user of Immich
        reply = await self._visitors.ask("GET", f"/api/assets/{asset}", credentials, most=_LARGEST)
        if reply.status >= 500:
            raise ServiceError(ErrorCode.IMMICH_UNAVAILABLE, f"Immich answered with status {reply.status}.")
        self._seen[credentials.digest, asset] = time.monotonic() + _KEPT_SECONDS, reply.status == 200
        while len(self._seen) > _MOST_KEPT:
            self._seen.popitem(last=False)
        return reply.status == 200


def unknown(asset: UUID) -> ServiceError:
    """Return the error of an asset that is not there, or not for whoever asks: both look alike."""
    return ServiceError(ErrorCode.UNKNOWN_ASSET, f"There is no asset {asset} that can be found.")
