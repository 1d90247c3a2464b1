"""Whom Immich takes a visitor for, and what goes to it in their name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pytest
from starlette.requests import Request

from errors import ErrorCode, ServiceError
from search.immich.exchange import ImmichHttp, passed_on
from search.immich.visitor import Credentials, Visitor, Visitors, credentials_of
from search.query.timeline import Timeline
from tests.fake_immich_search import FakeSearchImmich, User

T = TypeVar("T")

ANNA, BEN, CARL = User("Anna", is_admin=True), User("Ben"), User("Carl")
ANNA.partners = [(BEN, True), (CARL, False)]


def request(headers: Iterable[tuple[str, str]], query: str = "") -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": raw}
    return Request(scope | {"server": ("here", 80), "scheme": "http"})


def cookie(user: User) -> Credentials:
    return credentials_of(request([("cookie", f"a=b; immich_access_token={user.token}; c=d")]))


def asking(immich: FakeSearchImmich, work: Callable[[Visitors], Awaitable[T]]) -> T:
    async def run() -> T:
        visitors = Visitors(ImmichHttp(immich.url))
        try:
            return await work(visitors)
        finally:
            await visitors.close()

    return asyncio.run(run())


def test_a_visitor_is_who_immich_says() -> None:
    with FakeSearchImmich(ANNA, BEN) as immich:
        anna, ben = asking(immich, lambda visitors: _both(visitors, cookie(ANNA), cookie(BEN)))
    assert anna is not None
    assert ben is not None
    assert (anna.id, anna.name, anna.is_admin) == (ANNA.id, "Anna", True)
    assert (ben.id, ben.is_admin) == (BEN.id, False)
    assert (anna.timeline, ben.timeline) == (Timeline(str(ANNA.id), (str(BEN.id),)), Timeline(str(BEN.id)))


async def _both(visitors: Visitors, *credentials: Credentials) -> list[Visitor | None]:
    return [await visitors.who(one) for one in credentials]


@pytest.mark.parametrize(
    "headers",
    [
        [("cookie", f"immich_access_token={ANNA.token}")],
        [("x-api-key", ANNA.token)],
        [("authorization", f"Bearer {ANNA.token}")],
    ],
)
def test_every_way_to_say_who_one_is_goes_along_unchanged(headers: list[tuple[str, str]]) -> None:
    given = credentials_of(request([*headers, ("user-agent", "Immich_iOS/3.1"), ("content-length", "7")]))
    with FakeSearchImmich(ANNA) as immich:
        visitor = asking(immich, lambda visitors: visitors.who(given))
        sent = immich.seen[0].headers
    assert visitor is not None
    assert visitor.id == ANNA.id
    assert {name: sent[name] for name, _ in headers} == dict(headers)
    assert sent["user-agent"] == "Immich_iOS/3.1"
    assert sent.get("content-length") != "7"


def test_keys_in_the_query_go_along() -> None:
    with FakeSearchImmich(ANNA) as immich:
        asking(immich, lambda visitors: visitors.who(credentials_of(request([], "apiKey=x&a=b"))))
        targets = {one.target for one in immich.seen}
    assert targets == {"/api/users/me?apiKey=x&a=b", "/api/partners?direction=shared-with&apiKey=x&a=b"}


def test_immich_is_asked_once_a_minute_for_each_visitor() -> None:
    with FakeSearchImmich(ANNA, BEN) as immich:
        asking(immich, lambda visitors: _both(visitors, cookie(ANNA), cookie(ANNA), cookie(BEN), cookie(ANNA)))
        assert len([one for one in immich.seen if one.target == "/api/users/me"]) == 2


def test_who_immich_refuses_is_nobody_and_is_asked_about_again() -> None:
    stranger = credentials_of(request([("x-api-key", "wrong")]))
    with FakeSearchImmich(ANNA) as immich:
        assert asking(immich, lambda visitors: _both(visitors, stranger, stranger)) == [None, None]
        assert len([one for one in immich.seen if one.target == "/api/users/me"]) == 2


def test_without_credentials_nobody_is_asked() -> None:
    with FakeSearchImmich(ANNA) as immich:
        assert asking(immich, lambda visitors: visitors.who(credentials_of(request([("cookie", "a=b")])))) is None
        assert immich.seen == []


def test_credentials_are_told_apart_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ways = [
        credentials_of(request([("x-api-key", "secret-1")])),
        credentials_of(request([("x-api-key", "secret-2")])),
        credentials_of(request([("authorization", "secret-1")])),
        credentials_of(request([("cookie", "immich_access_token=secret-1")])),
        credentials_of(request([], "apiKey=secret-1")),
        credentials_of(request([], "sessionKey=secret-1")),
    ]
    assert len({one.digest for one in ways}) == len(ways)
    same = credentials_of(request([("x-api-key", "secret-1"), ("accept", "*/*"), ("cookie", "theme=dark")]))
    assert same.digest == ways[0].digest
    assert not any("secret" in repr(one) for one in ways)
    with FakeSearchImmich(ANNA) as immich:
        asking(immich, lambda visitors: _both(visitors, *ways))
    assert "secret" not in caplog.text


def test_an_immich_that_is_away_is_an_error_without_the_credentials() -> None:
    async def ask() -> None:
        visitors = Visitors(ImmichHttp("http://127.0.0.1:9"))
        try:
            await visitors.who(cookie(ANNA))
        finally:
            await visitors.close()

    with pytest.raises(ServiceError) as caught:
        asyncio.run(ask())
    assert caught.value.code is ErrorCode.IMMICH_UNAVAILABLE
    assert ANNA.token not in caught.value.message
    assert "127.0.0.1:9" in caught.value.message


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id":"no uuid"}', b"{}"])
def test_an_address_that_is_not_immich_is_an_error(body: bytes) -> None:
    with FakeSearchImmich(ANNA) as immich:
        immich.override = lambda seen: (200, body)
        with pytest.raises(ServiceError, match="Is IMMICH_URL Immich's own"):
            asking(immich, lambda visitors: visitors.who(cookie(ANNA)))


def test_a_connection_that_immich_closes_meanwhile_is_replaced() -> None:
    async def work(visitors: Visitors) -> list[int]:
        statuses = []
        for _ in range(3):
            reply = await visitors.ask("POST", "/api/search/smart", cookie(ANNA), content={"query": "x"}, most=10**6)
            statuses.append(reply.status)
            for one in list(sockets):
                one.shutdown(2)
                sockets.remove(one)
        return statuses

    with FakeSearchImmich(ANNA) as immich:
        sockets = _kept_sockets(immich)
        assert asking(immich, work) == [200, 200, 200]


def _kept_sockets(immich: FakeSearchImmich) -> list[Any]:
    server = immich._server
    sockets: list[Any] = []
    process = server.process_request

    def keep(request: Any, address: Any) -> None:
        sockets.append(request)
        process(request, address)

    server.process_request = keep  # type: ignore[assignment, method-assign]
    return sockets


def test_headers_about_the_connection_stay_behind() -> None:
    raw = [(b"Connection", b"keep-alive, X-Mine"), (b"X-Mine", b"1"), (b"Transfer-Encoding", b"chunked")]
    assert passed_on([*raw, (b"X-Api-Key", b"k"), (b"Cookie", "ü".encode()), (b"Odd", b"\xff")]) == (
        ("x-api-key", "k"),
        ("cookie", "ü"),
        ("odd", "ÿ"),
    )
