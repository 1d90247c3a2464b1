"""sql/0002_sources.sql: Immich's tables behind our views, without standing in Immich's way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from search.immich.sync import sync
from search.store.database import Database
from tests.search.immich.library import OWNER, Library

# The rights that docs/search-setup.md gives a role: to search, and to follow what Immich reads.
SEARCH_RIGHTS = """
CREATE ROLE bento;
GRANT USAGE ON SCHEMA immich_ai, public TO bento;
GRANT SELECT ON ALL TABLES IN SCHEMA immich_ai TO bento;
GRANT SELECT ON public.asset, public.smart_search, public.asset_ocr, public.asset_job_status TO bento;
"""
SYNC_RIGHTS = "GRANT INSERT, UPDATE, DELETE ON immich_ai.ocr_document, immich_ai.failure TO bento;"
SEARCHES = (
    """SELECT * FROM immich_ai.ocr_search('[{"all": ["发票"]}]')""",
    "SELECT * FROM immich_ai.clip_search(array_fill(1, ARRAY[512])::vector, 'immich')",
    """SELECT * FROM immich_ai.hybrid_search('[{"all": ["发票"]}]', array_fill(1, ARRAY[512])::vector, 'immich')""",
    "SELECT * FROM immich_ai.highlighted(ARRAY[gen_random_uuid()], ARRAY['发票'])",
    "SELECT * FROM immich_ai.count_documents()",
    "SELECT * FROM immich_ai.stale_documents('00000000-0000-0000-0000-000000000000', 10, true)",
)


@pytest.fixture
def library(immich_database: Database) -> Iterator[Library]:
    library = Library(immich_database.conninfo)
    yield library
    library.close()


def lines_of(library: Library, asset: UUID) -> list[str]:
    rows = library.connection.execute("SELECT text FROM immich_ai.source_line WHERE asset_id = %s ORDER BY n", (asset,))
    return [row[0] for row in rows]


def test_an_asset_shows_its_owner_name_and_whether_it_may_be_seen(library: Library) -> None:
    seen = [library.upload(visibility=visibility) for visibility in ("timeline", "archive")]
    hidden = [library.upload(visibility=visibility) for visibility in ("hidden", "locked")]
    in_trash = library.upload(name="发票.jpg")
    library.set(in_trash, '"deletedAt" = now()')
    rows = library.connection.execute("SELECT id, owner, name, visible FROM immich_ai.source_asset").fetchall()
    assert {row[0]: row[3] for row in rows} == {
        **dict.fromkeys(seen, True),
        **dict.fromkeys([*hidden, in_trash], False),
    }
    assert {row[1] for row in rows} == {str(OWNER)}
    assert [row[2] for row in rows if row[0] == in_trash] == ["发票.jpg"]


def test_lines_come_in_reading_order_without_those_that_immich_hides(library: Library) -> None:
    asset, other = library.upload(), library.upload()
    library.read(
        asset,
        [("bottom", 0.1, 0.8), ("right", 0.6, 0.101), ("left", 0.1, 0.11), ("hidden", 0.1, 0.5), ("middle", 0.1, 0.4)],
    )
    library.read(other, ["another's"])
    library.connection.execute("UPDATE asset_ocr SET \"isVisible\" = false WHERE text = 'hidden'")
    assert lines_of(library, asset) == ["left", "right", "middle", "bottom"]
    numbers = library.connection.execute(
        "SELECT n FROM immich_ai.source_line WHERE asset_id = %s ORDER BY n", (asset,)
    ).fetchall()
    assert numbers == [(1,), (2,), (3,), (4,)]


def test_an_immich_before_2_5_hides_no_lines(library: Library) -> None:
    asset = library.upload()
    library.read(asset, ["a", "b"])
    library.connection.execute('ALTER TABLE asset_ocr DROP COLUMN "isVisible"')
    library.connection.execute("SELECT immich_ai.use_source('immich')")
    assert lines_of(library, asset) == ["a", "b"]


def test_immich_may_change_the_size_of_its_vectors_at_any_time(library: Library) -> None:
    asset = library.upload()
    library.embed(asset, [1.0] + [0.0] * 511)
    count = "SELECT vector_dims(vector) FROM immich_ai.source_embedding"
    assert library.connection.execute(count).fetchall() == [(512,)]
    library.change_model(768)
    assert library.connection.execute(count).fetchall() == []
    library.embed(asset, [1.0] + [0.0] * 767)
    assert library.connection.execute(count).fetchall() == [(768,)]


def test_nothing_of_ours_depends_on_a_table_of_immich(library: Library) -> None:
    library.connection.execute(
        "DROP TABLE face_search, asset_face, ocr_search, smart_search, asset_ocr, asset_job_status, asset"
    )


def test_a_search_by_vector_uses_immichs_own_index(library: Library) -> None:
    library.connection.execute("SET enable_seqscan = off")
    plan = library.connection.execute(
        "EXPLAIN SELECT asset_id FROM immich_ai.source_embedding ORDER BY vector <=> %s::vector LIMIT 10",
        (str([0.1] * 512),),
    ).fetchall()
    assert any("clip_index" in row[0] for row in plan), plan


def test_the_lines_of_one_asset_are_looked_up_by_immichs_own_index(library: Library) -> None:
    library.connection.execute("SET enable_seqscan = off")
    plan = library.connection.execute(
        "EXPLAIN SELECT * FROM immich_ai.source_line WHERE asset_id = %s", (OWNER,)
    ).fetchall()
    assert any("asset_ocr_assetId_idx" in row[0] for row in plan), plan


def test_a_role_with_the_rights_of_the_docs_can_search_and_write_nothing(
    immich_database: Database, library: Library
) -> None:
    asset = library.upload()
    library.read(asset, ["发票"])
    library.embed(asset, [1.0] + [0.0] * 511)
    asyncio.run(sync(immich_database))
    connection = library.connection
    with connection.transaction(force_rollback=True):  # roles belong to the whole server
        connection.execute(SEARCH_RIGHTS)
        connection.execute("SET LOCAL ROLE bento")
        connection.execute("SET LOCAL search_path TO immich_ai, public")
        for view in (
            "source_asset",
            "source_embedding",
            "source_line",
            "source_read",
            "source_digest",
            "source_document",
            "ocr_document",
        ):
            connection.execute(f"SELECT * FROM immich_ai.{view}")
        assert lines_of(library, asset) == ["发票"]
        for search in SEARCHES:
            connection.execute(search)
        assert connection.execute(SEARCHES[0]).fetchall()[0][0] == asset
        for statement in (
            "DELETE FROM asset_ocr",
            "DELETE FROM immich_ai.ocr_document",
            "SELECT immich_ai.drop_deleted()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)


def test_a_role_with_the_rights_of_the_docs_can_follow_immich(immich_database: Database, library: Library) -> None:
    library.read(library.upload(), ["发票"])
    with library.connection.transaction(force_rollback=True):
        library.connection.execute(SEARCH_RIGHTS + SYNC_RIGHTS)
        library.connection.execute("SET LOCAL ROLE bento")
        library.connection.execute("SELECT immich_ai.drop_deleted()")
        library.connection.execute(
            "INSERT INTO immich_ai.ocr_document (asset_id, text, folded, cut)"
            " SELECT asset_id, lines[1], lines[1], lines[1] FROM immich_ai.source_document"
        )
        library.connection.execute("UPDATE immich_ai.ocr_document SET text = text")


def test_the_fork_has_its_lines_in_a_document(fork_database: Database) -> None:
    library = Library(fork_database.conninfo, assets="assets")
    asset, plain, empty, odd = (library.upload() for _ in range(4))
    library.read_by_the_fork(asset, ["第一行", "second"])
    library.read_by_the_fork(plain, ["one text"], json="[]")
    library.read_by_the_fork(empty, [])
    library.read_by_the_fork(odd, ["x"], json='{"texts": ["x", "y"], "scores": ["bad"]}')
    assert [lines_of(library, one) for one in (asset, plain, empty, odd)] == [
        ["第一行", "second"],
        ["one text"],
        [],
        ["x", "y"],
    ]
    scores = library.connection.execute(
        "SELECT text_score FROM immich_ai.source_line WHERE asset_id IN (%s, %s)", (asset, odd)
    ).fetchall()
    assert sorted(scores, key=str) == [(pytest.approx(0.98),), (pytest.approx(0.98),), (None,), (None,)]
    assert len(library.connection.execute("SELECT * FROM immich_ai.source_asset WHERE visible").fetchall()) == 4
    library.close()
