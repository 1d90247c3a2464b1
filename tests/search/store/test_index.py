"""What is written to the standalone source, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, TypeVar
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest

from errors import ErrorCode, ServiceError
from search.store import index as store
from search.store.database import Database
from search.store.records import File, Line, Problem, Text, Vector
from search.store.vector_indexes import index_embeddings

T = TypeVar("T")

ONE = File("ann", "/photos/one.jpg", "image", 5, datetime(2024, 2, 29, tzinfo=timezone.utc), b"h1")
BOX = (0.1, 0.1, 0.9, 0.1, 0.9, 0.2, 0.1, 0.2)
LINES = Text("reader", (Line("增值税发票", BOX, 0.9, 0.8), Line("No. 42", BOX, 0.7, 0.6)))
VECTOR = Vector("clip", np.array([0.6, 0.8, 0], np.float32))


def run(database: Database, work: Callable[[store.Connection], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with database.connection() as connection:
            return await work(connection)

    return asyncio.run(inside())


def put(database: Database, file: File = ONE, **results: Any) -> UUID:
    return run(database, lambda connection: store.put_asset(connection, file, **results))


def rows(database: Database, table: str) -> list[dict[str, Any]]:
    async def read(connection: store.Connection) -> list[dict[str, Any]]:
        found = await connection.execute(f"SELECT * FROM immich_ai.{table} ORDER BY 1, 2".encode())
        return await found.fetchall()

    return run(database, read)


TABLES = ("asset", "embedding", "ocr_line", "ocr_document", "failure")


def counts(database: Database) -> dict[str, int]:
    return {table: len(rows(database, table)) for table in TABLES}


def test_a_picture_is_written_with_its_vector_lines_and_document(database: Database) -> None:
    asset_id = put(database, vector=VECTOR, text=LINES)
    assert counts(database) == {"asset": 1, "embedding": 1, "ocr_line": 2, "ocr_document": 1, "failure": 0}
    assert rows(database, "embedding")[0]["vector"].to_list() == pytest.approx([0.6, 0.8, 0])
    first, second = rows(database, "ocr_line")
    assert (first["n"], first["text"], second["n"], second["text"]) == (1, "增值税发票", 2, "No. 42")
    assert (first["x1"], first["y4"], second["text_score"]) == (
        pytest.approx(0.1),
        pytest.approx(0.2),
        pytest.approx(0.6),
    )
    document = rows(database, "ocr_document")[0]
    assert (document["asset_id"], document["text"], document["model"]) == (asset_id, "增值税发票\nNo. 42", "reader")


def test_read_without_text_is_told_apart_from_not_read(database: Database) -> None:
    put(database, vector=VECTOR)
    assert rows(database, "ocr_document") == []
    put(database, text=Text("reader", ()))
    assert rows(database, "ocr_document")[0]["text"] == ""


def test_the_same_file_keeps_its_id_and_a_second_result_replaces_the_first(database: Database) -> None:
    first = put(database, vector=VECTOR, text=LINES)
    second = put(database, vector=Vector("other", VECTOR.numbers), text=Text("other", LINES.lines[:1]))
    assert first == second
    assert counts(database) == {"asset": 1, "embedding": 1, "ocr_line": 1, "ocr_document": 1, "failure": 0}
    assert rows(database, "embedding")[0]["model"] == "other"


def test_nothing_that_was_made_of_an_older_content_stays(database: Database) -> None:
    put(database, vector=VECTOR, text=LINES, problems=[Problem("faces", "timeout", "late")])
    put(database, replace(ONE, content_hash=b"h2"), vector=VECTOR)
    assert counts(database) == {"asset": 1, "embedding": 1, "ocr_line": 0, "ocr_document": 0, "failure": 0}


def test_one_task_leaves_the_results_of_the_other_alone(database: Database) -> None:
    put(database, text=LINES)
    put(database, vector=VECTOR)
    assert counts(database) == {"asset": 1, "embedding": 1, "ocr_line": 2, "ocr_document": 1, "failure": 0}


def test_owners_have_the_same_path_each_for_himself(database: Database) -> None:
    put(database, vector=VECTOR)
    put(database, replace(ONE, owner="bob"), text=LINES)
    known = run(
        database, lambda connection: store.known(connection, "bob", [ONE.uri], {"clip": "clip", "ocr": "reader"})
    )
    assert known[ONE.uri].done == {"ocr"}
    assert run(database, lambda connection: store.same_content(connection, "ann", b"h1"))[0].owner == "ann"


def test_what_is_known_names_the_tasks_done_by_these_models_and_those_that_failed(database: Database) -> None:
    put(database, vector=VECTOR, problems=[Problem("ocr", "internal", "odd")])
    ask = [ONE.uri, "/photos/unknown.jpg"]
    known = run(database, lambda connection: store.known(connection, "ann", ask, {"clip": "clip", "ocr": "reader"}))
    assert set(known) == {ONE.uri}
    assert known[ONE.uri].done == {"clip"}
    assert known[ONE.uri].failed == {"ocr"}
    assert known[ONE.uri].content_hash == b"h1"
    other = run(database, lambda connection: store.known(connection, "ann", ask, {"clip": "another"}))
    assert other[ONE.uri].done == frozenset()


def test_attempts_are_counted_and_success_clears_the_failure_of_its_task(database: Database) -> None:
    for _ in range(3):
        put(
            database,
            problems=[Problem("read", "unreadable_picture", "cut\0short \udcff"), Problem("ocr", "internal", "odd")],
        )
    failed = run(database, store.failures)
    assert [(one.task, one.attempts) for one in failed] == [("ocr", 3), ("read", 3)]
    assert failed[1].message == "cutshort ?"
    put(database, vector=VECTOR)
    assert [one.task for one in run(database, store.failures)] == ["ocr"]
    put(database, text=LINES)
    assert run(database, store.failures) == []


def test_a_deleted_asset_leaves_nothing(database: Database) -> None:
    gone = put(database, vector=VECTOR, text=LINES, problems=[Problem("faces", "internal", "odd")])
    put(database, replace(ONE, uri="/photos/two.jpg"), vector=VECTOR, text=LINES)
    assert run(database, lambda connection: store.delete_assets(connection, [gone, uuid4()])) == 1
    assert counts(database) == {"asset": 1, "embedding": 1, "ocr_line": 2, "ocr_document": 1, "failure": 0}


def test_a_moved_file_keeps_its_id_results_and_failures(database: Database) -> None:
    asset_id = put(database, vector=VECTOR, problems=[Problem("ocr", "internal", "odd")])
    asset = run(database, lambda connection: store.get_asset(connection, asset_id))
    later = datetime(2025, 1, 1, tzinfo=timezone.utc)
    assert run(database, lambda connection: store.move(connection, asset, uri="/photos/new.jpg", modified=later))
    known = run(database, lambda connection: store.known(connection, "ann", ["/photos/new.jpg"], {"clip": "clip"}))
    assert known["/photos/new.jpg"].id == asset_id
    assert known["/photos/new.jpg"].failed == {"ocr"}
    assert not run(database, lambda connection: store.move(connection, asset, uri="/photos/else.jpg", modified=later))


def test_a_file_does_not_move_onto_another(database: Database) -> None:
    asset_id = put(database)
    put(database, replace(ONE, uri="/photos/two.jpg"))
    asset = run(database, lambda connection: store.get_asset(connection, asset_id))
    assert not run(
        database, lambda connection: store.move(connection, asset, uri="/photos/two.jpg", modified=ONE.modified)
    )
    assert len(rows(database, "asset")) == 2


def test_only_what_lies_below_a_folder_is_listed_for_it(database: Database) -> None:
    for uri in ("/photos/a.jpg", "/photos/b/c.jpg", "/photos2/d.jpg", "/photos_b/e.jpg", "/photos"):
        put(database, replace(ONE, uri=uri))
    listed = run(database, lambda connection: store.uris_after(connection, "ann", "/photos", "", 10))
    assert sorted(uri for uri, _ in listed) == ["/photos", "/photos/a.jpg", "/photos/b/c.jpg"]
    everything = run(database, lambda connection: store.uris_after(connection, "ann", "/", "", 10))
    assert len(everything) == 5


def test_an_unknown_asset_is_an_error_that_says_so(database: Database) -> None:
    with pytest.raises(ServiceError) as unknown:
        run(database, lambda connection: store.get_asset(connection, uuid4()))
    assert unknown.value.code is ErrorCode.UNKNOWN_ASSET


def test_an_error_half_way_leaves_all_as_it_was(database: Database) -> None:
    put(database, vector=VECTOR, text=LINES)
    before = {table: rows(database, table) for table in TABLES}
    broken = Text(
        "reader", (LINES.lines[0], Line("x", BOX[:7], 0.5, 0.5))
    )  # seven numbers are no box: the last statement but one fails
    with pytest.raises(psycopg.Error):
        put(database, replace(ONE, content_hash=b"h2"), vector=Vector("other", VECTOR.numbers), text=broken)
    assert {table: rows(database, table) for table in TABLES} == before


async def vector_indexes(connection: store.Connection) -> list[dict[str, Any]]:
    found = await connection.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'embedding' AND strpos(indexdef, 'hnsw') > 0"
    )
    return await found.fetchall()


def test_vectors_have_one_index_however_often_it_is_made(database: Database) -> None:
    put(database, vector=VECTOR)
    for _ in range(2):
        run(database, lambda connection: index_embeddings(connection, "clip", 3))

    (only,) = run(database, vector_indexes)
    assert "halfvec(3)" in only["indexdef"]


def test_two_processes_that_make_the_same_index_at_once_do_not_fail(database: Database) -> None:
    put(database, vector=VECTOR)

    async def inside() -> bool:
        async with database.connection() as second:
            async with database.connection() as first:
                await index_embeddings(first, "clip", 3)
                waiting = asyncio.create_task(index_embeddings(second, "clip", 3))
                done, _ = await asyncio.wait((waiting,), timeout=0.2)
            await waiting  # the first has committed
            return not done

    assert asyncio.run(inside())
    assert len(run(database, vector_indexes)) == 1
