"""What a browser gets: the page's files, a policy that lets nothing else run, and words in two languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.web.pages import Pages
from web.files import STATIC

SCRIPTS = sorted(STATIC.glob("*.js"))
WORDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(STATIC.glob("words/*.json"))}
MADE_OF_PARTS = ("title.", "again.", "answered.", "mode.", "failed.", "library.", "models.", "who.", "diff.")
"""Beginnings of keys that scripts put together."""


@pytest.mark.parametrize("path", ["/ai", "/ai/", "/ai/library", "/ai/system", "/ai/assets/0", "/ai/static/page.js"])
def test_every_answer_has_the_policy(path: str) -> None:
    response = Pages(None).ask("GET", path, {})
    assert response.status_code == 200
    policy = dict(rule.strip().partition(" ")[::2] for rule in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
    assert policy["frame-ancestors"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_operations_have_the_policy_and_are_not_kept() -> None:
    for path in ("me", "library"):
        response = Pages(None).ask("GET", f"/ai/api/{path}", {})
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"


def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    pages = Pages(None)
    etag = pages.ask("GET", "/ai/static/page.css", {}).headers["etag"]
    again = pages.ask("GET", "/ai/static/page.css", {"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["../routes.py", "..%2Froutes.py", "%2e%2e/routes.py", "nothing.js", "words/", "words/fr.json"]
)
def test_no_other_file_is_served(name: str) -> None:
    assert Pages(None).ask("GET", f"/ai/static/{name}", {}).status_code == 404


def test_the_page_asks_nobody_else_and_runs_nothing_inline() -> None:
    for path in (*STATIC.glob("*.html"), *STATIC.glob("*.css"), *SCRIPTS):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]{2,}/", text), path.name
        assert not re.search(r"\son\w+=\"|style=\"|<script>|javascript:|@import|url\(", text), path.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_text_never_becomes_html(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    html = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML"
    assert not re.search(rf"{html}|eval\(|new Function", text)


def test_every_file_that_the_page_names_is_there() -> None:
    for path in (*STATIC.glob("*.html"), *SCRIPTS):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"/ai/static/([\w./-]+\.\w+)", text):
            assert (STATIC / name).is_file(), (path.name, name)
        for name in re.findall(r'from "\./([\w.-]+)"', text):
            assert (STATIC / name).is_file(), (path.name, name)


def test_both_languages_have_the_same_words() -> None:
    assert set(WORDS) == {"en", "zh"}
    assert set(WORDS["en"]) == set(WORDS["zh"])
    for key, english in WORDS["en"].items():
        assert set(re.findall(r"\{(\w+)\}", english)) == set(re.findall(r"\{(\w+)\}", WORDS["zh"][key])), key
        assert english.strip()
        assert WORDS["zh"][key].strip()


def test_chinese_is_chinese() -> None:
    same = [key for key, text in WORDS["zh"].items() if not re.search(r"[\u4e00-\u9fff]", text)]
    assert same == ["system.p95"]


def test_every_word_that_scripts_ask_for_is_there_and_asked_for() -> None:
    asked = set()
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        asked |= set(re.findall(r'"([a-z]+(?:\.[a-z0-9]+)+|[a-z]+)"', text)) & set(WORDS["en"])
        missing = set(re.findall(r'\bt\("([^"]+)"', text)) - set(WORDS["en"])
        assert not missing, (script.name, missing)
    unused = {key for key in WORDS["en"] if key not in asked and not key.startswith(MADE_OF_PARTS)}
    assert unused == set()


def test_the_script_for_immich_depends_on_nothing_but_the_address() -> None:
    text = (STATIC / "immich.js").read_text(encoding="utf-8")
    assert not re.search(r"querySelector|getElement|MutationObserver|\bimport\b|history\.", text)
    response = Pages(None).ask("GET", "/ai/immich.js", {})
    assert response.headers["content-type"].startswith("text/javascript")
