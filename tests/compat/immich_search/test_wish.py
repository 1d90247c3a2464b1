"""Requests that are answered here by text alone, by text and meaning, or not at all."""

from __future__ import annotations

import pytest

from tests.compat.immich_search.home import Home, done, finds, ids, pictures, smart
from tests.fake_immich_search import FakeSearchImmich, User


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


def test_without_immichs_tables_all_is_immichs(home: Home, anna: User) -> None:
    own = pictures(home, anna, 3)
    finds(home, own[2])
    home.source = "standalone"
    answer = home.ask("smart", smart("x"), anna)
    assert (ids(answer), done(answer)) == ([one.id for one in own], "passed")
