"""The secret step before Immich's paths."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serving.url_key import UrlKey
from settings import Settings

KEY = "correct-horse-battery"


async def path_of(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {request.scope['raw_path'].decode()}")


APP = Starlette(
    routes=[Route(path, path_of, methods=["GET"]) for path in ("/", "/ping", "/predict", "/livez", "/a/{x}")]
)


def ask(path: str, key: str | None = KEY) -> tuple[int, str]:
    async def send() -> httpx.Response:
        app = UrlKey(APP, SecretStr(key) if key else None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            return await client.get(path)

    answer = asyncio.run(send())
    return answer.status_code, answer.text


@pytest.mark.parametrize("path", ["/", "/ping", "/predict"])
def test_immichs_paths_answer_behind_the_key_alone(path: str) -> None:
    assert ask(f"/{KEY}{path}") == (200, f"{path} {path}")
    assert ask(path)[0] == 404
    assert ask(f"/wrong-key{path}")[0] == 404
    assert ask(path, key=None)[0] == 200


def test_other_paths_stay_open_and_are_there_behind_the_key_too() -> None:
    assert ask("/livez") == (200, "/livez /livez")
    assert ask(f"/{KEY}/livez") == (200, "/livez /livez")
    assert ask(f"/{KEY}/a/b%20c")[1].endswith(" /a/b%20c")


@pytest.mark.parametrize(
    "path", [f"/{KEY}", f"/{KEY}x/predict", f"/x/{KEY}/predict", f"/{KEY}/{KEY}/predict", "//predict"]
)
def test_what_is_nearly_the_key_is_nothing(path: str) -> None:
    status, text = ask(path)
    assert status == 404
    assert KEY not in text


@pytest.mark.parametrize("key", ["short", "with/slash-in-it", "with space in it", "with%20percent"])
def test_a_key_that_is_no_step_of_a_path_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, url_key=SecretStr(key))
    assert key not in str(caught.value)


def test_the_key_is_in_no_representation() -> None:
    settings = Settings(_env_file=None, url_key=SecretStr(KEY))
    assert KEY not in repr(settings)
