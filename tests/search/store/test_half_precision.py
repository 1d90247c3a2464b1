"""The index of vectors in half precision: made of what there was, used by searches, and as exact as they were."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict

from search.store.migrations import FOLDER, migrate

if TYPE_CHECKING:
    from tests.search.conftest import Server

MODEL, SIZE, COUNT = "a model", 16, 3000
_EXACT = """
SELECT asset_id, 1 - (vector <=> %s) AS similarity FROM immich_ai.embedding WHERE model = %s
ORDER BY vector <=> %s, asset_id LIMIT 20
"""


@pytest.fixture
def older(postgresql: Server, tmp_path: Path) -> Iterator[str]:
    """Yield the conninfo of a database of before, with an index in full precision over 3,000 vectors of a model."""
    conninfo = postgresql.empty()
    for path in FOLDER.glob("*.sql"):
        if path.stem < "0015":
            shutil.copy(path, tmp_path)
    migrate(conninfo, tmp_path)
    random = np.random.default_rng(0)
    with connected(conninfo) as connection, connection.cursor() as cursor:
        ids = [UUID(bytes=random.bytes(16)) for _ in range(COUNT)]
        with cursor.copy(
            "COPY immich_ai.asset (id, owner, uri, kind, size, modified, content_hash) FROM STDIN"
        ) as copy:
            for asset in ids:
                copy.write_row((asset, "ann", f"/{asset}", "image", 1, "2026-01-01", b""))
        cursor.executemany(
            "INSERT INTO immich_ai.embedding VALUES (%s, %s, %s)",
            [(asset, MODEL, random.standard_normal(SIZE, np.float32)) for asset in ids],
        )
        cursor.execute("SELECT immich_ai.index_embeddings(%s, %s)", (MODEL, SIZE))
    yield conninfo
    postgresql.drop(str(conninfo_to_dict(conninfo)["dbname"]))


def connected(conninfo: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(conninfo, autocommit=True)
    connection.execute("SET search_path TO immich_ai, public")
    register_vector(connection)
    return connection


def indexes(connection: psycopg.Connection[Any]) -> list[str]:
    found = connection.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'embedding' AND strpos(indexdef, 'hnsw') > 0"
    )
    return [definition for (definition,) in found.fetchall()]


def digest(connection: psycopg.Connection[Any]) -> Any:
    return connection.execute(
        "SELECT count(*), md5(string_agg(e::text, ',' ORDER BY asset_id)) FROM immich_ai.embedding e"
    ).fetchone()


def searched(connection: psycopg.Connection[Any], query: Any) -> list[tuple[UUID, float]]:
    rows = connection.execute(
        "SELECT asset_id, similarity FROM immich_ai.clip_search(%s, %s, NULL, 20) ORDER BY rank", (query, MODEL)
    )
    return [(asset, similarity) for asset, similarity in rows.fetchall()]


def test_an_upgrade_makes_the_index_anew_and_leaves_all_vectors(older: str) -> None:
    with connected(older) as connection:
        (before,), kept = indexes(connection), digest(connection)
        assert "vector(16)" in before
        migrate(older)
        (after,) = indexes(connection)
        assert "halfvec(16)" in after
        assert digest(connection) == kept


def test_what_is_found_is_in_the_order_of_the_vectors_themselves(older: str) -> None:
    migrate(older)
    with connected(older) as connection:
        found, expected = 0, 0
        for query in np.random.default_rng(1).standard_normal((10, SIZE), np.float32):
            exact = dict(connection.execute(_EXACT, (query, MODEL, query)).fetchall())
            answers = searched(connection, query)
            similarities = [similarity for _, similarity in answers]
            assert similarities == sorted(similarities, reverse=True)
            for asset, similarity in answers:
                assert exact.get(asset, similarity) == pytest.approx(similarity, abs=1e-6)
            found, expected = found + len(exact.keys() & dict(answers).keys()), expected + len(exact)
        assert found >= 0.95 * expected
        connection.execute("SELECT pg_stat_force_next_flush()")
        (used,) = connection.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE strpos(indexrelname, 'embedding_half') > 0"
        ).fetchall()
        assert used[0] >= 10


def test_another_size_takes_the_place_of_the_index(older: str) -> None:
    migrate(older)
    with connected(older) as connection:
        connection.execute("DELETE FROM immich_ai.embedding")
        connection.execute("SELECT immich_ai.index_embeddings(%s, 3)", (MODEL,))
        (only,) = indexes(connection)
        assert "halfvec(3)" in only
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="1 to 2000"):
            connection.execute("SELECT immich_ai.index_embeddings(%s, 2001)", (MODEL,))


def test_a_pgvector_without_halves_keeps_full_precision_until_it_is_newer(older: str) -> None:
    with connected(older) as connection:
        connection.execute("ALTER TYPE halfvec RENAME TO not_yet")
        migrate(older)
        (kept,) = indexes(connection)
        assert "vector(16)" in kept
        query = np.ones(SIZE, np.float32)
        before = searched(connection, query)
        assert len(before) == 20
        connection.execute("ALTER TYPE not_yet RENAME TO halfvec")
        connection.execute("SELECT immich_ai.index_embeddings(%s, %s)", (MODEL, SIZE))
        (newer,) = indexes(connection)
        assert "halfvec(16)" in newer
        assert len({asset for asset, _ in before} & {asset for asset, _ in searched(connection, query)}) >= 18
