"""Wrong keys are counted by the address that they come from, wherever they are sent."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request

from compat.gateway import open_gateway
from errors import ErrorCode, ServiceError
from models.catalog import load_catalog
from serving.guesses import Guesses
from settings import Settings
from web.page import open_page
from web.routes import routes as page_routes

ROOT = Path(__file__).resolve().parents[2]
KEY = {"api-key": "s3cret"}
SECRET = SecretStr("s3cret")
WAYS = [
    ("POST", "/predict"),
    ("GET", "/upstreams"),
    ("POST", "/ocr"),
    ("POST", "/clip/txt"),
    ("POST", "/restart"),
    ("GET", "/search?q=x"),
    ("POST", "/immich/new-asset"),
    ("GET", "/ai/api/me"),
    ("GET", "/ai/api/library"),
]
"""Requests that look at the key, of every protocol."""


def service() -> Starlette:
    """Return the routes as service.py mounts them."""
    settings = Settings(_env_file=None, api_auth_key="s3cret", auth_required="all", search_enabled=False)
    gateway = open_gateway(settings, load_catalog())
    return gateway.app(page_routes(open_page(settings, gateway.search, gateway.visitors)))


def ask(app: Starlette, method: str, path: str, headers: Mapping[str, str] = KEY) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=("10.0.0.7", 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize(("method", "path"), WAYS)
def test_wrong_keys_count_wherever_they_are_sent_and_nowhere_is_the_right_one_looked_at(method: str, path: str) -> None:
    app = service()
    for number in range(5):
        assert ask(app, method, path, {"api-key": f"guess {number}"}).status_code in (200, 401)
    for other_method, other in WAYS:
        assert ask(app, other_method, other).status_code == 429
    assert ask(app, "GET", "/upstreams", {}).status_code == 200
    assert ask(app, "GET", "/ping", {"api-key": "guess 6"}).status_code == 200


def test_keys_are_compared_in_one_place() -> None:
    """Whatever compares one by itself would be a way around the limit."""
    comparing = {"require_key", "is_key"}
    importing = {
        path.relative_to(ROOT).as_posix()
        for folder in ("compat", "immich_bento", "search", "serving", "web")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "serving.key"
        if comparing & {name.name for name in node.names}
    }
    assert importing == {"serving/guesses.py"}


def _must_wait(guesses: Guesses) -> bool:
    try:
        guesses.check("a")
    except ServiceError as error:
        return error.code is ErrorCode.TOO_MANY_ATTEMPTS
    return False


def test_each_further_guess_waits_twice_as_long_up_to_five_minutes() -> None:
    now = 0.0
    guesses = Guesses(clock=lambda: now)
    waits = []
    for number in range(16):
        guesses.judge("a", b"%d" % number, right=False)
        began = now
        while _must_wait(guesses):
            now += 0.5
        waits.append(now - began)
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    guesses.check("b")
    guesses.forget("a")
    guesses.check("a")


def test_an_hour_later_an_address_is_as_if_it_had_never_guessed() -> None:
    now = 0.0
    guesses = Guesses(clock=lambda: now)
    for number in range(10):
        guesses.judge("a", b"%d" % number, right=False)
        now += 300
    now += 3700
    guesses.check("a")
    guesses.judge("a", b"another", right=False)
    guesses.check("a")


def test_addresses_that_guess_are_not_remembered_without_end() -> None:
    guesses = Guesses()
    for number in range(10_050):
        guesses.judge(str(number), b"wrong", right=False)
    assert len(guesses._wrong) == 10_000


def test_many_keys_in_one_request_are_as_many_guesses() -> None:
    sent = [("api-key", f"guess {number}") for number in range(5)] + [("api-key", "s3cret")]
    guesses = Guesses()
    request = Request(
        {"type": "http", "client": ("10.0.0.7", 1), "headers": [(a.encode(), b.encode()) for a, b in sent]}
    )
    with pytest.raises(ServiceError, match="Too many wrong keys"):
        guesses.require_key(request, SECRET)
