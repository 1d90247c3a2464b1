"""Who may look at the page: the login, its cookie and its end, slowed guesses, and what other sites cannot do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request

from search.http.state import SearchApi
from tests.search.indexing.redoing import CATALOG
from tests.web.pages import FROM_PAGE, KEY, Pages, code
from web import session
from web.guest import Guests
from web.page import open_page
from web.routes import routes

SECRET = SecretStr("s3cret")
OPERATIONS = [
    ("GET", "search?q=a"),
    ("GET", "assets/00000000-0000-4000-8000-000000000000"),
    ("GET", "assets/00000000-0000-4000-8000-000000000000/similar"),
    ("GET", "assets/00000000-0000-4000-8000-000000000000/faces"),
    ("GET", "assets/00000000-0000-4000-8000-000000000000/picture"),
    ("POST", "assets/00000000-0000-4000-8000-000000000000/redo"),
    ("GET", "library"),
    ("GET", "failures"),
    ("GET", "lost"),
    ("POST", "retry"),
    ("GET", "system"),
]


def log_in(pages: Pages, key: str = "s3cret") -> str:
    """Log in and return the cookie's value."""
    response = pages.ask("POST", "/ai/api/login", {}, json={"key": key})
    assert response.status_code == 200, response.text
    return response.cookies[session.COOKIE]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_nobody_is_told_anything_without_a_login(method: str, path: str) -> None:
    for headers in ({}, {"api-key": "wrong"}, {"cookie": f"{session.COOKIE}=made-up"}):
        response = Pages(None).ask(method, f"/ai/api/{path}", headers, json={} if method == "POST" else None)
        assert code(response) == (401, "unauthorized")


def test_who_logs_in_is_known_by_a_cookie_that_scripts_and_other_sites_cannot_use() -> None:
    pages = Pages(None)
    response = pages.ask("POST", "/ai/api/login", {}, json={"key": " s3cret "})
    (set_cookie,) = response.headers.get_list("set-cookie")
    attributes = {part.strip().lower() for part in set_cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/ai", f"max-age={session.LASTS}"} <= attributes
    assert "secure" not in attributes
    me = pages.get("me", {"cookie": f"{session.COOKIE}={response.cookies[session.COOKIE]}"})
    assert me["visitor"] == {"kind": "key", "name": "", "admin": True, "cookie": True}
    assert "s3cret" not in response.text + set_cookie


def test_nobody_is_a_visitor_before_the_login() -> None:
    assert Pages(None).get("me", {}) == {"visitor": None, "login": True, "immich": False}
    assert Pages(None, api_auth_key=None).get("me", {}) == {"visitor": None, "login": False, "immich": False}


def test_a_cookie_ends_and_another_key_ends_it_at_once() -> None:
    value = session.issue(SECRET)
    now = time.time()
    assert session.is_valid(value, SECRET)
    assert session.is_valid(value, SECRET, now=now + session.LASTS - 60)
    assert not session.is_valid(value, SECRET, now=now + session.LASTS + 60)
    assert not session.is_valid(value, SecretStr("another"))
    assert not session.is_valid(value, None)


@pytest.mark.parametrize("value", ["", "..", "9999999999.abc", "9999999999.abc.0000", "9" * 5000, "٣.a.b", "-1.a.b"])
def test_a_cookie_that_was_not_issued_here_is_none(value: str) -> None:
    assert not session.is_valid(value, SECRET)


def test_a_later_end_cannot_be_written_into_a_cookie() -> None:
    end, nonce, signature = session.issue(SECRET).split(".")
    assert not session.is_valid(f"{int(end) + 1}.{nonce}.{signature}", SECRET)


def test_logging_out_takes_the_cookie_back() -> None:
    pages = Pages(None)
    response = pages.ask("POST", "/ai/api/logout", {"cookie": f"{session.COOKIE}={log_in(pages)}"}, json={})
    assert response.status_code == 200
    assert "max-age=0" in response.headers["set-cookie"].lower()


def test_a_wrong_key_is_told_and_after_five_the_right_one_has_to_wait_too() -> None:
    pages = Pages(None)
    for number in range(5):
        assert code(pages.ask("POST", "/ai/api/login", {}, json={"key": f"guess {number}"})) == (401, "unauthorized")
    response = pages.ask("POST", "/ai/api/login", {}, json={"key": "s3cret"})
    assert code(response) == (429, "too_many_attempts")
    assert "Try again in 1 s" in response.json()["detail"]


HEADERS = ["api-key", "x-auth-token", "authorization"]


def given(header: str, key: str) -> dict[str, str]:
    return {header: f"Bearer {key}" if header == "authorization" else key}


@pytest.mark.parametrize("header", HEADERS)
def test_wrong_keys_in_headers_are_guesses_too_and_one_limit_is_for_all_ways(header: str) -> None:
    pages = Pages(None)
    for number in range(5):
        pages.ask("GET", "/ai/api/me", given(header, f"guess {number}"))
    for other in HEADERS:
        assert code(pages.ask("GET", "/ai/api/me", given(other, "s3cret"))) == (429, "too_many_attempts")
        assert code(pages.ask("GET", "/ai/api/library", given(other, "s3cret"))) == (429, "too_many_attempts")
    assert code(pages.ask("POST", "/ai/api/login", {}, json={"key": "s3cret"})) == (429, "too_many_attempts")
    cookie = f"{session.COOKIE}={session.issue(SECRET)}"
    assert pages.get("me", {"cookie": cookie})["visitor"] is None
    assert pages.get("me", {})["visitor"] is None


def test_a_program_that_sends_the_same_old_key_all_the_time_keeps_nobody_out() -> None:
    pages = Pages(None)
    for _ in range(20):
        assert pages.get("me", {"api-key": "old"})["visitor"] is None
    assert pages.get("me")["visitor"]["kind"] == "key"


def test_made_up_cookies_are_guesses_and_a_cookie_that_was_right_does_not_wait() -> None:
    pages = Pages(None)
    one, other = (f"{session.COOKIE}={session.issue(SECRET)}" for _ in range(2))

    async def visit(guests: Guests, cookie: str) -> bool:
        headers = [(b"cookie", cookie.encode())]
        return await guests.who(Request({"type": "http", "client": ("10.0.0.7", 1), "headers": headers})) is not None

    async def visits() -> list[bool]:
        guests = Guests(pages.settings, None, pages.guesses)
        seen = [await visit(guests, one)]
        seen += [await visit(guests, f"{session.COOKIE}=9999999999.x.{number}") for number in range(5)]
        return [*seen, await visit(guests, other), await visit(guests, one)]

    assert asyncio.run(visits()) == [True, *[False] * 5, False, True]


def test_logins_whose_bodies_come_at_the_same_time_are_limited() -> None:
    """The headers of all come first, then the bodies."""
    pages = Pages(None)
    page = open_page(pages.settings, SearchApi(CATALOG, pages.settings, pages.life, pages.runners), None)

    async def log_in_late(client: httpx.AsyncClient, key: str, bodies: asyncio.Event) -> int:
        async def body() -> AsyncIterator[bytes]:
            await bodies.wait()
            yield json.dumps({"key": key}).encode()

        headers = {**FROM_PAGE, "content-type": "application/json"}
        return (await client.post("/ai/api/login", headers=headers, content=body())).status_code

    async def all_at_once() -> list[int]:
        bodies = asyncio.Event()
        transport = httpx.ASGITransport(app=Starlette(routes=routes(page)), client=("10.0.0.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            keys = [f"guess {number}" for number in range(19)] + ["s3cret"]
            logins = [asyncio.create_task(log_in_late(client, key, bodies)) for key in keys]
            for _ in range(10):
                await asyncio.sleep(0)
            bodies.set()
            return list(await asyncio.gather(*logins))

    assert asyncio.run(all_at_once()) == [*[401] * 5, *[429] * 15]


def test_without_a_key_nobody_can_log_in() -> None:
    response = Pages(None, api_auth_key=None).ask("POST", "/ai/api/login", {}, json={"key": ""})
    assert code(response) == (403, "key_not_set")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-immich-bento": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://elsewhere"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
)
@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "POST"] + ["login", "logout"])
def test_a_page_of_another_site_cannot_post(path: str, headers: dict[str, str]) -> None:
    sent = {**KEY, **FROM_PAGE, "content-type": "application/json", **headers}
    response = Pages(None).ask("POST", f"/ai/api/{path}", sent, content=b"{}")
    assert code(response) == (403, "foreign_site")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[", (422, "invalid_request")),
        (b"[]", (422, "invalid_request")),
        (b'{"key": 1}', (422, "invalid_request")),
        (b'{"key": "a", "b": 1}', (422, "invalid_request")),
        (b'"' + b"a" * 20_000, (413, "body_too_large")),
    ],
)
def test_a_wrong_body_is_refused_and_not_repeated(body: bytes, expected: tuple[int, str]) -> None:
    response = Pages(None).ask("POST", "/ai/api/login", {"content-type": "application/json"}, content=body)
    assert code(response) == expected
    assert "aaa" not in response.text


def test_the_page_can_be_switched_off() -> None:
    pages = Pages(None, page_enabled=False)
    assert pages.ask("GET", "/ai").status_code == 404
    assert pages.ask("GET", "/ai/api/me").status_code == 404
