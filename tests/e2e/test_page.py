"""The page in a real Chromium: people look, read, do again and log in; by mouse, by keyboard, on a phone.

``make test-page`` runs these. Screenshots go to the folder ``.screenshots``.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_search import environment, wait_for_search
from tools.demo.pictures import make
from tools.harness.open_folder import open_folder
from tools.harness.rendered import jpeg, page
from tools.harness.server import ROOT, Server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytest.importorskip("playwright", reason="there is no playwright: make test-page installs it")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
    pytest.mark.filterwarnings("default"),
]
SCREENSHOTS = ROOT / ".screenshots"
KEY = "s3cret"
HOSTILE = "<img src=x onerror=alert(1)>"
SOON = 30_000
"""Milliseconds that something on the page may take to appear: models load meanwhile."""


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    """One service over the demo's pictures, one that is no picture, and one page whose text looks like HTML."""
    with open_folder() as folder, Server(folder, environment(folder)) as server:
        pictures = folder / "pictures"
        make(pictures)
        (pictures / "broken.jpg").write_bytes(b"no picture")
        (pictures / "hostile.jpg").write_bytes(jpeg(page([HOSTILE, "Fire exit"], size=(900, 360))))
        wait_for_search(server)
        command = [sys.executable, "-m", "search", "index", str(pictures), "--url", server.url, "--no-progress"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **environment(folder)}, capture_output=True, check=False)
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Person:
    """Somebody in front of a browser window."""

    def __init__(self, browser: Any, url: str, **window: Any) -> None:
        chosen = {"locale": "en-US", "viewport": {"width": 1280, "height": 860}} | window
        self.url, self.faults = url, list[str]()
        self.context = browser.new_context(base_url=url, **chosen)
        self.context.set_default_timeout(SOON)
        self.view = self.context.new_page()
        self.view.on("pageerror", lambda error: self.faults.append(str(error)))
        self.view.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))
        self.view.on("console", self._note)

    def _note(self, message: Any) -> None:
        # The browser itself writes a line for each answer that is an error.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def log_in(self) -> None:
        self.view.goto("/ai")
        self.view.fill("#key", KEY)
        self.view.keyboard.press("Enter")
        self.view.wait_for_selector("#q")

    def search(self, query: str) -> None:
        self.view.goto("/ai")
        self.view.fill("#q", query)
        self.view.wait_for_selector(".card .frame.there")

    def open(self, query: str, name: str) -> None:
        """Open the photo called ``name`` from the hits of a search."""
        self.search(query)
        self.view.click(f".card-link[aria-label^='{name}']")
        self.view.wait_for_selector(".lines li, .side .nothing")
        self.view.wait_for_selector(".stage.there")

    def wait(self, script: str) -> None:
        """Wait until ``script`` is true. Playwright's own way is forbidden by the page's policy."""
        deadline = time.monotonic() + SOON / 1000
        while not self.view.evaluate(script):
            assert time.monotonic() < deadline, script
            self.view.wait_for_timeout(50)

    def shoot(self, name: str) -> None:
        self.view.wait_for_timeout(400)  # until pictures have faded in
        self.view.screenshot(path=SCREENSHOTS / f"{name}.png")

    def check_accessibility(self) -> None:
        """Fail where axe-core finds something serious or critical."""
        from axe_playwright_python.sync_playwright import Axe

        self.view.wait_for_timeout(400)
        # axe puts itself into the page by a script element, which the page's policy would not let run.
        found = Axe().run(self.view, options={"resultTypes": ["violations"]}).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], [(one["id"], [node["html"] for node in one["nodes"]][:5]) for one in serious]


@pytest.fixture
def person(browser: Any, service: Server) -> Iterator[Person]:
    """Somebody who is logged in, in an English browser."""
    someone = Person(browser, service.url)
    someone.log_in()
    yield someone
    someone.context.close()
    assert someone.faults == []


def test_a_wrong_key_is_told_and_the_right_one_opens_the_page(browser: Any, service: Server) -> None:
    someone = Person(browser, service.url)
    someone.view.goto("/ai/library")
    someone.view.fill("#key", "a guess")
    someone.view.keyboard.press("Enter")
    someone.view.wait_for_selector(".problem:text('This key is wrong.')")
    someone.check_accessibility()
    someone.shoot("login-wrong")
    someone.view.fill("#key", KEY)
    someone.view.keyboard.press("Enter")
    someone.view.wait_for_selector(".fact")
    cookies = {cookie["name"]: cookie for cookie in someone.context.cookies()}
    (cookie,) = cookies.values()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/ai")
    someone.view.click("button[aria-label='Log out']")
    someone.view.wait_for_selector("#key")
    assert someone.context.cookies() == []
    assert someone.faults == []
    someone.context.close()


def test_a_search_is_answered_while_one_types_and_says_why(person: Person) -> None:
    person.search("ocr:发票")
    names = person.view.locator(".card .name").all_inner_texts()
    assert sorted(names) == ["invoice-hotel.jpg", "invoice-laptop.jpg"]
    assert person.view.locator(".card mark").all_inner_texts() == ["发票"] * 3
    assert "by text" in person.view.inner_text(".status")
    assert person.view.locator(".card .box").count() == 3
    person.view.fill("#q", "苹果")
    person.wait("document.querySelector('.status').textContent.includes('by text and meaning')")
    person.view.wait_for_selector(".card .frame.there")
    assert "receipt-market.jpg" in person.view.locator(".card .name").all_inner_texts()[:2]
    person.check_accessibility()
    person.shoot("search")
    person.view.click(".segments [data-mode=clip]")
    person.wait("document.querySelector('.status').textContent.endsWith('by meaning')")
    assert person.view.url.endswith("mode=clip")
    assert person.view.locator(".card").first.inner_text().startswith("meaning")


def test_nothing_found_and_an_impossible_query_are_told(person: Person) -> None:
    person.view.fill("#q", "ocr:zzzzzz")
    person.view.wait_for_selector(".nothing:text('Nothing was found by text.')")
    person.view.fill("#q", "ocr:")
    person.view.wait_for_selector(".notice")


def _eight_at_once(route: Any) -> None:
    route.continue_(url=route.request.url.replace("limit=30", "limit=8"))


def test_hits_go_on_as_one_scrolls(person: Person) -> None:
    person.view.set_viewport_size({"width": 1280, "height": 500})
    person.view.route("**/ai/api/search?*", _eight_at_once)
    person.search("苹果")
    person.wait("scrollTo(0, document.body.scrollHeight) ?? document.querySelectorAll('.card').length >= 24")
    ids = person.view.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.id)")
    assert len(ids) == len(set(ids))


def test_boxes_lie_where_the_text_is(person: Person) -> None:
    person.open("ocr:西湖大酒店", "invoice-hotel.jpg")
    person.shoot("photo")
    person.check_accessibility()
    person.view.uncheck(".toggles input")
    picture = np.asarray(Image.open(io.BytesIO(person.view.locator(".whole").screenshot())).convert("L")).astype(int)
    frame = person.view.locator(".whole").bounding_box()
    boxes = person.view.eval_on_selector_all(
        ".stage .box", "boxes => boxes.map(box => box.getAttribute('points').split(/[ ,]/).map(Number))"
    )
    assert len(boxes) == 5
    ink = picture < np.median(picture) - 60
    inside = np.zeros_like(ink)
    for corners in boxes:
        xs, ys = np.array(corners[::2]) * frame["width"], np.array(corners[1::2]) * frame["height"]
        part = np.s_[int(ys.min()) - 2 : int(ys.max()) + 3, int(xs.min()) - 2 : int(xs.max()) + 3]
        assert ink[part].mean() > 0.02
        inside[part] = True
    assert ink[inside].sum() / ink.sum() > 0.98


def test_a_line_and_its_box_light_up_together(person: Person) -> None:
    person.open("ocr:西湖大酒店", "invoice-hotel.jpg")
    person.view.hover(".lines li:nth-child(2)")
    assert person.view.locator(".stage .box.lit").get_attribute("data-n") == "2"
    box = person.view.locator(".stage .box[data-n='4']").bounding_box()
    person.view.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert person.view.inner_text(".lines li.lit") == "杭州西湖大酒店"
    assert person.view.evaluate("document.activeElement.textContent") == "杭州西湖大酒店"


def test_the_text_is_copied_whole(person: Person) -> None:
    person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    person.open("ocr:people's square", "sign-metro.jpg")
    person.view.click("text=Copy all")
    person.view.wait_for_selector("text=Copied")
    lines = person.view.evaluate("navigator.clipboard.readText()").split("\n")
    assert len(lines) == 3
    assert lines[0] == "人民广场站"


def test_text_that_looks_like_html_stays_text(person: Person) -> None:
    person.open('ocr:"fire exit"', "hostile.jpg")
    assert "onerror" in person.view.inner_text(".lines")
    assert person.view.locator(".lines img").count() == 0


def test_reading_again_shows_the_difference(person: Person, service: Server) -> None:
    (service.folder / "pictures/poem.jpg").write_bytes(
        jpeg(page(["春眠不觉晓，处处闻啼鸟。", "一行新的文字"], size=(900, 360)))
    )
    person.open("ocr:处处闻啼鸟", "poem.jpg")
    person.view.click("[data-task=ocr]")
    person.view.wait_for_selector(".diff .new")
    assert person.view.inner_text(".diff .new ins") == "一行新的文字"
    assert "夜来风雨声" in person.view.inner_text(".diff .gone del")
    assert "PP-OCRv6_small read 2 lines" in person.view.inner_text(".told")
    person.shoot("photo-again")
    person.view.click("[data-task=clip]")
    person.view.wait_for_selector(".told:has-text('100%')")


def test_pictures_beside_and_alike_are_a_key_and_a_click_away(person: Person) -> None:
    person.search("ocr:发票")
    found, following = person.view.locator(".card .name").all_inner_texts()
    assert {found, following} == {"invoice-hotel.jpg", "invoice-laptop.jpg"}
    person.open("ocr:发票", found)
    person.view.keyboard.press("ArrowRight")
    person.view.wait_for_selector(f"h1:text('{following}')")
    person.view.wait_for_selector(".like .card .frame.there")
    first = person.view.locator(".like .card").first
    name = first.locator(".name").inner_text()
    first.locator(".card-link").click()
    person.view.wait_for_selector(f"h1:text('{name}')")
    person.view.go_back()
    person.view.wait_for_selector(f"h1:text('{following}')")


def test_a_failed_picture_is_tried_again_until_it_is_whole(person: Person, service: Server) -> None:
    person.view.goto("/ai/library")
    row = person.view.locator("[data-list=failures] .row")
    assert "not a picture" in row.inner_text()
    person.check_accessibility()
    person.shoot("library")
    row.locator(".retry").click()
    person.view.wait_for_selector("[data-list=failures] .row-told:text('not a picture')")
    (service.folder / "pictures/broken.jpg").write_bytes(jpeg(page(["现在完好"], size=(640, 360))))
    row.locator(".retry").click()
    person.view.wait_for_selector("[data-list=failures] .row.done")
    person.view.reload()
    person.view.wait_for_selector(".fact")
    assert person.view.locator("[data-list=failures] .row").count() == 0
    person.search("ocr:现在完好")


def test_the_system_shows_models_charts_and_a_report(person: Person) -> None:
    person.view.goto("/ai/system")
    person.view.wait_for_selector(".chart")
    assert person.view.locator("tbody tr", has_text="PP-OCRv6_small").locator(".state.up").count() == 1
    assert "immich-bento report" in person.view.inner_text(".report")
    assert KEY not in person.view.content()
    person.check_accessibility()
    person.shoot("system")


def test_everything_can_be_done_by_keyboard(person: Person) -> None:
    person.view.goto("/ai")
    person.wait("document.activeElement.id == 'q'")
    person.view.keyboard.type("ocr:西湖大酒店")
    person.view.wait_for_selector(".card .frame.there")
    press(person, ".segments [aria-checked=true]", "Tab")
    person.view.keyboard.press("ArrowRight")
    assert person.view.evaluate("document.activeElement.dataset.mode") == "hybrid"
    person.view.wait_for_selector(".card .frame.there")
    press(person, ".card-link", "Tab")
    person.view.keyboard.press("Enter")
    person.view.wait_for_selector(".lines li")
    press(person, ".lines li", "Tab")
    person.view.keyboard.press("ArrowDown")
    assert person.view.locator(".stage .box.lit").get_attribute("data-n") == "2"
    press(person, "[data-task=ocr]", "Shift+Tab")
    person.view.keyboard.press("Enter")
    person.view.wait_for_selector(".told:has-text('Nothing is different')")
    press(person, "nav [data-view=library]", "Shift+Tab")
    person.view.keyboard.press("Enter")
    person.view.wait_for_selector(".fact")


def press(person: Person, selector: str, key: str) -> None:
    """Press ``key`` until what ``selector`` names has the focus."""
    for _ in range(60):
        person.view.keyboard.press(key)
        if person.view.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{key} does not lead to {selector}.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chinese_browser_gets_a_chinese_page(browser: Any, service: Server, scheme: str) -> None:
    someone = Person(browser, service.url, locale="zh-CN", color_scheme=scheme)
    someone.view.goto("/ai")
    assert someone.view.inner_text(".login .primary") == "登录"
    someone.log_in()
    someone.search("苹果")
    assert "按文字与画面内容" in someone.view.inner_text(".status")
    someone.check_accessibility()
    someone.shoot(f"search-zh-{scheme}")
    someone.view.click("text=English")
    someone.view.wait_for_selector("nav :text('The library')")
    assert someone.faults == []
    someone.context.close()


def test_it_works_on_a_phone(browser: Any, service: Server) -> None:
    window = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    someone = Person(browser, service.url, locale="zh-CN", **window)
    someone.log_in()
    someone.search("ocr:发票")
    someone.shoot("phone-search")
    someone.view.tap(".card-link")
    someone.view.wait_for_selector(".stage.there")
    someone.view.wait_for_selector(".lines li")
    box = someone.view.locator(".stage .box").first.bounding_box()
    someone.view.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    someone.view.wait_for_selector(".lines li.lit")
    someone.check_accessibility()
    someone.view.evaluate("scrollTo(0, 0)")
    someone.shoot("phone-photo")
    wide = someone.view.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    assert someone.faults == []
    someone.context.close()


def test_immichs_own_page_gets_a_button_that_opens_the_photo_beside_it(person: Person) -> None:
    """Immich's page is made up: the script looks at nothing of it but the address."""
    asset = person.view.evaluate("fetch('/ai/api/search?q=ocr:发票').then(r => r.json()).then(a => a.hits[0].id)")
    html = "<!DOCTYPE html><title>Immich</title><body>A photo<script src='/ai/immich.js' defer></script>"
    person.view.route("**/photos**", lambda route: route.fulfill(body=html, content_type="text/html"))
    person.view.goto("/photos")
    assert person.view.locator("[data-immich-bento]").count() == 0
    person.view.evaluate(f"history.pushState({{}}, '', '/photos/{asset}')")
    person.view.click("button:text('Text & recognition')")
    panel = person.view.frame_locator("iframe")
    panel.locator(".lines li").first.wait_for()
    assert "发票" in panel.locator(".lines").inner_text()
    person.shoot("in-immich")
    panel.locator("button[aria-label=Close]").click()
    person.view.wait_for_selector("iframe", state="detached")
    person.view.evaluate("history.pushState({}, '', '/photos')")
    person.view.wait_for_selector("[data-immich-bento]", state="detached")


def test_the_screenshots_are_there_to_look_at(person: Person) -> None:
    person.view.goto("/ai")
    person.shoot("welcome")
    assert (SCREENSHOTS / "welcome.png").stat().st_size > 1000
