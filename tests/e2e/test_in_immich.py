"""The search bar and the page within Immich's own address: a real Chromium, a real nginx with the file of deploy/proxy,
the real service, Immich's tables, and a made-up Immich.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from search.embedded.server import EmbeddedServer
from tests.deploy.test_proxy import nginx_with_button
from tests.e2e.test_page import CHROMIUM, Person, browser
from tests.fake_immich_search import Answer, FakeSearchImmich, Picture, Seen, User
from tests.search.conftest import HERE, IMMICHS
from tests.search.immich.library import Library
from tools.harness.open_folder import open_folder
from tools.harness.rendered import jpeg, page
from tools.harness.server import Server, free_port

__all__ = ["browser"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx on the path"),
    pytest.mark.filterwarnings("default"),
]
ANNA, BEN, CARL = User("anna"), User("ben"), User("carl")
LINES = ["增值税发票", "合计：128.50元"]
PREVIEW = jpeg(page(LINES, size=(640, 360)))
SEARCH = """
query => fetch("/api/search/smart", {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ query, page: 1 }),
}).then(async (answer) => {
  const ids = (await answer.json()).assets.items.map((one) => one.id);
  return [answer.headers.get("x-immich-bento"), ids];
})
"""
"""What Immich's own page asks when somebody has typed a query."""


class PhotoImmich(FakeSearchImmich):
    """The fake with pages, thumbnails and single assets."""

    def __init__(self) -> None:
        super().__init__(ANNA, BEN, CARL)
        self.override = self._page
        self.shared: set[tuple[str, str]] = set()
        """Asset, and session of a user, of what is shared in an album."""

    def _page(self, seen: Seen) -> Answer | None:
        path = urlsplit(seen.target).path
        if path == "/" or path.startswith("/photos/"):
            return 200, b"<!DOCTYPE html><html><title>Immich</title><body>A photo</body></html>"
        parts = path.split("/")
        if not path.startswith("/api/assets/") or len(parts) < 4:
            return None
        asker = self._asker(seen)
        owner = next((one.owner for one in self.pictures if str(one.id) == parts[3]), None)
        if asker is None or (owner != asker.id and (parts[3], asker.token) not in self.shared):
            return 400, b'{"message":"Not found or no asset.read access"}'
        return 200, PREVIEW if path.endswith("/thumbnail") else b"{}"


@dataclass
class Home:
    """Immich's address as a browser knows it, and what is behind it."""

    url: str
    immich: PhotoImmich
    service: Server
    photo: Picture


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with open_folder() as folder, PhotoImmich() as immich:
        database = EmbeddedServer(folder / "database")
        try:
            photo = _library(database.start(), immich)
            settings = {
                "SEARCH_ENABLED": "true",
                "DATABASE_URL": database.start(),
                "IMMICH_URL": immich.url,
                "CLIP_MODEL": "cn-clip-tiny",
                "OCR_MODEL": "PP-OCRv6_small",
            }
            with Server(folder / "service", settings) as service, _nginx(folder, service, immich) as url:
                _wait_for_texts(url)
                yield Home(url, immich, service, photo)
        finally:
            database.close()


def _library(conninfo: str, immich: PhotoImmich) -> Picture:
    """Make Immich's tables with a photo of each user; return Anna's."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        for file in IMMICHS["3.1"]:
            connection.execute((HERE / file).read_bytes())
    library = Library(conninfo)
    for user in (BEN, ANNA):
        asset = library.upload(owner=user.id, name="invoice.jpg")
        library.read(asset, LINES)
        immich.pictures.append(Picture(user.id, asset))
    library.close()
    return immich.pictures[-1]


@contextmanager
def _nginx(folder: Path, service: Server, immich: PhotoImmich) -> Iterator[str]:
    port, immich_port = free_port(), urlsplit(immich.url).port
    assert immich_port is not None
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(nginx_with_button(folder, port, service.port, immich_port), stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for_texts(url: str) -> None:
    """Wait until nginx listens and the service has copied the texts."""
    headers = {"cookie": f"immich_access_token={ANNA.token}"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/ai/api/library", headers=headers).json().get("read") == 1:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("The texts were not copied.")


@pytest.fixture
def anna(browser: Any, home: Home) -> Iterator[Person]:
    yield from _somebody(browser, home, ANNA)


@pytest.fixture
def ben(browser: Any, home: Home) -> Iterator[Person]:
    yield from _somebody(browser, home, BEN)


@pytest.fixture
def carl(browser: Any, home: Home) -> Iterator[Person]:
    yield from _somebody(browser, home, CARL)


def _somebody(browser: Any, home: Home, user: User) -> Iterator[Person]:
    """Yield a person in whose browser ``user`` is logged in to Immich."""
    someone = Person(browser, home.url)
    someone.context.add_cookies([{"name": "immich_access_token", "value": user.token, "url": home.url}])
    yield someone
    someone.context.close()
    assert someone.faults == []


def test_the_bar_finds_ones_own_text_from_immichs_page(home: Home, anna: Person, ben: Person) -> None:
    bens = next(str(one.id) for one in home.immich.pictures if one.owner == BEN.id)
    for someone, found in ((anna, str(home.photo.id)), (ben, bens)):
        someone.view.goto("/")
        assert someone.view.evaluate(SEARCH, "ocr:发票") == ["text", [found]]
        assert someone.view.evaluate(SEARCH, "发票") == ["hybrid", [found]]
        assert someone.view.evaluate(SEARCH, "ocr:菜单") == ["text", []]


def test_the_button_at_a_photo_opens_its_page_and_reads_it_again(home: Home, anna: Person) -> None:
    anna.view.goto(f"/photos/{home.photo.id}")
    anna.view.click("button:text('Text & recognition')")
    panel = anna.view.frame_locator("iframe")
    panel.locator(".lines li").first.wait_for()
    panel.locator(".stage.there").wait_for()
    assert panel.locator(".lines li").all_inner_texts() == LINES
    assert panel.locator("nav").count() == 0 or not panel.locator("nav").is_visible()
    panel.locator("[data-task=ocr]").click()
    panel.locator(".told p:not(.busy)").first.wait_for()
    assert "PP-OCRv6_small read 2 lines" in panel.locator(".told").inner_text()
    anna.shoot("in-immich-nginx")


def test_another_users_photo_is_not_shown(home: Home, ben: Person) -> None:
    ben.view.goto(f"/photos/{home.photo.id}")
    ben.view.click("button:text('Text & recognition')")
    panel = ben.view.frame_locator("iframe")
    panel.locator("[role=alert]").wait_for()
    assert "发票" not in panel.locator("body").inner_text()


def test_a_member_of_an_album_sees_the_text_of_a_photo_and_no_buttons(home: Home, anna: Person, carl: Person) -> None:
    photo = str(home.photo.id)
    home.immich.shared.add((photo, CARL.token))
    for someone, buttons in ((anna, 3), (carl, 0)):
        someone.view.goto(f"/ai/assets/{photo}")
        someone.view.locator(".lines li").first.wait_for()
        assert someone.view.locator(".lines li").all_inner_texts() == LINES
        assert someone.view.locator("[data-task]").count() == buttons


def test_whoever_is_not_logged_in_is_asked_to_log_in(home: Home, browser: Any) -> None:
    someone = Person(browser, home.url)
    someone.view.goto("/ai")
    someone.view.wait_for_selector("#key, .login")
    someone.context.close()


def test_while_the_service_is_dead_immich_answers_its_own_page(home: Home, anna: Person) -> None:
    """The last one: nothing of the service is left."""
    anna.view.goto("/")
    for process in home.service.processes():
        process.kill()
    for _ in range(3):
        assert anna.view.evaluate(SEARCH, "ocr:发票") == [None, [str(home.photo.id)]]
