"""The protocols put together: all have their routes in one app, and all are closed at the end."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import Response
from starlette.routing import Route

from compat.gateway import Gateway, open_gateway
from models.catalog import load_catalog
from settings import Settings
from tests.compat.fake_runners import FakeRunners


def gateway() -> Gateway:
    settings = Settings(
        _env_file=None,
        immich_url="http://127.0.0.1:9",
        route_ocr="upstream",
        immich_api="http://127.0.0.1:9",
        search_enabled=False,
    )
    return open_gateway(settings, load_catalog())


def test_all_protocols_and_what_is_added_are_routes_of_one_app() -> None:
    app = gateway().app([Route("/other", lambda request: Response())])
    paths = {getattr(route, "path", None) for route in app.routes}
    assert {"/", "/predict", "/ocr", "/search", "/api/search/smart", "/other"} <= paths


def test_all_ask_the_runners_that_it_is_given_and_upstreams_are_there_from_then_on() -> None:
    async def run() -> None:
        one, runners = gateway(), FakeRunners()
        assert one.upstreams is None
        one.start(runners)
        assert one.immich.runners is one.mtphotos.runners is one.search.runners is runners
        assert one.upstreams is not None
        await one.close()

    asyncio.run(run())


def test_a_part_that_fails_to_close_keeps_no_other_from_being_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        one, closed = gateway(), []
        one.start(FakeRunners())
        assert one.upstreams is not None
        assert one.visitors is not None

        async def fail() -> None:
            raise OSError("it does not close")

        async def close(name: str) -> None:
            closed.append(name)

        await one.upstreams.close()
        monkeypatch.setattr(one.upstreams, "close", fail)
        monkeypatch.setattr(one.visitors, "close", lambda: close("visitors"))
        monkeypatch.setattr(one.search.life, "close", lambda: close("search"))
        with pytest.raises(OSError, match="does not close"):
            await one.close()
        assert closed == ["visitors", "search"]

    asyncio.run(run())
