"""Searches for people, and the locked folder, as seen with two users of a real Immich 3.1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.compat.immich_search.home import Home, Visit, done, ids
from tests.fake_immich_search import FakeSearchImmich, Picture, User


@pytest.fixture
def anna() -> User:
    return User("anna")


@pytest.fixture
def ben(anna: User) -> User:
    """Return a partner of Anna's, who sees her pictures in his timeline."""
    return User("ben", partners=[(anna, True)])


@pytest.fixture(params=[(3, 1, 0), (3, 2, 0)], ids=["3.1", "3.2"])
def home(request: pytest.FixtureRequest, anna: User, ben: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with FakeSearchImmich(anna, ben, version=request.param) as immich:
        yield Home(immich, monkeypatch)


def add(home: Home, owner: User, **properties: Any) -> Picture:
    """Upload a picture whose text is found, unless it is locked, as our own index has it."""
    picture = Picture(owner.id, text="invoice", **properties)
    home.immich.pictures.append(picture)
    if picture.visibility != "locked":
        home.texts.found.append((picture.owner, picture.id))
    return picture


@pytest.mark.parametrize(("route", "body"), [("smart", {"query": "ocr:invoice"}), ("metadata", {"ocr": "invoice"})])
def test_all_people_that_are_asked_for_must_be_on_a_picture(
    home: Home, anna: User, ben: User, route: str, body: dict[str, Any]
) -> None:
    wang, li = uuid4(), uuid4()
    both, one = add(home, anna, people=[wang, li]), add(home, anna, people=[wang])
    nobody = add(home, anna)
    asked = {**body, "personIds": [str(wang)]}
    for visitor in (anna, ben):
        assert ids(home.ask(route, asked, visitor)) == [both.id, one.id]
        assert ids(home.ask(route, {**body, "personIds": [str(wang), str(li)]}, visitor)) == [both.id]
        assert ids(home.ask(route, {**body, "personIds": [str(uuid4())]}, visitor)) == []
        assert ids(home.ask(route, {**body, "personIds": []}, visitor)) == [both.id, one.id, nobody.id]
    refused = home.ask(route, {**body, "personIds": "x"}, anna)
    assert (refused.status_code, done(refused)) == (400, "passed")


def test_people_are_a_filter_of_hybrid_searches(home: Home, anna: User) -> None:
    wang = uuid4()
    for _ in range(3):
        add(home, anna)
    found = add(home, anna, people=[wang])
    answer = home.ask("smart", {"query": "invoice", "personIds": [str(wang)]}, anna)
    assert (done(answer), ids(answer)) == ("hybrid", [found.id])


def test_another_users_people_find_nothing(home: Home, anna: User, ben: User) -> None:
    bens = uuid4()
    add(home, ben, people=[bens])
    assert ids(home.ask("smart", {"query": "ocr:invoice", "personIds": [str(bens)]}, anna)) == []


@pytest.mark.parametrize("elevated", [False, True], ids=["without PIN", "with PIN"])
@pytest.mark.parametrize(("route", "body"), [("smart", {"query": "ocr:invoice"}), ("metadata", {"ocr": "invoice"})])
def test_a_search_for_locked_pictures_is_immichs_alone(
    home: Home, anna: User, route: str, body: dict[str, Any], elevated: bool
) -> None:
    add(home, anna)
    locked, anna.elevated = add(home, anna, visibility="locked"), elevated
    answer = home.ask(route, {**body, "visibility": "locked"}, anna)
    assert done(answer) == "passed"
    if elevated:
        assert ids(answer) == [locked.id]
    else:
        assert (answer.status_code, answer.json()["message"]) == (401, "Elevated permission is required")


def test_a_session_with_the_pin_finds_locked_pictures_as_in_immich_and_others_do_not(
    home: Home, anna: User, ben: User
) -> None:
    locked, shown = add(home, anna, visibility="locked"), add(home, anna)
    searches = {"metadata": {"ocr": "invoice"}, "smart": {"query": "invoice"}}
    for visitor in (anna, ben):
        for route, body in searches.items():
            assert ids(home.ask(route, body, visitor)) == [shown.id]
    anna.elevated = ben.elevated = True
    for route, body in searches.items():
        assert ids(home.ask(route, body, anna)) == [shown.id, locked.id]
        assert ids(home.ask(route, body, ben)) == [shown.id]
    assert ids(home.ask("smart", {"query": "ocr:invoice"}, anna)) == [shown.id]
    assert ids(home.ask("metadata", {"ocr": "invoice", "visibility": "timeline"}, anna)) == [shown.id]


def test_pages_of_a_session_that_is_locked_again_show_nothing_locked(home: Home, anna: User) -> None:
    shown, locked = add(home, anna), add(home, anna, visibility="locked")
    anna.elevated = True

    async def scroll(visit: Visit) -> None:
        first = await visit.ask("metadata", {"ocr": "invoice", "size": 1}, anna)
        assert ids(first) == [shown.id]
        anna.elevated = False
        second = await visit.ask("metadata", {"ocr": "invoice", "size": 1, "page": 2}, anna)
        assert str(locked.id) not in second.text

    home.run(scroll)
