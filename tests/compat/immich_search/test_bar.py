"""The search bar's two routes before a fake Immich: who finds what, in which order, and what comes when ours fails."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from errors import ErrorCode, ServiceError
from tests.compat.immich_search.home import Home, Visit, done, ids
from tests.fake_immich_search import FakeSearchImmich, Picture, Seen, User


@pytest.fixture
def anna() -> User:
    return User("anna")


@pytest.fixture
def ben() -> User:
    return User("ben")


@pytest.fixture
def immich(anna: User, ben: User) -> Iterator[FakeSearchImmich]:
    with FakeSearchImmich(anna, ben) as fake:
        yield fake


@pytest.fixture
def home(immich: FakeSearchImmich, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(immich, monkeypatch)


def pictures(home: Home, owner: User, count: int, **properties: Any) -> list[Picture]:
    made = [Picture(owner.id, **properties) for _ in range(count)]
    home.immich.pictures += made
    return made


def finds(home: Home, *found: Picture) -> None:
    home.texts.found += [(one.owner, one.id) for one in found]


def smart(query: str, **more: Any) -> dict[str, Any]:
    return {"query": query, "language": "en", "visibility": "timeline", "withExif": True, **more}


def test_hybrid_fuses_what_text_found_into_immichs_own_list(home: Home, anna: User) -> None:
    own = pictures(home, anna, 5)
    hidden_far_down = pictures(home, anna, 200)[-1]
    finds(home, hidden_far_down, own[4])
    answer = home.ask("smart", smart("invoice"), anna)
    assert done(answer) == "hybrid"
    assert ids(answer)[:3] == [own[4].id, hidden_far_down.id, own[0].id]
    assert answer.json()["assets"]["count"] == 100
    assert answer.json()["assets"]["nextPage"] == "2"


def test_the_answer_has_immichs_shape_and_every_asset_is_as_immich_sent_it(home: Home, anna: User) -> None:
    own = pictures(home, anna, 3)
    finds(home, own[2])
    theirs = home.ask("smart", {**smart("x"), "ocr": "y"}, anna)  # which is passed on
    ours = home.ask("smart", smart("x"), anna)
    assert (done(theirs), done(ours)) == ("passed", "hybrid")
    ours_sorted, theirs_sorted = (
        sorted(one.json()["assets"]["items"], key=lambda item: item["id"]) for one in (ours, theirs)
    )
    assert ours_sorted == theirs_sorted
    without_items = [one.json() | {"assets": one.json()["assets"] | {"items": []}} for one in (ours, theirs)]
    assert without_items[0] == without_items[1]


@pytest.mark.parametrize("query", ["ocr:发票", "OCR：发票", " ocr : 发票"])
def test_the_prefix_asks_for_text_alone(home: Home, anna: User, query: str) -> None:
    own = pictures(home, anna, 30)
    finds(home, own[20], own[25])
    answer = home.ask("smart", smart(query), anna)
    assert (done(answer), ids(answer)) == ("text", [own[20].id, own[25].id])
    assert answer.json()["assets"]["nextPage"] is None
    assert home.texts.asked[0][0].alternatives[0].wanted == ("发票",)


def test_the_bars_own_mode_for_text_is_ranked(home: Home, anna: User) -> None:
    own = pictures(home, anna, 3, text="total")
    finds(home, own[1], own[2], own[0])
    answer = home.ask("metadata", {"ocr": "total", "page": 1, "withExif": True}, anna)
    assert (done(answer), ids(answer)) == ("text", [own[1].id, own[2].id, own[0].id])


def test_text_is_found_while_immichs_machine_learning_is_away(home: Home, anna: User) -> None:
    own = pictures(home, anna, 3)
    finds(home, own[1])
    home.immich.override = lambda seen: (500, b'{"message":"no"}') if seen.target.endswith("smart") else None
    assert ids(home.ask("smart", smart("ocr:x"), anna)) == [own[1].id]
    answer = home.ask("smart", smart("x"), anna)
    assert (answer.status_code, answer.content, done(answer)) == (500, b'{"message":"no"}', "passed")


def test_nobody_sees_counts_or_notices_what_is_anothers(home: Home, anna: User, ben: User) -> None:
    own = pictures(home, anna, 3)
    without = home.ask("smart", smart("ocr:x"), anna), home.ask("smart", smart("x"), anna)
    secret = pictures(home, ben, 30)
    finds(home, *secret)
    calls = len(home.immich.searches("metadata"))
    beside = home.ask("smart", smart("ocr:x"), anna), home.ask("smart", smart("x"), anna)
    assert [one.json() for one in beside] == [one.json() for one in without]
    assert len(home.immich.searches("metadata")) == calls  # nothing to measure by time either
    assert {done(one) for one in beside} == {done(one) for one in without}
    finds(home, own[0])
    assert ids(home.ask("smart", smart("ocr:x"), ben)) == [one.id for one in secret]


def test_pictures_of_partners_are_found_where_they_are_in_the_timeline(home: Home, anna: User, ben: User) -> None:
    carl = User("carl")
    shared, not_shown = pictures(home, ben, 2), pictures(home, carl, 2)
    finds(home, *shared, *not_shown)
    anna.partners = [(ben, True), (carl, False)]
    assert ids(home.ask("smart", smart("ocr:x"), anna)) == [one.id for one in shared]


def test_immich_has_the_last_word_on_every_picture(home: Home, anna: User) -> None:
    locked = pictures(home, anna, 1, visibility="locked")
    trashed = pictures(home, anna, 1, trashed=True)
    archived = pictures(home, anna, 1, visibility="archive")
    plain = pictures(home, anna, 1)
    finds(home, *locked, *trashed, *archived, *plain)
    assert ids(home.ask("smart", smart("ocr:x"), anna)) == [plain[0].id]
    assert ids(home.ask("smart", smart("ocr:x", visibility="archive"), anna)) == [archived[0].id]
    any_but_locked = {"query": "ocr:x"}
    assert ids(home.ask("smart", any_but_locked, anna)) == [archived[0].id, plain[0].id]


def test_filters_hold_for_what_text_found(home: Home, anna: User) -> None:
    liked = pictures(home, anna, 2, favorite=True)
    late = pictures(home, anna, 2, taken="2026-06-01T00:00:00.000Z")
    finds(home, *liked, *late)
    assert ids(home.ask("smart", smart("ocr:x", isFavorite=True), anna)) == [one.id for one in liked]
    after = smart("ocr:x", takenAfter="2026-05-01T00:00:00.000Z")
    assert ids(home.ask("smart", after, anna)) == [one.id for one in late]


def test_a_search_within_an_album_finds_what_others_put_into_it(home: Home, anna: User, ben: User) -> None:
    album = Picture(anna.id).id
    home.immich.albums[album] = [anna, ben]
    theirs, elsewhere = pictures(home, ben, 1, albums=[album], text="x"), pictures(home, ben, 1, text="x")
    finds(home, *elsewhere, *theirs)
    answer = home.ask("metadata", {"ocr": "x", "albumIds": [str(album)]}, anna)
    assert (done(answer), ids(answer)) == ("text", [theirs[0].id])


def test_a_search_within_an_album_asks_immich_the_same_whatever_texts_its_members_have(
    home: Home, anna: User, ben: User
) -> None:
    album = Picture(anna.id).id
    home.immich.albums[album] = [anna, ben]
    pictures(home, ben, 1, albums=[album], text="x")
    search = {"ocr": "x", "albumIds": [str(album)], "size": 1}
    home.ask("metadata", search, anna)
    before = len(home.immich.seen)
    finds(home, *pictures(home, ben, 40, text="x"))
    answer = home.ask("metadata", search, anna)
    assert (done(answer), ids(answer)) == ("text", [])
    assert len(home.immich.seen) == 2 * before


def test_in_a_very_large_album_only_pictures_of_ones_own_timeline_are_found_by_text(
    home: Home, anna: User, ben: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compat.immich_search.assets._LIST", 2)
    album = Picture(anna.id).id
    home.immich.albums[album] = [anna, ben]
    own, theirs = pictures(home, anna, 4, albums=[album]), pictures(home, ben, 3, albums=[album])
    finds(home, *theirs, *own)
    answer = home.ask("metadata", {"ocr": "x", "albumIds": [str(album)]}, anna)
    assert (done(answer), ids(answer)) == ("text", [one.id for one in own])
    assert home.texts.asked[-1][1] is None


def test_many_found_by_text_alone_cost_one_call_more(home: Home, anna: User) -> None:
    pictures(home, anna, 300)
    found = pictures(home, anna, 40, text="total")
    finds(home, *reversed(found))
    answer = home.ask("smart", smart("ocr:total"), anna)
    assert ids(answer) == [one.id for one in reversed(found)]
    assert len(home.immich.searches("metadata")) == 1


def test_single_pictures_are_asked_for_eight_at_a_time(home: Home, anna: User) -> None:
    pictures(home, anna, 200)
    found = pictures(home, anna, 40)  # Immich's own text search does not know them
    finds(home, *found)
    running = highest = 0

    def count(seen: Seen) -> None:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        time.sleep(0.005)
        running -= 1

    home.immich.override = count
    assert ids(home.ask("smart", smart("ocr:x"), anna)) == [one.id for one in found]
    assert 1 < highest <= 8


def test_immich_3_2_is_asked_for_all_in_one_call(anna: User, ben: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeSearchImmich(anna, ben, version=(3, 2, 0)) as immich:
        home = Home(immich, monkeypatch)
        pictures(home, anna, 150, favorite=True)
        found = pictures(home, anna, 40, favorite=True)
        finds(home, *found, *pictures(home, anna, 5))
        answer = home.ask("smart", smart("ocr:x", isFavorite=True, takenAfter="2025-01-01T00:00:00.000Z"), anna)
        assert ids(answer) == [one.id for one in found]
        (call,) = immich.searches("metadata")
        assert call.content["filter"]["isFavorite"] == {"eq": True}
        assert call.content["filter"]["takenAt"] == {"gte": "2025-01-01T00:00:00.000Z"}
        assert len(call.content["filter"]["or"]) == 45


def test_what_was_not_asked_for_is_never_shown(anna: User, ben: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeSearchImmich(anna, ben, version=(3, 2, 0)) as immich:
        home = Home(immich, monkeypatch)
        others = pictures(home, anna, 150)
        finds(home, others[140])
        immich.override = lambda seen: _everything(immich, anna) if "filter" in str(seen.body) else None
        assert ids(home.ask("smart", smart("ocr:x"), anna)) == [others[140].id]


def _everything(immich: FakeSearchImmich, asker: User) -> tuple[int, bytes]:
    return 200, json.dumps({"assets": {"items": [one.as_json(asker.id, True) for one in immich.pictures]}}).encode()


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(ErrorCode.SEARCH_UNAVAILABLE, "The database is down."),
        RuntimeError("a fault of ours"),
        KeyError("x"),
    ],
)
@pytest.mark.parametrize("query", ["x", "ocr:x"])
def test_what_fails_here_leaves_immichs_own_answer(
    home: Home, anna: User, error: Exception, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    pictures(home, anna, 3)
    theirs = home.ask("smart", smart(query, ocr="y"), anna)
    home.texts.error = error
    before = _count("failed")
    with caplog.at_level(logging.WARNING):
        answer = home.ask("smart", smart(query), anna)
    assert (answer.content, done(answer)) == (theirs.content, "failed")
    assert _count("failed") == before + 1
    assert "got Immich's own answer" in caplog.text


def _count(done: str) -> float:
    return REGISTRY.get_sample_value("immich_bento_search_bar_total", {"done": done}) or 0.0


def test_what_is_slow_here_leaves_immichs_own_answer(
    home: Home, anna: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = pictures(home, anna, 3)
    home.texts.seconds = 30
    monkeypatch.setattr("compat.immich_search.bar.PATIENCE", 0.05)
    answer = home.ask("smart", smart("x"), anna)
    assert (ids(answer), done(answer)) == ([one.id for one in own], "late")
    assert "too slow" in caplog.text


def test_an_answer_does_not_wait_for_a_database_that_is_slow_to_give_up(
    home: Home, anna: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = pictures(home, anna, 3)
    monkeypatch.setattr("compat.immich_search.bar.PATIENCE", 0.05)
    thawed, ended = asyncio.Event(), asyncio.Event()

    async def rank(*arguments: Any, **options: Any) -> list[Any]:
        try:
            await thawed.wait()
        except asyncio.CancelledError:
            await thawed.wait()  # as psycopg does until the server answers
            ended.set()
            raise RuntimeError("canceling statement") from None
        return []

    monkeypatch.setattr("search.query.text_rank.rank_texts", rank)

    async def search(visit: Visit) -> Any:
        answer = asyncio.ensure_future(visit.ask("smart", smart("x"), anna))
        await asyncio.wait((answer,), timeout=10)
        is_answered = answer.done()
        thawed.set()
        await ended.wait()
        assert is_answered
        return await answer

    answer = home.run(search)
    assert (ids(answer), done(answer)) == ([one.id for one in own], "late")
    assert "nobody waited for any more failed: RuntimeError" in caplog.text
    assert "canceling" not in caplog.text


@pytest.mark.parametrize("page", [2, 5])
def test_an_empty_page_of_a_session_that_has_ended_is_immichs_refusal(home: Home, anna: User, page: int) -> None:
    finds(home, *pictures(home, anna, 3))

    async def search(visit: Visit) -> list[Any]:
        first = await visit.ask("smart", smart("ocr:x"), anna)
        empty = await visit.ask("smart", smart("ocr:x", page=page), anna)
        home.immich.users.remove(anna)
        return [first, empty, await visit.ask("smart", smart("ocr:x", page=page), anna)]

    first, empty, refused = home.run(search)
    assert (len(ids(first)), ids(empty), done(empty)) == (3, [], "text")
    assert (refused.status_code, refused.json(), done(refused)) == (
        401,
        {"message": "Authentication required"},
        "passed",
    )


def test_single_pictures_that_immich_does_not_answer_for_leave_its_own_answer(home: Home, anna: User) -> None:
    own = pictures(home, anna, 150)
    finds(home, own[140])
    home.immich.override = lambda seen: (503, b"{}") if seen.target.endswith("metadata") else None
    answer = home.ask("smart", smart("x"), anna)
    assert (ids(answer), done(answer)) == ([one.id for one in own[:100]], "failed")


def test_after_a_failure_the_other_pages_are_immichs_too(home: Home, anna: User) -> None:
    own = pictures(home, anna, 250)

    async def scroll(visit: Visit) -> list[Any]:
        home.texts.error = RuntimeError("once")
        first = await visit.ask("smart", smart("x", page=1), anna)
        home.texts.error = None
        finds(home, own[240])
        return [first, await visit.ask("smart", smart("x", page=2), anna)]

    first, second = home.run(scroll)
    assert [*ids(first), *ids(second)] == [one.id for one in own[:200]]


@pytest.mark.parametrize("query", ["x", "ocr:x"])
def test_after_a_first_page_that_could_not_be_given_the_others_are_immichs_too(
    home: Home, anna: User, query: str
) -> None:
    """The order was known by then: going on with it would show pictures twice, and others never."""
    own = pictures(home, anna, 250)
    finds(home, own[240])
    away = True
    home.immich.override = lambda seen: (503, b"{}") if away and seen.target.endswith("metadata") else None

    async def scroll(visit: Visit) -> list[Any]:
        nonlocal away
        first = await visit.ask("smart", smart(query, page=1), anna)
        away = False
        return [first, *[await visit.ask("smart", smart(query, page=page), anna) for page in (2, 3)]]

    answers = home.run(scroll)
    assert [done(answer) for answer in answers] == ["failed", "passed", "passed"]
    assert [one for answer in answers for one in ids(answer)] == [one.id for one in own]


def test_without_immichs_tables_all_is_immichs(home: Home, anna: User) -> None:
    own = pictures(home, anna, 3)
    finds(home, own[2])
    home.source = "standalone"
    answer = home.ask("smart", smart("x"), anna)
    assert (ids(answer), done(answer)) == ([one.id for one in own], "passed")


@pytest.mark.parametrize(
    ("bar", "query", "expected"),
    [
        ("hybrid", "x", "hybrid"),
        ("hybrid", "ocr:x", "text"),
        ("prefix", "x", "passed"),
        ("prefix", "ocr:x", "text"),
        ("off", "x", "passed"),
        ("off", "ocr:x", "passed"),
    ],
)
def test_what_is_answered_is_a_setting(
    immich: FakeSearchImmich, anna: User, monkeypatch: pytest.MonkeyPatch, bar: str, query: str, expected: str
) -> None:
    home = Home(immich, monkeypatch, search_bar=bar)
    finds(home, *pictures(home, anna, 1))
    assert done(home.ask("smart", smart(query), anna)) == expected


def test_credentials_are_neither_logged_nor_kept(home: Home, anna: User, caplog: pytest.LogCaptureFixture) -> None:
    own = pictures(home, anna, 150)
    finds(home, own[120])
    caplog.set_level(logging.DEBUG)

    async def search(visit: Visit) -> str:
        await visit.ask("smart", smart("invoice"), anna)
        await visit.ask("smart", smart("y"), None, headers={"x-api-key": anna.token})
        return repr(visit.bar.listings._kept) + repr(visit.bar.visitors._known)

    kept = home.run(search)
    assert str(own[120].id) in kept
    assert anna.token not in kept
    assert anna.token not in caplog.text
    assert "invoice" not in caplog.text


def test_headers_and_cookies_go_along_unchanged(home: Home, anna: User) -> None:
    pictures(home, anna, 1)
    headers = {
        "user-agent": "Immich_Android/3.1",
        "x-forwarded-for": "10.1.1.1",
        "cookie": f"a=1; immich_access_token={anna.token}",
    }
    home.ask("smart", smart("x"), headers=headers)
    (own,) = home.immich.searches("smart")
    assert {name: own.headers[name] for name in headers} == headers


def test_an_immich_that_is_away_is_a_502_of_the_service(monkeypatch: pytest.MonkeyPatch, anna: User) -> None:
    away = FakeSearchImmich(anna)
    home = Home(away, monkeypatch, immich_url="http://127.0.0.1:9")
    answer = home.ask("smart", smart("x"), anna)
    assert (answer.status_code, answer.json()["code"]) == (502, "immich_unavailable")
    away._server.server_close()


def test_an_address_that_leads_back_here_is_found_out(home: Home, anna: User) -> None:
    answer = home.ask("smart", smart("x"), anna, headers={"x-immich-bento-hop": "1"})
    assert answer.status_code == 502
    assert "leads back to this service" in answer.json()["message"]


def test_without_an_address_the_answer_says_so(immich: FakeSearchImmich, anna: User, monkeypatch: Any) -> None:
    answer = Home(immich, monkeypatch, immich_url="").ask("smart", smart("x"), anna)
    assert answer.status_code == 502
    assert "IMMICH_URL" in answer.json()["message"]
