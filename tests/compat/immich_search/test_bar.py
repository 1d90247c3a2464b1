"""The search bar before a fake Immich: who finds what, in which order, and what comes when ours fails."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client import REGISTRY

from errors import ErrorCode, ServiceError
from tests.compat.immich_search.home import Home, Visit, done, finds, ids, pictures, smart
from tests.fake_immich_search import User


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
