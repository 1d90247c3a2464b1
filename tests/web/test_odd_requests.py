"""Requests with odd values at every place of the page's API: each is answered, none with a fault of the service."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.web.library import Library
from tests.web.pages import KEY, code, session_of

TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\n\r",
    "x" * 2001,
    "x" * 5000,
    "9" * 30,
    "-1",
    "1e400",
    "nan",
    "٣",
    "ocr:",
    "ocr:\0",
    "clip:",
    '"',
    "'; --",
    "%",
    "\\",
    "\ud7ff\ue000\uffff",
    "🙂" * 400,
    "../..",
    "{x}",
    "00000000-0000-4000-8000-000000000000",
    "urn:uuid:00000000-0000-4000-8000-000000000000",
]
VALUES: list[Any] = [
    *TEXTS,
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    [],
    {},
    [[]],
    ["ocr", "ocr"],
    [None],
    ["x" * 2000],
    {"a": {"b": []}},
]
QUERIES = [
    ("search?q=ocr:a&{}", ("cursor", "limit", "mode", "owner", "x\0")),
    ("search?{}", ("q",)),
    ("search?mode=clip&{}", ("q",)),
    ("search?mode=ocr&{}", ("q",)),
    ("failures?{}", ("cursor",)),
    ("lost?{}", ("cursor",)),
    ("library?{}", ("cursor",)),
    ("assets/{{id}}/picture?{}", ("size", "v")),
]
PLACES = ["", "/similar", "/faces", "/picture", "/redo"]
BODIES = ["assets/{id}/redo", "retry", "login", "logout"]


@pytest.mark.parametrize(("path", "names"), QUERIES)
def test_odd_queries(library: Library, path: str, names: tuple[str, ...]) -> None:
    asset, pages = library.add(library.ann, "a"), library.pages()
    for name in names:
        for text in TEXTS:
            target = path.format(f"{quote(name)}={quote(text)}").format(id=asset)
            for headers in (KEY, session_of(library.ann)):
                assert pages.ask("GET", f"/ai/api/{target}", headers).status_code != 500, target[:100]


@pytest.mark.parametrize("place", PLACES)
def test_odd_ids(library: Library, place: str) -> None:
    pages, method = library.pages(), "POST" if place == "/redo" else "GET"
    body = {"tasks": ["ocr"]} if method == "POST" else None
    for text in TEXTS:
        path = f"/ai/api/assets/{quote(text, safe='')}{place}"
        for headers in (KEY, session_of(library.ann)):
            assert pages.ask(method, path, headers, json=body).status_code != 500, path[:100]


@pytest.mark.parametrize("path", BODIES)
def test_odd_bodies(library: Library, path: str) -> None:
    asset, pages = library.add(library.ann, "a"), library.pages()
    bodies: list[Any] = [*VALUES]
    for name in ("id", "tasks", "subject", "key"):
        bodies += [{name: value} for value in VALUES]
        bodies += [{"id": str(asset), "tasks": ["ocr"], name: value} for value in VALUES] if path == "retry" else []
    for body in bodies:
        for headers in (KEY, session_of(library.ann)):
            sent = {**headers, "content-type": "application/json"}
            answer = pages.ask("POST", f"/ai/api/{path.format(id=asset)}", sent, content=json.dumps(body))
            assert answer.status_code != 500, str(body)[:100]


def test_what_a_database_cannot_keep_and_what_is_too_long_is_told(library: Library) -> None:
    pages = library.pages()
    for cursor in ("x" * 2001, "%00"):
        refused = pages.ask("GET", f"/ai/api/search?q=ocr:a&cursor={cursor}")
        assert code(refused) == (422, "invalid_request")
        assert "cursor is wrong" in refused.json()["detail"]
    refused = pages.ask("POST", "/ai/api/retry", json={"subject": "\0"})
    assert code(refused) == (422, "invalid_request")
    assert "subject is wrong" in refused.json()["detail"]
