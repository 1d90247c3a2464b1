"""``GET /``: a page for browsers, Immich's JSON for everyone else."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser

import httpx
import pytest

from compat.immich.api import create_app
from errors import ErrorCode, ServiceError
from runners.contract import ModelState
from settings.version import VERSION
from tests.compat.fake_runners import FakeRunners
from tests.compat.immich.asking import make_api

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def get_root(runners: FakeRunners | None, accept: str | None = BROWSER) -> httpx.Response:
    api, _ = make_api()
    api.runners = runners

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_app(api)), base_url="http://test"
        ) as client:
            del client.headers["accept"]
            return await client.get("/", headers={} if accept is None else {"accept": accept})

    return asyncio.run(send())


class _Outline(HTMLParser):
    """Tags and links of a page; fails on an element that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "accept",
    [None, "", "*/*", "application/json", "text/*", "text/plain, */*;q=0.8", "text/html;q=0", "text/html; q=0.0"],
)
def test_everyone_else_gets_immichs_json(accept: str | None) -> None:
    response = get_root(FakeRunners(), accept)
    assert (response.text, response.headers["content-type"]) == ('{"message":"Immich ML"}', "application/json")


@pytest.mark.parametrize(
    "accept", ["text/html", BROWSER, "TEXT/HTML;charset=utf-8", "application/json;q=0.5, text/html;q=0.4"]
)
def test_who_asks_for_html_gets_the_page(accept: str) -> None:
    response = get_root(FakeRunners(), accept)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["vary"] == "Accept"


def test_the_page_tells_version_device_models_and_links() -> None:
    runners = FakeRunners()
    runners.loaded = {"ocr": ("PP-OCRv6_small",), "clip": ()}
    page = get_root(runners).text
    for told in (VERSION, "<dd>cpu</dd>", "<dd>ocr: PP-OCRv6_small</dd>", "running"):
        assert told in page
    assert {"/readyz", "/metrics"} <= set(_Outline(page).links)
    assert "none yet" in get_root(FakeRunners()).text


def test_names_are_escaped() -> None:
    runners = FakeRunners()
    runners.loaded = {"ocr": ('<script>alert("x")</script>',)}
    page = get_root(runners).text
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    _Outline(page)


class _Away(FakeRunners):
    async def device(self) -> str:
        raise ServiceError(ErrorCode.RUNNER_UNAVAILABLE, "away")


class _Silent(FakeRunners):
    async def device(self) -> str:
        await asyncio.sleep(60)
        return "cpu"


@pytest.mark.parametrize("runners", [None, _Away(), _Silent()], ids=["starting", "away", "silent"])
def test_the_page_comes_even_while_no_runner_answers(
    runners: FakeRunners | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.status_page._ANSWER_WITHIN", 0.05)
    response = get_root(runners)
    assert response.status_code == 200
    assert "is running" not in response.text
    _Outline(response.text)


def test_the_page_tells_how_far_models_are_and_which_cannot_be_had() -> None:
    runners = FakeRunners()
    far = "ViT-B-16 (clip): downloading a.pt, 34 of 100 MB (34 %), 2.0 MB/s, 33 s left"
    runners.states = [
        *(ModelState(task, "ViT-B-16", "on its way", True, far, 34) for task in ("clip_image", "clip_text")),
        ModelState("faces", "buffalo_l", "unavailable", False, "Not at a.secret.host"),
        ModelState("ocr", "PP-OCRv6_small", "here", True),
    ]
    page = get_root(runners).text
    assert page.count(far) == 1
    assert page.count("ViT-B-16") == 1
    assert "buffalo_l; the log says why" in page
    assert "secret" not in page, "everybody may read the page"
    assert "not ready" in page
    for state in ("unavailable", "on its way"):  # of two processes one waits, and the other asks or waits
        waits = "ViT-B-16 (clip): waiting for a hub"
        runners.states = [
            ModelState("clip_text", "ViT-B-16", "unavailable", True, "Not at a.secret.host", waiting=waits),
            ModelState("clip_image", "ViT-B-16", state, True, waits, waiting=waits),
        ]
        page = get_root(runners).text
        assert page.count("ViT-B-16") == page.count(waits) == 1
        assert "secret" not in page
    runners.states = [ModelState("ocr", "PP-OCRv6_small", "here", True)]
    assert "on their way" not in get_root(runners).text
    assert "not ready" not in get_root(runners).text
