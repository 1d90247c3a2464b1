"""The fakes of Immich, and what reads Immich's answers, held to answers that were recorded from a running 3.1.0.

``immich_3_1_answers.json`` has one request and its answer a line: Anna, an administrator, shares her pictures and an
album with Ben. Ids, names and addresses were replaced.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from compat.immich_search.assets import items_of, read_answer
from compat.immich_search.wish import METADATA, SMART, read_wish
from search.immich.version import KnownVersion
from tests.fake_immich import FakeImmich
from tests.fake_immich_search import FakeSearchImmich, Picture, User
from tests.web.library import FACE
from tests.web.test_edits import told

ANSWERS = Path(__file__).with_name("immich_3_1_answers.json")
RECORDED: Mapping[str, dict[str, Any]] = {one["name"]: one for one in json.loads(ANSWERS.read_bytes())}
OF_SEARCH = [name for name in RECORDED if name not in ("lines", "faces")]
"""What ``FakeSearchImmich`` answers by itself: all but what tests of the page put into it."""
OF_ASSETS = ("asset", "another's asset", "another's thumbnail", "refresh faces", "another's faces")


def id_of(name: str, *keys: str | int) -> UUID:
    """Return an id in a recorded answer."""
    found = RECORDED[name]["answer"]
    for key in keys:
        found = found[key]
    return UUID(found)


@pytest.fixture(scope="module")
def immich() -> Iterator[FakeSearchImmich]:
    """Return the fake with what was there when the answers were recorded."""
    anna = User("anna", id=id_of("me", "id"), is_admin=True)
    ben = User("ben", id=id_of("album", "albumUsers", 1, "user", "id"), partners=[(anna, True)])
    with FakeSearchImmich(anna, ben) as fake:
        for name in ("by id", "text"):
            item = RECORDED[name]["answer"]["assets"]["items"][0]
            fake.pictures.append(Picture(anna.id, UUID(item["id"]), text="发票"))
        fake.pictures.append(Picture(ben.id, UUID(RECORDED["another's"]["body"]["id"])))
        fake.albums[id_of("album", "id")] = [anna, ben]
        yield fake


def body_of(recorded: Mapping[str, Any]) -> bytes:
    body = recorded["body"]
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def ask(immich: FakeSearchImmich, recorded: Mapping[str, Any]) -> httpx.Response:
    who = {"x-api-key": f"session-of-{recorded['who']}"} if recorded["who"] else {}
    return httpx.request(recorded["method"], immich.url + recorded["path"], headers=who, content=body_of(recorded))


def check_shape(made: Any, real: Any, where: str = "answer") -> None:
    """Fail where ``made`` has a key that ``real`` has not, or a value of another JSON type. null says nothing."""
    if made is None or real is None:
        return
    assert type(made) is type(real) or {type(made), type(real)} <= {int, float}, where
    if isinstance(made, dict):
        assert set(made) <= set(real), where
        for key, value in made.items():
            check_shape(value, real[key], f"{where}.{key}")
    elif isinstance(made, list) and real:
        for value in made:
            check_shape(value, real[0], f"{where}[]")


@pytest.mark.parametrize("name", [name for name in OF_SEARCH if name not in OF_ASSETS])
def test_the_fake_of_searches_answers_as_immich_does(immich: FakeSearchImmich, name: str) -> None:
    recorded = RECORDED[name]
    made = ask(immich, recorded)
    assert made.status_code == recorded["status"]
    check_shape(made.json(), recorded["answer"])
    if made.status_code >= 400 and name != "no json":
        assert made.json()["message"] == recorded["answer"]["message"]
        paths = [error["path"] for error in recorded["answer"].get("errors", [])]
        assert [error["path"] for error in made.json().get("errors", [])] == paths


@pytest.mark.parametrize("name", ["text", "last page", "by id", "another's"])
def test_the_fake_of_searches_finds_what_immich_finds(immich: FakeSearchImmich, name: str) -> None:
    made, real = ask(immich, RECORDED[name]).json()["assets"], RECORDED[name]["answer"]["assets"]
    assert {key: made[key] for key in ("total", "count", "nextPage")} == {
        key: real[key] for key in ("total", "count", "nextPage")
    }
    assert {one["id"] for one in made["items"]} <= {str(one.id) for one in immich.pictures}


def test_the_fake_of_single_assets_answers_as_immich_does() -> None:
    own, other = id_of("asset", "id"), UUID(RECORDED["another's"]["body"]["id"])
    with FakeImmich() as immich:
        immich.previews[str(own)] = b"x"
        for name in ("another's thumbnail", "refresh faces"):
            recorded = RECORDED[name]
            request = f"{recorded['method']} {recorded['path']}"
            status, body = immich.answer(request, immich.key, body_of(recorded))
            assert status == recorded["status"], name
            assert (json.loads(body) if body else None) == recorded["answer"]
        assert str(other) in RECORDED["another's thumbnail"]["path"]


def test_lines_and_faces_of_the_pages_tests_are_as_immichs() -> None:
    check_shape([told("发票", [0.5] * 8)], RECORDED["lines"]["answer"])
    check_shape([FACE], RECORDED["faces"]["answer"])


@pytest.mark.parametrize("name", ["smart", "text", "last page", "another's"])
def test_recorded_searches_can_be_read(name: str) -> None:
    answer = read_answer(orjson.dumps(RECORDED[name]["answer"]))
    assert len(items_of(answer)) == RECORDED[name]["answer"]["assets"]["count"]


def test_what_immich_refuses_is_no_search_of_ours_unless_immich_is_asked_first() -> None:
    """A body that is wrong in what is read here is passed on; what is not read is for Immich to refuse."""
    refused = [one for one in RECORDED.values() if one["status"] == 400 and one["path"] in (SMART, METADATA)]
    passed = {one["name"] for one in refused if read_wish(one["path"], body_of(one), "hybrid") is None}
    assert {"query=5", "page=0", "page='1'", "page=1.5", "size=1001", "size=True", "visibility='x'"} <= passed
    assert {"no query", "empty query", "list", "no json"} <= passed


def test_the_recorded_version_is_read() -> None:
    async def asked() -> bytes:
        return orjson.dumps(RECORDED["version"]["answer"])

    assert asyncio.run(KnownVersion().read(asked)) == (3, 1)
