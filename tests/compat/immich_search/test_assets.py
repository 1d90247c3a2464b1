"""Ids that text found become assets by asking Immich, with the searcher's rights and filters, in few calls."""

from __future__ import annotations

import json
import time

import pytest

from tests.compat.immich_search.home import Home, done, finds, ids, pictures, smart
from tests.fake_immich_search import FakeSearchImmich, Picture, Seen, User


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
