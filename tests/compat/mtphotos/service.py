"""Both protocols in one app over runners that compute nothing, and pictures to send to it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import Any

import httpx
from PIL import Image

from compat.immich.api import ImmichServer, create_app
from compat.mtphotos.api import MtPhotosServer, routes
from models.catalog import load_catalog
from serving.body import open_intake
from serving.guesses import Guesses
from settings import Settings
from tests.compat.fake_runners import FakeRunners

CATALOG = load_catalog()
KEY = {"api-key": "s3cret"}
PICTURE_ROUTES = ["/ocr", "/clip/img", "/represent"]
_PLAIN: dict[str, Any] = {
    "api_auth_key": "s3cret",
    "clip_model": "",
    "recognition_model": "",
    "ocr_model": "",
    "detection_threshold": 0.65,
}
"""What must not come from the environment of the tests."""


class Service:
    """Both protocols in one app, as service.py puts them together."""

    def __init__(self, **overrides: Any) -> None:
        self.settings = Settings(_env_file=None, **(_PLAIN | overrides))
        self.runners = FakeRunners()
        intake, guesses = open_intake(self.settings), Guesses()
        self.immich = ImmichServer(CATALOG, self.settings, intake, guesses, self.runners)
        self.mtphotos = MtPhotosServer(CATALOG, self.settings, intake, guesses, self.runners)

    def ask(self, method: str, path: str, headers: Mapping[str, str] = KEY, **content: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=create_app(self.immich, routes(self.mtphotos)))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, headers=headers, **content)

        return asyncio.run(send())

    def upload(self, path: str, data: bytes, headers: Mapping[str, str] = KEY) -> httpx.Response:
        return self.ask("POST", path, headers, files={"file": ("照片.jpg", data, "image/jpeg")})


def picture(width: int = 100, height: int = 50, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, form)
    return file.getvalue()
