"""Whoever asks this service with the credentials of Immich: whom Immich takes them for, and requests in their name.

    visitors = Visitors(ImmichHttp(config.immich_url))                    # once; close() it at the end
    credentials = credentials_of(request)                                 # of a Starlette request
    visitor = await visitors.who(credentials)                             # None: Immich knows no such session or key
    reply = await visitors.ask("GET", f"/api/assets/{id}/thumbnail?size=preview", credentials, most=2**25)

Nothing is decided here: rights are what Immich answers. Credentials are passed on as they came, never logged, and
never kept: what is remembered of a visitor is found by a keyed hash of them, whose key ends with the process.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from starlette.requests import Request

from errors import ErrorCode, ServiceError
from runners.cancellation import gather_first_error
from search.immich.exchange import Headers, ImmichHttp, Reply, passed_on, with_headers, without
from search.query.timeline import Timeline

_KEPT_SECONDS = 60.0
_MOST_KEPT = 1000
_LARGEST = 2**20
"""Bytes of an answer about a person."""
_SECONDS = 10.0
_ABOUT_THE_REQUEST = frozenset(
    {"host", "content-type", "content-length", "content-encoding", "accept-encoding", "range", "expect", "origin"}
    | {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "x-request-id"}
)
"""Headers that say something of the one request, not of who sends it."""
_CREDENTIALS = frozenset(
    {"authorization", "x-api-key", "x-immich-user-token", "x-immich-session-token"}
    | {"x-immich-share-key", "x-immich-share-slug"}
)
_COOKIE = "immich_access_token"
_QUERY = ("apiKey=", "sessionKey=", "key=", "slug=")

_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The part of a request that tells Immich who asks."""

    headers: Headers = field(repr=False)
    """All headers of the request but those about the one request and its connection: cookies and ``User-Agent``, which
    Immich compares with the session's, are among them."""
    query: str = field(repr=False)
    """The query of the request, in which Immich takes keys too; as it came, ``""`` if it has none."""
    given: bool
    """True: there is something in them that Immich would look at."""
    digest: bytes = field(repr=False)
    """Tells these credentials from others within this process; they cannot be had back from it. 32 bytes."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user of Immich."""

    id: UUID
    name: str
    is_admin: bool
    timeline: Timeline
    """The pictures that Immich searches for them: the user's, and of the partners whose pictures they have in it, those
    that are on the timeline."""


def credentials_of(request: Request) -> Credentials:
    """Return the credentials in ``request``, unjudged."""
    headers = without(passed_on(request.headers.raw), _ABOUT_THE_REQUEST)
    query = request.url.query
    sent = [f"{name}:{value}" for name, value in headers if name in _CREDENTIALS]
    sent += [f"cookie:{one}" for name, value in headers if name == "cookie" for one in _session_cookies(value)]
    sent += [f"query:{query}"] if any(part.startswith(_QUERY) for part in query.split("&")) else []
    digest = hmac.digest(_SECRET, "\n".join(sent).encode("utf-8", "surrogateescape"), "sha256")
    return Credentials(headers, query if sent and sent[-1].startswith("query:") else "", bool(sent), digest)


def is_session(credentials: Credentials) -> bool:
    """Return whether nothing in the credentials can be an API key of Immich, whose rights may be less than its user's.

    A query with credentials is taken for one: there are many ways to write its names.
    """
    return not credentials.query and all(name != "x-api-key" for name, _ in credentials.headers)


def bearer_alone(request: Request) -> bool:
    """Return whether ``Authorization`` is all that tells Immich who sends the request, once."""
    given = credentials_of(request)
    names = [name for name, _ in given.headers if name in _CREDENTIALS]
    cookies = [one for name, value in given.headers if name == "cookie" for one in _session_cookies(value)]
    return names == ["authorization"] and not cookies and not given.query


def _session_cookies(value: str) -> list[str]:
    pairs = (one.strip().partition("=") for one in value.split(";"))
    return [session for name, _, session in pairs if name.strip() == _COOKIE]


def credentials_of_key(key: str) -> Credentials:
    """Return the credentials that an API key of Immich is."""
    return Credentials((("x-api-key", key),), "", True, hmac.digest(_SECRET, key.encode(), "sha256"))


async def ask_as(
    http: ImmichHttp,
    method: str,
    path: str,
    credentials: Credentials,
    *,
    content: Any,
    most: int,
    seconds: float | None,
) -> Reply:
    """Ask Immich for something in the name of whoever has ``credentials``, as ``Visitors.ask`` does."""
    target = path + ("&" if "?" in path else "?") + credentials.query if credentials.query else path
    body, more = None, {"accept-encoding": "identity"}
    if content is not None:
        body, more["content-type"] = orjson.dumps(content), "application/json"
    headers = with_headers(credentials.headers, more)
    return await http.ask(method, target, headers, body=body, most=most, seconds=seconds)


class Visitors:
    """Whom credentials belong to, remembered for a minute."""

    def __init__(self, http: ImmichHttp) -> None:
        self.http = http
        self._known: OrderedDict[bytes, tuple[float, Visitor]] = OrderedDict()

    async def close(self) -> None:
        """Close the connections to Immich."""
        await self.http.close()

    async def who(self, credentials: Credentials) -> Visitor | None:
        """Return whom Immich takes the credentials for; None where it refuses them, or there are none.

        Raises ``ServiceError`` IMMICH_UNAVAILABLE.
        """
        if not credentials.given:
            return None
        now = time.monotonic()
        known = self._known.get(credentials.digest)
        if known is not None and now < known[0]:
            return known[1]
        visitor = await self._ask_who(credentials)
        self._known.pop(credentials.digest, None)
        if visitor is not None:
            self._known[credentials.digest] = now + _KEPT_SECONDS, visitor
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return visitor

    async def ask(
        self,
        method: str,
        path: str,
        credentials: Credentials,
        *,
        content: Any = None,
        most: int,
        seconds: float | None = _SECONDS,
    ) -> Reply:
        """Ask Immich for something in the name of whoever has ``credentials``; return the answer whatever its status.

        ``path``: with its query, if it has one. ``content``: JSON to send, or None. ``most``: bytes of the answer.
        Raises ``ServiceError`` IMMICH_UNAVAILABLE where there is no answer.
        """
        return await ask_as(self.http, method, path, credentials, content=content, most=most, seconds=seconds)

    async def permissions(self, credentials: Credentials) -> frozenset[str] | None:
        """Return the permissions of the API key that the credentials are; None where they are a session, which may do
        all that its user may. Empty where Immich does not tell of the key.

        Raises ``ServiceError`` IMMICH_UNAVAILABLE.
        """
        if is_session(credentials):
            return None
        reply = await self.ask("GET", "/api/api-keys/me", credentials, most=_LARGEST)
        if reply.status >= 500:
            raise ServiceError(ErrorCode.IMMICH_UNAVAILABLE, f"Immich answered with status {reply.status}.")
        try:
            told = orjson.loads(reply.body)["permissions"] if reply.status == 200 else []
            return frozenset(map(str, told))
        except (ValueError, TypeError, KeyError):
            return frozenset()

    async def _ask_who(self, credentials: Credentials) -> Visitor | None:
        paths = ("/api/users/me", "/api/partners?direction=shared-with")
        me, sharers = await gather_first_error([self.ask("GET", path, credentials, most=_LARGEST) for path in paths])
        if me.status in (401, 403):
            return None
        try:
            if me.status != 200:
                raise ValueError(f"status {me.status}")
            user = orjson.loads(me.body)
            partners = orjson.loads(sharers.body) if sharers.status == 200 else []
            own = UUID(user["id"])
            shown = dict.fromkeys(UUID(one["id"]) for one in partners if one.get("inTimeline"))
            timeline = Timeline(str(own), tuple(str(one) for one in shown if one != own))
            return Visitor(own, str(user.get("name", "")), user.get("isAdmin") is True, timeline)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ServiceError(
                ErrorCode.IMMICH_UNAVAILABLE,
                f"Immich's answer about a visitor cannot be read ({type(error).__name__}). Is IMMICH_URL Immich's own?",
            ) from None
