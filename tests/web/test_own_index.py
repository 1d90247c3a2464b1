"""The page over our own index: what is found, shown, done again and tried again, for whoever has the key."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from search.store.database import Database
from tests.fake_immich_search import FakeSearchImmich, User
from tests.search.indexing.redoing import picture, rows
from tests.search.indexing.test_reprocess import index
from tests.web.pages import KEY, Pages, cache_in, code, session_of

HOSTILE = "<img src=x onerror=alert(1)>"


def fail(database: Database, path: Path, task: str = "read", asset: object = None) -> None:
    """Note a failure as indexing does."""
    rows(
        database,
        "insert into immich_ai.failure (uri, asset_id, task, code, message) values (%s, %s, %s, 'unreadable_picture', "
        "'It is damaged.')",
        *(str(path), asset, task),
    )


def test_a_search_answers_with_lines_boxes_and_pages(database: Database, tmp_path: Path) -> None:
    assets = {str(index(database, tmp_path / f"{n}.jpg", "发票", HOSTILE)) for n in range(5)}
    pages, seen, cursor = Pages(database), set(), ""
    for _ in range(3):
        answer = pages.get(f"search?q=ocr:发票&limit=2{cursor}")
        seen |= {hit["id"] for hit in answer["hits"]}
        cursor = f"&cursor={answer['next_cursor']}"
    assert (seen, answer["next_cursor"], answer["mode"]) == (assets, None, "ocr")
    (line,) = answer["hits"][0]["lines"]
    assert (line["text"], line["spans"], len(line["box"])) == ("发票", [[0, 2]], 8)


@pytest.mark.parametrize("query", ["", "q=a&owner=b", "q=a&mode=fuzzy", "q=a&limit=101", "q=a&cursor=x"])
def test_a_wrong_question_is_refused(database: Database, query: str) -> None:
    assert code(Pages(database).ask("GET", f"/ai/api/search?{query}")) == (422, "invalid_request")


def test_a_photo_is_told_with_its_text_and_the_pictures_beside_it(database: Database, tmp_path: Path) -> None:
    first, second, third = (index(database, tmp_path / f"{n}.jpg", HOSTILE, "b") for n in range(3))
    for number, asset in enumerate((first, second, third)):
        rows(database, f"update immich_ai.asset set modified = '2026-01-0{number + 1}' where id = %s", asset)
    told = Pages(database).get(f"assets/{second}")
    assert (told["name"], told["place"], told["text"]) == ("1.jpg", str(tmp_path / "1.jpg"), f"{HOSTILE}\nb")
    assert (told["previous"], told["next"]) == (str(third), str(first))
    assert (told["model"], told["read"], told["embedded"], told["tasks"]) == (
        "PP-OCRv6_small",
        True,
        True,
        ["ocr", "clip"],
    )
    assert Pages(database).get(f"assets/{third}")["previous"] is None


@pytest.mark.parametrize("path", ["", "/similar", "/picture", "/faces"])
def test_an_asset_that_is_not_there_is_told_so(database: Database, path: str) -> None:
    assert code(Pages(database).ask("GET", f"/ai/api/assets/nonsense{path}")) == (422, "invalid_request")
    if path != "/similar":
        assert code(Pages(database).ask("GET", f"/ai/api/assets/{uuid4()}{path}")) == (404, "unknown_asset")


def test_pictures_like_one_are_found_without_itself(database: Database, tmp_path: Path) -> None:
    one, other = index(database, tmp_path / "a.jpg"), index(database, tmp_path / "b.jpg")
    (hit,) = Pages(database).get(f"assets/{one}/similar")["hits"]
    assert hit["id"] == str(other)
    assert hit["clip"]["similarity"] == pytest.approx(1)
    rows(database, "delete from immich_ai.embedding where asset_id = %s", one)
    assert Pages(database).get(f"assets/{one}/similar")["hits"] == []


def test_small_pictures_are_made_once_upright_and_kept(database: Database, tmp_path: Path) -> None:
    lying = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2000, 1000), "red").save(lying, "JPEG", exif=exif)
    asset = index(database, tmp_path / "a.jpg", data=lying.getvalue())
    pages = Pages(database, **cache_in(tmp_path))
    for size, expected in (("thumbnail", (240, 480)), ("preview", (800, 1600))):
        response = pages.ask("GET", f"/ai/api/assets/{asset}/picture?size={size}")
        assert (response.status_code, response.headers["content-type"]) == (200, "image/webp")
        assert Image.open(io.BytesIO(response.content)).size == expected
    kept = sorted((tmp_path / "thumbnails").iterdir())
    assert len(kept) == 2
    (tmp_path / "a.jpg").unlink()
    assert pages.ask("GET", f"/ai/api/assets/{asset}/picture").status_code == 200


def test_a_browser_asks_each_time_whether_a_picture_is_still_the_same(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg")
    pages, path = Pages(database, **cache_in(tmp_path)), f"/ai/api/assets/{asset}/picture"
    first = pages.ask("GET", path)
    assert first.headers["cache-control"] == "private, no-cache"
    known = {"if-none-match": first.headers["etag"]}
    again = pages.ask("GET", path, {**KEY, **known})
    assert (again.status_code, again.content) == (304, b"")
    assert pages.ask("GET", path, {**KEY, "if-none-match": '"another"'}).content == first.content
    assert pages.ask("GET", path, known).status_code == 401


def test_a_user_of_immich_sees_no_file_of_our_own_index(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg")
    ann = User("ann")
    with FakeSearchImmich() as immich:
        immich.users.append(ann)
        pages = Pages(database, immich, **cache_in(tmp_path))
        for path in ("", "/picture"):
            response = pages.ask("GET", f"/ai/api/assets/{asset}{path}", session_of(ann))
            assert code(response) == (404, "unknown_asset"), path
        assert pages.ask("GET", f"/ai/api/assets/{asset}/picture").status_code == 200


def test_a_file_that_is_no_picture_is_told_so(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", data=b"no picture")
    response = Pages(database, **cache_in(tmp_path)).ask("GET", f"/ai/api/assets/{asset}/picture")
    assert code(response) == (415, "unreadable_picture")


def test_doing_a_photo_again_tells_what_is_different(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg", "旧")
    pages = Pages(database)
    done = pages.ask("POST", f"/ai/api/assets/{asset}/redo", json={"tasks": ["ocr"]}).json()
    assert (done["done"], done["models"], done["similarity"]) == (["ocr"], {"ocr": "PP-OCRv6_small"}, None)
    assert pages.get(f"assets/{asset}")["text"] == "发票 A-1"
    wrong = pages.ask("POST", f"/ai/api/assets/{asset}/redo", json={"tasks": ["paint"]})
    assert code(wrong) == (422, "invalid_request")


def test_the_library_counts_every_state_and_the_pace(database: Database, tmp_path: Path) -> None:
    index(database, tmp_path / "a.jpg", "字")
    index(database, tmp_path / "b.jpg")
    waiting = index(database, tmp_path / "c.jpg")
    rows(database, "delete from immich_ai.ocr_document where asset_id = %s", waiting)
    fail(database, tmp_path / "d.jpg")
    told = Pages(database).get("library")
    counted = {name: told[name] for name in ("assets", "read", "empty", "waiting", "failed", "embedded", "notes")}
    assert counted == {
        "assets": 3,
        "read": 1,
        "empty": 1,
        "waiting": 1,
        "failed": 1,
        "embedded": 3,
        "notes": [],
    }
    assert told["rate"] == pytest.approx(2 / told["window_seconds"])


def test_vectors_that_do_not_fit_the_model_are_warned_of(database: Database, tmp_path: Path) -> None:
    index(database, tmp_path / "a.jpg")
    (note,) = Pages(database, clip_model="ViT-B-16").get("library")["notes"]
    assert note["code"] == "stored_model_differs"
    assert "python -m search index" in note["message"]


def test_what_failed_is_listed_with_its_reason_and_can_be_tried_again(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg")
    fail(database, tmp_path / "a.jpg", "ocr", asset)
    pages = Pages(database)
    (listed,) = pages.get("failures")["pictures"]
    assert (listed["id"], listed["name"]) == (str(asset), "a.jpg")
    assert [(one["task"], one["message"]) for one in listed["problems"]] == [("ocr", "It is damaged.")]
    assert pages.get(f"assets/{asset}")["failures"][0]["code"] == "unreadable_picture"
    assert pages.ask("POST", "/ai/api/retry", json=listed["retry"]).status_code == 200
    assert pages.get("failures")["pictures"] == []


def test_a_file_that_never_was_an_asset_is_tried_again_and_becomes_one(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "late.jpg"
    fail(database, path)
    pages = Pages(database)
    (listed,) = pages.get("failures")["pictures"]
    assert (listed["id"], listed["name"]) == (None, "late.jpg")
    again = pages.ask("POST", "/ai/api/retry", json=listed["retry"])
    assert code(again) == (415, "unreadable_picture")
    assert pages.get("failures")["pictures"][0]["problems"][0]["attempts"] == 2
    path.write_bytes(picture())
    response = pages.ask("POST", "/ai/api/retry", json=listed["retry"])
    assert response.status_code == 200, response.text
    assert pages.get(f"assets/{response.json()['id']}")["text"] == "发票 A-1"
    assert pages.get("failures")["pictures"] == []
    assert code(pages.ask("POST", "/ai/api/retry", json=listed["retry"])) == (404, "unknown_asset")


def test_long_lists_come_in_pages(database: Database, tmp_path: Path) -> None:
    for number in range(25):
        fail(database, tmp_path / f"{number}.jpg")
    pages = Pages(database)
    first = pages.get("failures")
    second = pages.get(f"failures?cursor={first['next_cursor']}")
    assert (len(first["pictures"]), len(second["pictures"]), second["next_cursor"]) == (20, 5, None)
    assert code(pages.ask("GET", "/ai/api/failures?cursor=-1")) == (422, "invalid_request")


def test_the_system_tells_models_versions_and_a_report_without_secrets(database: Database, tmp_path: Path) -> None:
    pages = Pages(database, immich_api="http://box:3003", upstream_header="X-Key: hidden", cache_folder=tmp_path)
    pages.runners.loaded = {"ocr": ("PP-OCRv6_small",)}
    told = pages.get("system")
    (model,) = told["models"]
    assert (model["model"], model["loaded"], model["engine"], model["precision"]) == (
        *("PP-OCRv6_small", True, "onnxruntime", "fp32"),
    )
    assert model["memory"] == 1_000_000
    assert "pgvector" in told["versions"]["PostgreSQL"]
    assert "PP-OCRv6_small: in memory" in told["report"]
    for secret in ("s3cret", "hidden", "box:3003", str(tmp_path), database.conninfo):
        assert secret not in told["report"]


def test_a_database_that_is_not_there_is_told_and_the_system_is_shown(tmp_path: Path) -> None:
    pages = Pages(None)
    assert code(pages.ask("GET", "/ai/api/library")) == (503, "search_unavailable")
    assert pages.get("system")["versions"]["PostgreSQL"] is None
    assert pages.get("me")["source"] is None


def test_a_new_vector_is_compared_with_the_one_before(database: Database, tmp_path: Path) -> None:
    asset = index(database, tmp_path / "a.jpg")
    pages = Pages(database)
    first, again = (
        pages.ask("POST", f"/ai/api/assets/{asset}/redo", json={"tasks": ["clip"]}).json() for _ in range(2)
    )
    assert first["similarity"] is None  # of another size
    assert again["similarity"] == pytest.approx(1)
