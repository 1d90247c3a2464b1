"""Immich's protocol over runners that compute nothing, and requests to it."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import httpx
from PIL import Image

from compat.immich.api import ImmichServer, create_app
from models.catalog import load_catalog
from serving.body import open_intake
from serving.guesses import Guesses
from settings import Settings
from tests.compat.fake_runners import FakeRunners
from tools.harness.immich_client import HEADERS

CATALOG = load_catalog()
_PLAIN: dict[str, Any] = {"clip_model": "", "recognition_model": "", "ocr_model": ""}
"""What must not come from the environment of the tests."""


def make_api(**overrides: Any) -> tuple[ImmichServer, FakeRunners]:
    settings = Settings(_env_file=None, **(_PLAIN | overrides))
    runners = FakeRunners()
    return ImmichServer(CATALOG, settings, open_intake(settings), Guesses(), runners), runners


def picture(width: int = 100, height: int = 50, mode: str = "RGB", form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, form)
    return file.getvalue()


def post(api: ImmichServer, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return send(api, "POST", "/predict", headers or HEADERS, body)


def send(api: ImmichServer, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> httpx.Response:
    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(api))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=body, headers=headers)

    return asyncio.run(exchange())


def get(api: ImmichServer, path: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_app(api)), base_url="http://test"
        ) as client:
            return await client.get(path)

    return asyncio.run(send())
