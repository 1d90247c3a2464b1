"""Requests go to Immich as they came, what is kept of them is no credential, and an Immich that cannot be asked."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.compat.immich_search.home import Home, Visit, finds, pictures, smart
from tests.fake_immich_search import FakeSearchImmich, User


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
