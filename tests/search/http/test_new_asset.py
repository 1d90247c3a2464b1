"""Immich's webhook: who may tell of a new picture, and that texts are looked for soon then."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from search.http.life import SearchLife
from search.http.routes import routes
from search.http.state import SearchApi
from tests.search.indexing.redoing import CATALOG, settings


@pytest.mark.parametrize(
    ("method", "headers", "status", "told"),
    [
        ("POST", {"api-key": "s3cret"}, 202, True),
        ("PUT", {"Authorization": "Bearer s3cret"}, 202, True),
        ("POST", {"api-key": "wrong"}, 401, False),
        ("POST", {}, 401, False),
    ],
)
def test_whoever_has_the_key_may_tell(method: str, headers: dict[str, str], status: int, told: bool) -> None:
    config = settings()
    soon: list[Any] = []

    async def send() -> httpx.Response:
        life = SearchLife(config)
        life.pace.look_soon = lambda: soon.append(True)  # type: ignore[method-assign]
        app = Starlette(routes=routes(SearchApi(CATALOG, config, life, None)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return await client.request(method, "/immich/new-asset", json={"type": "AssetV1"}, headers=headers)

    assert asyncio.run(send()).status_code == status
    assert bool(soon) is told
