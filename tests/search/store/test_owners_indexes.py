"""An owner of a small part of a large library is searched by an index of his own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from search.store.database import Database
from tests.search.query.finding import MODEL

SIZE, AT_LEAST = 16, 200
PICTURES = {"ann": 1300, "bob": 250, "cid's": 100}
"""Of each owner: too many, enough, and too few for an index of their own."""


@pytest.fixture
def library(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection to an index of the pictures above, with vectors and the index over everybody's."""
    random = np.random.default_rng(0)
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("SET search_path TO immich_ai, public")
        register_vector(connection)
        with connection.cursor() as cursor:
            for owner, count in PICTURES.items():
                add(cursor, owner, [random.standard_normal(SIZE, np.float32) for _ in range(count)])
        connection.execute("SELECT index_embeddings(%s, %s)", (MODEL, SIZE))
        yield connection


def add(cursor: psycopg.Cursor[Any], owner: str, vectors: list[Any]) -> list[UUID]:
    """Add a picture of ``owner`` for each of ``vectors``; return their ids."""
    cursor.execute(
        "INSERT INTO asset (owner, uri, kind, size, modified, content_hash) "
        "SELECT %s, gen_random_uuid()::text, 'image', 1, '2026-01-01', '' FROM generate_series(1, %s) RETURNING id",
        (owner, len(vectors)),
    )
    ids: list[UUID] = [asset for (asset,) in cursor.fetchall()]
    cursor.executemany(
        "INSERT INTO embedding VALUES (%s, %s, %s)",
        [(asset, MODEL, vector) for asset, vector in zip(ids, vectors, strict=True)],
    )
    return ids


def owners(connection: psycopg.Connection[Any]) -> list[str]:
    """Make and drop indexes as is due; return whose there are."""
    connection.execute("SELECT index_owners(%s, %s)", (MODEL, AT_LEAST))
    found = connection.execute("SELECT indexname FROM pg_indexes WHERE starts_with(indexname, 'embedding_of_')")
    names = {name for (name,) in found.fetchall()}
    here = [owner for owner in PICTURES if name_of(connection, owner) in names]
    assert len(here) == len(names)
    return here


def keep(connection: psycopg.Connection[Any], owner: str, pictures: int) -> None:
    """Remove all but so many of the owner's pictures."""
    connection.execute(
        "DELETE FROM asset WHERE owner = %s AND id NOT IN (SELECT id FROM asset WHERE owner = %s LIMIT %s)",
        (owner, owner, pictures),
    )


def name_of(connection: psycopg.Connection[Any], owner: str) -> str:
    row = connection.execute("SELECT owners_index(%s, %s, %s)", (MODEL, SIZE, owner)).fetchone()
    assert row is not None
    return str(row[0])


def nearest(connection: psycopg.Connection[Any], query: Any, owner: str, most: int = 20) -> list[UUID]:
    rows = connection.execute(
        "SELECT asset_id FROM clip_search(%s, %s, %s, %s) ORDER BY rank", (query, MODEL, owner, most)
    )
    return [asset for (asset,) in rows.fetchall()]


def scans(connection: psycopg.Connection[Any], owner: str) -> int:
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s", (name_of(connection, owner),)
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_an_owner_of_some_thousand_pictures_gets_an_index_once(library: psycopg.Connection[Any]) -> None:
    assert owners(library) == ["bob"]
    before = library.execute("SELECT %s::regclass::oid", (name_of(library, "bob"),)).fetchone()
    assert owners(library) == ["bob"]
    assert library.execute("SELECT %s::regclass::oid", (name_of(library, "bob"),)).fetchone() == before


def test_his_pictures_are_found_by_it_and_nobody_elses(library: psycopg.Connection[Any]) -> None:
    queries = np.random.default_rng(1).standard_normal((20, SIZE), np.float32)
    exact = [nearest(library, query, "bob") for query in queries]
    assert owners(library) == ["bob"]
    before = scans(library, "bob")
    found = [nearest(library, query, "bob") for query in queries]
    assert scans(library, "bob") >= before + len(queries)
    assert sum(len(set(one) & set(other)) for one, other in zip(found, exact, strict=True)) >= 0.97 * 20 * len(queries)
    his = {asset for (asset,) in library.execute("SELECT id FROM asset WHERE owner = 'bob'")}
    assert all(set(ids) <= his and len(ids) == 20 for ids in found)


def test_pictures_that_come_and_go_are_in_it(library: psycopg.Connection[Any]) -> None:
    assert owners(library) == ["bob"]
    query = np.ones(SIZE, np.float32)
    with library.transaction(), library.cursor() as cursor:
        (new,) = add(cursor, "bob", [query])
        (other,) = add(cursor, "ann", [query])
    assert nearest(library, query, "bob")[0] == new
    assert nearest(library, query, "ann")[0] == other
    library.execute("DELETE FROM asset WHERE id = %s", (new,))
    assert new not in nearest(library, query, "bob")


def test_it_stays_near_the_limits_and_goes_when_he_has_hardly_any(library: psycopg.Connection[Any]) -> None:
    assert owners(library) == ["bob"]
    keep(library, "ann", 400)
    assert owners(library) == ["bob"], "a third of the library: near the limit"
    library.execute(
        "DELETE FROM asset WHERE owner = 'bob' AND id NOT IN (SELECT id FROM asset WHERE owner = 'bob' LIMIT 110)"
    )
    assert owners(library) == ["bob"], "fewer than would get him one"
    library.execute(
        "DELETE FROM asset WHERE owner = 'bob' AND id NOT IN (SELECT id FROM asset WHERE owner = 'bob' LIMIT 90)"
    )
    assert owners(library) == []


def test_it_goes_when_he_has_two_fifths_of_the_library(library: psycopg.Connection[Any]) -> None:
    assert owners(library) == ["bob"]
    keep(library, "ann", 250)
    assert owners(library) == []


def test_vectors_of_another_size_take_it_away(library: psycopg.Connection[Any]) -> None:
    assert owners(library) == ["bob"]
    library.execute("TRUNCATE embedding")
    library.execute("SELECT index_embeddings(%s, 3)", (MODEL,))
    assert owners(library) == []


def test_there_is_none_without_the_index_over_everybodys(library: psycopg.Connection[Any]) -> None:
    (drop,) = library.execute("SELECT format('DROP INDEX %%I', half_index(%s, %s))", (MODEL, SIZE)).fetchall()
    library.execute(drop[0])
    assert owners(library) == []


def test_a_role_that_may_only_write_passes_over_it(library: psycopg.Connection[Any]) -> None:
    library.execute("CREATE ROLE only_writes")
    library.execute("GRANT USAGE ON SCHEMA immich_ai, public TO only_writes")
    library.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA immich_ai TO only_writes")
    try:
        library.execute("SET ROLE only_writes")
        assert owners(library) == []
        library.execute("RESET ROLE")
        assert owners(library) == ["bob"]
        library.execute("SET ROLE only_writes")
        assert len(nearest(library, np.ones(SIZE, np.float32), "bob")) == 20
    finally:
        library.execute("RESET ROLE")
        library.execute("DROP OWNED BY only_writes")
        library.execute("DROP ROLE only_writes")
