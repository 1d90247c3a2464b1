"""Search's HTTP API over a real database: who may ask, what may be asked, and how it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from starlette.applications import Starlette

from search.http.api import openapi_json, router
from search.http.life import SearchLife
from search.http.route import SearchRoute
from search.http.routes import PATHS, routes
from search.http.state import SearchApi
from search.query import find as find_module
from search.store import database as database_module
from search.store.database import Database
from serving.guesses import Guesses
from settings import Settings
from tests.compat.fake_runners import FakeRunners
from tests.search.indexing.redoing import BROKEN, CATALOG, rows, settings, upload
from tests.search.indexing.test_reprocess import NAME, index

KEY = {"api-key": "s3cret"}
NOBODYS = "00000000-0000-4000-8000-000000000000"
ROUTES = [
    ("GET", "/search?q=发票"),
    ("GET", f"/assets/{NOBODYS}/ocr"),
    ("POST", f"/assets/{NOBODYS}/reprocess"),
    ("GET", "/stats"),
]


class OpenLife(SearchLife):
    """Search over a database that is open already."""

    def __init__(self, config: Settings, database: Database) -> None:
        super().__init__(config)
        self._database = database


class Api:
    """The routes as service.py mounts them. Every request has an event loop of its own."""

    def __init__(self, database: Database | None, **overrides: Any) -> None:
        self.settings = settings(**({"clip_model": NAME} | overrides))
        self.runners = FakeRunners()
        self.guesses = Guesses(clock=lambda: 0.0)  # a wait is over when it is said to be, however busy the machine
        self.life = SearchLife(self.settings) if database is None else OpenLife(self.settings, database)

    def ask(self, method: str, path: str, headers: Mapping[str, str] = KEY, **content: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            app = Starlette(
                routes=routes(SearchApi(CATALOG, self.settings, self.life, self.runners, guesses=self.guesses))
            )
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
                return await client.request(method, path, headers=headers, **content)

        return asyncio.run(send())

    def find(self, **parameters: Any) -> httpx.Response:
        return self.ask("GET", "/search", params=parameters)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_every_operation_has_its_path_among_the_routes() -> None:
    assert tuple(dict.fromkeys(route.path for route in router.routes if isinstance(route, SearchRoute))) == PATHS


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nothing_is_answered_without_the_key(method: str, path: str) -> None:
    api = Api(None)
    assert code(api.ask(method, path, headers={})) == (401, "unauthorized")
    assert code(api.ask(method, path, headers={"api-key": "wrong"})) == (401, "unauthorized")
    assert code(Api(None, api_auth_key=None).ask(method, path)) == (403, "key_not_set")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_after_five_wrong_keys_the_right_one_has_to_wait_too(method: str, path: str) -> None:
    api = Api(None)
    for number in range(5):
        assert code(api.ask(method, path, headers={"api-key": f"guess {number}"})) == (401, "unauthorized")
    assert code(api.ask(method, path)) == (429, "too_many_attempts")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_database_that_is_not_there_yet_is_said_to_be_so(method: str, path: str) -> None:
    body = {"tasks": ["ocr"]} if method == "POST" else None
    waiting = Api(None).ask(method, path, json=body)
    assert code(waiting) == (503, "search_unavailable")
    assert "still starting" in waiting.json()["detail"]
    assert waiting.headers["retry-after"] == "5"
    assert "SEARCH_ENABLED" in Api(None, search_enabled=False).ask(method, path, json=body).json()["detail"]


def test_the_description_needs_no_key_and_is_the_committed_one() -> None:
    response = Api(None).ask("GET", "/openapi.json", headers={})
    assert (response.status_code, response.content) == (200, openapi_json())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/search", "q"),
        ("/search?q=a&limit=0", "limit"),
        ("/search?q=a&limit=101", "limit"),
        ("/search?q=a&limit=ten", "limit"),
        ("/search?q=a&mode=fuzzy", "mode"),
        ("/search?q=a&owner=%00", "owner"),
        ("/search?q=a&cursor=%00", "cursor"),
        ("/search?q=a&cursor=nonsense", "cursor"),
        ("/search?q=a&page=2", "page"),
        ("/search?q=a&q=b", "q"),
        ("/stats?verbose=1", "verbose"),
        ("/assets/1/ocr", "UUID"),
    ],
)
def test_a_wrong_parameter_is_named(database: Database, path: str, told: str) -> None:
    response = Api(database).ask("GET", path)
    assert code(response) == (422, "invalid_request")
    assert told in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{}", "tasks"),
        (b'{"tasks":[]}', "tasks"),
        (b'{"tasks":["paint"]}', "tasks"),
        (b"[", "body"),
        (b'{"tasks":["ocr"],"a":1}', "a"),
        (b"", "body"),
        (b'{"tasks":["ocr\xff"]}', "body"),  # no UTF-8
        (b"[" * 15_000, "body"),
        (b"1" * 5_000, "body"),
    ],
)
def test_a_wrong_body_is_named(database: Database, body: bytes, told: str) -> None:
    response = Api(database).ask("POST", f"/assets/{uuid4()}/reprocess", content=body)
    assert code(response) == (422, "invalid_request")
    assert told in response.json()["detail"]


def test_a_body_without_end_is_not_read_to_it(database: Database) -> None:
    assert code(Api(database).ask("POST", f"/assets/{uuid4()}/reprocess", content=b" " * 20_000)) == (
        413,
        "body_too_large",
    )


def test_text_is_found_with_its_lines_and_boxes(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "receipt.jpg", "增值税发票", "No. A-102")
    index(database, tmp_path / "menu.jpg", "宫保鸡丁")
    for query in ("ocr:发票", "OCR：发票", "ocr:發票", "ocr:票"):
        answer = Api(database).find(q=query).json()
        assert answer["mode"] == "ocr"
        (hit,) = answer["hits"]
        assert (hit["id"], hit["name"], hit["clip"]) == (str(asset), "receipt.jpg", None)
        assert hit["ocr"]["rank"] == 1
        (line,) = hit["lines"]
        assert (line["n"], line["text"], len(line["box"])) == (1, "增值税发票", 8)
        (start, end) = line["spans"][0]
        assert line["text"][start:end] in ("发票", "票")


def test_pages_go_on_where_the_last_one_ended(database: Database, tmp_path: Path) -> None:
    assets = {str(index(database, tmp_path / f"{n}.jpg", "发票")) for n in range(5)}
    api, seen, cursor = Api(database), [], None
    for _ in range(3):
        answer = api.find(q="ocr:发票", limit=2, **({"cursor": cursor} if cursor else {})).json()
        seen += [hit["id"] for hit in answer["hits"]]
        cursor = answer["next_cursor"]
    assert cursor is None
    assert sorted(seen) == sorted(assets)


def test_hybrid_without_clip_answers_from_text_and_says_so(database: Database, tmp_path: Path) -> None:
    index(database, tmp_path / "a.jpg", "发票")
    api = Api(database)
    api.runners.error = BROKEN
    answer = api.find(q="发票").json()
    assert answer["mode"] == "ocr"
    assert [hit["lines"][0]["text"] for hit in answer["hits"]] == ["发票"]
    assert [note["code"] for note in answer["notes"]] == [BROKEN.code.value]
    assert code(api.find(q="发票", mode="clip")) == (503, BROKEN.code.value)


def test_queries_are_embedded_by_the_model_of_the_stored_vectors(database: Database, tmp_path: Path) -> None:
    index(database, tmp_path / "a.jpg", model="ViT-B-16")
    api = Api(database, clip_model="")
    api.find(q="一只狗")
    assert [job.model for job in api.runners.jobs] == ["ViT-B-16"]
    other = Api(database, clip_model=NAME)
    refused = other.find(q="一只狗", mode="clip")
    assert code(refused) == (409, "stored_model_differs")
    assert other.runners.jobs == []
    assert [note["code"] for note in other.find(q="一只狗").json()["notes"]] == ["stored_model_differs"]


def test_without_vectors_and_without_a_model_meaning_is_not_available(database: Database) -> None:
    refused = Api(database, clip_model="").find(q="一只狗", mode="clip")
    assert code(refused) == (503, "model_unavailable")
    assert "CLIP_MODEL" in refused.json()["detail"]


def test_the_text_of_a_picture_is_told_apart_from_no_text_and_not_read(database: Database, tmp_path: Path) -> None:
    read, empty = index(database, tmp_path / "a.jpg", "第一行", "第二行"), index(database, tmp_path / "b.jpg")
    waiting = index(database, tmp_path / "c.jpg")
    rows(database, "delete from immich_ai.ocr_document where asset_id = %s", waiting)
    api = Api(database)
    answers = [api.ask("GET", f"/assets/{asset}/ocr").json() for asset in (read, empty, waiting)]
    assert [(one["read"], one["text"], len(one["lines"])) for one in answers] == [
        (True, "第一行\n第二行", 2),
        (True, "", 0),
        (False, "", 0),
    ]
    assert answers[0]["lines"][1]["n"] == 2
    assert answers[0]["lines"][0]["box"] == pytest.approx([0.1, 0.1, 0.5, 0.1, 0.5, 0.2, 0.1, 0.2])
    assert (answers[0]["model"], answers[0]["name"]) == ("PP-OCRv6_small", "a.jpg")
    assert code(api.ask("GET", f"/assets/{uuid4()}/ocr")) == (404, "unknown_asset")


def test_a_picture_is_done_again_on_the_runners(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    api = Api(database)
    answer = api.ask("POST", f"/assets/{asset}/reprocess", json={"tasks": ["ocr", "ocr"]})
    assert answer.json() == {"id": str(asset), "done": ["ocr"], "models": {"ocr": "PP-OCRv6_small"}, "lines": 1}
    assert api.find(q="ocr:旧").json()["hits"] == []
    assert len(api.find(q="ocr:发票").json()["hits"]) == 1
    assert code(api.ask("POST", f"/assets/{asset}/reprocess", json={"tasks": ["faces"]})) == (422, "invalid_request")
    assert code(api.ask("POST", f"/assets/{uuid4()}/reprocess", json={"tasks": ["ocr"]})) == (404, "unknown_asset")


def test_stats_count_every_state(database: Database, tmp_path: Path) -> None:
    index(database, tmp_path / "a.jpg", "字")
    index(database, tmp_path / "b.jpg")
    waiting = index(database, tmp_path / "c.jpg")
    for table in ("ocr_document", "embedding"):
        rows(database, f"delete from immich_ai.{table} where asset_id = %s", waiting)
    rows(
        database,
        "insert into immich_ai.failure (uri, task, code, message) values ('/d.jpg', 'read', 'unreadable_picture', "
        "'No.')",
    )
    answer = Api(database).ask("GET", "/stats").json()
    counted = {name: answer[name] for name in ("assets", "read", "empty", "failed", "waiting", "embedded")}
    assert counted == {"assets": 3, "read": 1, "empty": 1, "failed": 1, "waiting": 1, "embedded": 2}
    assert (answer["source"], answer["models"]) == ("standalone", {"clip": NAME, "ocr": "PP-OCRv6_small"})
    assert answer["stored_models"] == [{"model": NAME, "size": 512, "vectors": 2}]
    assert answer["notes"] == []
    assert set(answer["thinned"]) == {"pictures", "regions_left_out"}
    differs = Api(database, clip_model="ViT-B-16").ask("GET", "/stats").json()
    assert differs["models"]["clip"] == "ViT-B-16"
    assert [note["code"] for note in differs["notes"]] == ["stored_model_differs"]


def test_stats_of_immich_know_no_model_but_its_size(immich_database: Database) -> None:
    answer = Api(immich_database).ask("GET", "/stats").json()
    assert answer["source"] == "immich"
    assert answer["stored_models"] == [{"model": None, "size": 512, "vectors": 0}]


def test_the_text_of_a_hidden_picture_is_nobodys(immich_database: Database) -> None:
    asset = upload(immich_database, "秘密")
    path = f"/assets/{asset}/ocr"
    assert Api(immich_database).ask("GET", path).status_code == 200
    rows(immich_database, "update public.asset set visibility = 'locked' where id = %s", asset)
    assert code(Api(immich_database).ask("GET", path)) == (404, "unknown_asset")


def test_a_database_that_goes_away_is_unavailable(database: Database) -> None:
    database.conninfo = "host=/nowhere dbname=none connect_timeout=1"
    assert code(Api(database).ask("GET", "/stats")) == (503, "search_unavailable")


def test_an_immich_that_is_not_known_is_unavailable(immich_database: Database) -> None:
    rows(immich_database, "alter table public.smart_search rename to vectors")
    for path in ("/stats", "/search?q=a&mode=clip"):
        response = Api(immich_database).ask("GET", path)
        assert code(response) == (503, "search_unavailable")
        assert "This Immich is not known" in response.json()["detail"]


def test_a_right_that_the_role_lacks_is_named(immich_database: Database) -> None:
    name = f"nobody_{uuid4().hex[:8]}"
    rows(immich_database, f"create role {name} login password '{name}'")
    rows(immich_database, f"grant usage on schema immich_ai to {name}")
    try:
        immich_database.conninfo = make_conninfo(owner := immich_database.conninfo, user=name, password=name)
        refused = Api(immich_database).ask("GET", "/stats")
    finally:
        immich_database.conninfo = owner
        rows(immich_database, f"drop owned by {name}")
        rows(immich_database, f"drop role {name}")
    assert code(refused) == (503, "search_unavailable")
    assert "search grants" in refused.json()["detail"]


SPECIAL = st.text(st.sampled_from("'\"\\\x00;-()&|!<>:*%_ 发票ｏｃｒ：ocrOR or-😀\ud7ff\ufffe\t\n"), max_size=30)


@pytest.mark.parametrize("mode", ["auto", "ocr", "hybrid"])
def test_no_query_is_ever_an_internal_error(database: Database, tmp_path: Path, mode: str) -> None:
    index(database, tmp_path / "a.jpg", "发票 'quoted' \\ A-102")
    api = Api(database)

    @hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(SPECIAL | st.text(max_size=50) | st.sampled_from(["票" * 5_000, "a " * 5_000]), st.none() | SPECIAL)
    def ask(query: str, owner: str | None) -> None:
        response = api.find(q=query, mode=mode, **({} if owner is None else {"owner": owner}))
        assert response.status_code in (200, 422), json.dumps(response.json())

    ask()


def test_an_empty_vector_table_of_another_size_is_told(immich_database: Database) -> None:
    rows(immich_database, "truncate public.smart_search")
    rows(immich_database, "drop index public.clip_index")
    rows(immich_database, "alter table public.smart_search alter column embedding set data type vector(768)")
    api = Api(immich_database)
    assert code(api.find(q="一只狗", mode="clip")) == (409, "stored_model_differs")
    assert [note["code"] for note in api.find(q="一只狗").json()["notes"]] == ["stored_model_differs"]


def test_a_search_that_takes_too_long_is_unavailable_and_says_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_SECONDS", 0.1)
    monkeypatch.setattr(find_module, "_PAGE", "SELECT pg_sleep(30), %(start)s::integer")
    response = Api(database).find(q="ocr:票")
    assert code(response) == (503, "search_unavailable")
    assert "took longer than" in response.json()["detail"]
