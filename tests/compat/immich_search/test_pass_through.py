"""What is not a search that is answered here passes through, byte for byte, whatever it is."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest

from tests.compat.immich_search.home import Home, Visit, done
from tests.fake_immich_search import FakeSearchImmich, Picture, Seen, User

ANNA = User("anna")


@pytest.fixture(scope="module")
def immich() -> Iterator[FakeSearchImmich]:
    with FakeSearchImmich(ANNA) as fake:
        fake.pictures += [Picture(ANNA.id) for _ in range(3)]
        yield fake


@pytest.fixture
def home(immich: FakeSearchImmich, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(immich, monkeypatch)
    home.texts.found = [(ANNA.id, one.id) for one in immich.pictures]
    return home


def direct(immich: FakeSearchImmich, method: str, route: str, body: bytes) -> tuple[int, bytes]:
    """Return what Immich answers without us."""
    cookie = {"cookie": f"immich_access_token={ANNA.token}"}
    return immich.answer(Seen(method, f"/api/search/{route}", cookie, body))


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("smart", {"queryAssetId": "00000000-0000-4000-8000-000000000000"}),
        ("smart", {"query": "x", "ocr": "y"}),
        ("smart", {"query": "x", "visibility": "locked"}),
        ("smart", {"query": "x", "withDeleted": True}),
        ("smart", {"query": "x", "trashedAfter": "2026-01-01"}),
        ("smart", {"query": ""}),
        ("smart", {"query": "..."}),
        ("smart", {"query": 5}),
        ("smart", {"query": "x", "page": 0}),
        ("smart", {"query": "x", "page": "1"}),
        ("smart", {"query": "x", "page": 1.5}),
        ("smart", {"query": "x", "size": 1001}),
        ("smart", {"query": "x", "size": True}),
        ("smart", {"query": "ocr:x", "language": 5}),
        ("smart", {"query": "x", "takenAfter": "soon"}),
        ("smart", []),
        ("smart", {}),
        ("metadata", {"originalFileName": "x"}),
        ("metadata", {"ocr": "x", "order": "asc"}),
        ("metadata", {"ocr": "x", "id": "00000000-0000-4000-8000-000000000000"}),
        ("metadata", {"ocr": 5}),
        ("metadata", {"ocr": "x", "size": 0}),
        ("metadata", {"ocr": "x", "isFavorite": "yes"}),
    ],
)
def test_what_is_for_immich_is_answered_by_immich(home: Home, route: str, body: Any) -> None:
    answer = home.ask(route, body, ANNA)
    assert (answer.status_code, answer.content) == direct(home.immich, "POST", route, json.dumps(body).encode())
    assert done(answer) == "passed"
    assert answer.headers["x-immich-cid"] == "abc"


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'"x"', b'{"query":"\\ud800"}', b"\xff\xfe", b"[" * 5000])
def test_what_is_no_json_is_refused_by_immich(home: Home, body: bytes) -> None:
    answer = home.ask("smart", body, ANNA)
    assert home.immich.searches("smart")[-1].body == body
    assert answer.status_code < 500
    assert done(answer) == "passed"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "gzip"},
        {"x-immich-share-key": "abc"},
    ],
)
def test_unusual_requests_are_passed_on(home: Home, headers: dict[str, str]) -> None:
    body = json.dumps({"query": "x"}).encode()
    answer = home.ask("smart", body, ANNA, headers=headers)
    assert done(answer) == "passed"
    last = home.immich.searches("smart")[-1]
    assert (last.body, {name: last.headers[name] for name in headers}) == (body, headers)


def test_shared_links_are_passed_on(home: Home) -> None:
    answer = home.ask("metadata", {"ocr": "x"}, ANNA, query="?key=abc&a=%2F%7e")
    assert done(answer) == "passed"
    assert home.immich.seen[-1].target == "/api/search/metadata?key=abc&a=%2F%7e"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_passed_on(home: Home, method: str) -> None:
    answer = home.ask("smart", b"", ANNA, method=method)
    assert (answer.status_code, answer.content) == direct(home.immich, method, "smart", b"")


def test_who_is_not_logged_in_gets_immichs_refusal(home: Home) -> None:
    answer = home.ask("smart", {"query": "x"})
    assert (answer.status_code, answer.json(), done(answer)) == (401, {"message": "Authentication required"}, "passed")


def test_a_large_body_is_passed_on_piece_by_piece(home: Home) -> None:
    body = json.dumps({"query": "x", "padding": "y" * 300_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    async def send(visit: Visit) -> Any:
        headers = {"cookie": f"immich_access_token={ANNA.token}", "content-type": "application/json"}
        return await visit.client.post("/api/search/smart", content=pieces(), headers=headers)

    answer = home.run(send)
    assert (answer.status_code, done(answer)) == (200, "passed")
    assert home.immich.searches("smart")[-1].body == body
    whole = home.ask("smart", body, ANNA)
    assert whole.content == answer.content


def stalling(enough: asyncio.Event, asked: list[int]) -> AsyncIterator[bytes]:
    """Return a body of which 80 kB come, and the rest after ``enough``; ``asked`` grows once the rest is asked for."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 80_000
        asked.append(1)
        await enough.wait()
        yield b"x" * 20_000

    return pieces()


def test_a_large_body_that_stops_coming_is_given_up(immich: FakeSearchImmich, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(visit: Visit) -> Any:
        return await visit.client.post("/api/search/smart", content=stalling(asyncio.Event(), []))

    answer = Home(immich, monkeypatch, body_timeout=0.1, request_timeout=20).run(send)
    assert (answer.status_code, answer.json()["code"]) == (408, "body_timeout")
    assert answer.headers["connection"] == "close"


def test_large_bodies_that_stop_coming_leave_connections_to_searches(
    immich: FakeSearchImmich, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough, asked = asyncio.Event(), list[int]()

    async def send(visit: Visit) -> tuple[Any, list[Any]]:
        large = [
            asyncio.ensure_future(visit.client.post("/api/search/smart", content=stalling(enough, asked)))
            for _ in range(110)
        ]
        while len(asked) + sum(one.done() for one in large) < len(large):
            await asyncio.sleep(0.01)
        search = await visit.ask("smart", {"query": "x"}, ANNA)
        enough.set()
        return search, list(await asyncio.gather(*large))

    search, large = Home(immich, monkeypatch, request_timeout=20).run(send)
    assert search.status_code == 200
    statuses = Counter(one.status_code for one in large)
    # The fake closes when it has refused, and may do so while a body still comes.
    assert (statuses[503], statuses[401] + statuses[502]) == (94, 16)
    refused = next(one for one in large if one.status_code == 503)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("queue_full", "5")


def test_after_large_bodies_there_is_room_for_others(home: Home) -> None:
    body = b'{"query":"' + b"y" * 100_000 + b'"}'

    async def send(visit: Visit) -> list[Any]:
        return [await visit.ask("smart", body, ANNA) for _ in range(20)]

    assert {one.status_code for one in home.run(send)} == {200}


KEYS = (
    *("query", "ocr", "page", "size", "language", "withExif", "isFavorite", "visibility", "albumIds", "takenAfter"),
    *("order", "queryAssetId", "id", "filter", "withDeleted", "type", "city", "personIds", "x"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 1000, 1001, 0.5, 1e300, "", "x", "ocr:x", "x -y", "发票", "timeline", "locked"),
    *("2026-01-01T00:00:00.000Z", [], {}, [1], {"or": []}, "\x00", "\ud800"),
)


def random_body(random: Random, base: dict[str, str]) -> bytes:
    """Return a search with some keys of any value; or with cut, turned or added bytes."""
    body: Any = dict.fromkeys(random.sample(KEYS, random.randint(0, 5)))
    body |= {key: random.choice(VALUES) for key in body}
    body = body if random.random() < 0.3 else {**base, **body}
    if random.random() < 0.1:
        body = random.choice(VALUES)
    text = json.dumps(body).encode()
    if random.random() < 0.1:
        at = random.randrange(len(text))
        text = text[:at] + bytes([random.randrange(256)]) + text[at + random.randint(0, 3) :]
    return text


@pytest.mark.parametrize("route", ["smart", "metadata"])
def test_a_refusal_of_immich_stays_its_refusal_and_nothing_becomes_a_500(home: Home, route: str) -> None:
    random = Random(route)
    base = {"query": "ocr:x"} if route == "smart" else {"ocr": "x"}
    bodies = [random_body(random, base) for _ in range(1000)]

    async def send(visit: Visit) -> list[Any]:
        return [await visit.ask(route, body, ANNA) for body in bodies]

    statuses = set()
    for body, answer in zip(bodies, home.run(send), strict=True):
        status, content = direct(home.immich, "POST", route, body)
        assert answer.status_code == status
        if status != 200:
            assert answer.content == content
        statuses.add((status, done(answer)))
    assert {(400, "passed"), (200, "passed"), (200, "text")} <= statuses
