"""Texts of an owner who has a small part of the library: the same are found, without a look at all that match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from search.query.alternatives import alternatives_json
from search.query.parse import parse
from search.store.database import Database
from search.store.lexicon import sounds
from tests.search.query.test_plans import calls, pages

_PICTURES = {"ann": 2900, "eve": 60}
_QUERIES = [
    "passport", "visa", "invoice", "pasport", "visa passport", "visa or passport", "visa -passport", '"visa card"',
    "port", "发票", "发 票", "发票 or visa", "nothing", "word7 visa", "card.", "12,5",
]  # fmt: skip


@pytest.fixture
def library(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Store texts of two owners: ``invoice`` in each, ``passport`` in every fourth, ``visa`` in every ninth."""
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("SET search_path TO immich_ai, public")
        for owner, count in _PICTURES.items():
            connection.execute(
                "INSERT INTO asset (owner, uri, kind, size, modified, content_hash)"
                " SELECT %s, n, 'image', 1, now(), '' FROM generate_series(1, %s) n",
                (owner, count),
            )
        connection.execute(
            "INSERT INTO ocr_document (asset_id, text, folded, cut) SELECT id, t, t, t FROM (SELECT id, concat_ws(' ',"
            " 'invoice', CASE WHEN n % 4 = 0 THEN 'passport' END, CASE WHEN n % 9 = 0 THEN 'visa card' END,"
            " CASE WHEN n % 5 = 0 THEN '发票' END, 'word' || n % 40, '12.5') AS t"
            " FROM (SELECT id, uri::integer AS n FROM asset) a) x"
        )
        connection.execute(
            "INSERT INTO word (word, sounds) VALUES ('passport', %s) ON CONFLICT DO NOTHING", (sounds("passport"),)
        )
        connection.execute("VACUUM ANALYZE")
        yield connection


def hits(connection: psycopg.Connection[Any], query: str, owner: str | None) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "SELECT f.asset_id, f.score, f.exact, a.owner FROM ocr_search(%s::jsonb, %s, 5000) f "
        "JOIN asset a ON a.id = f.asset_id ORDER BY 1",
        (alternatives_json(parse(query), "jieba"), owner),
    )
    return rows.fetchall()


def test_who_has_a_small_part_is_told_by_some_pictures(library: psycopg.Connection[Any]) -> None:
    asked = "SELECT has_small_part('eve'), has_small_part('ann'), has_small_part('nobody'), has_small_part(NULL)"
    assert library.execute(asked).fetchone() == (True, False, True, False)


def test_the_same_is_found_as_in_everybodys(library: psycopg.Connection[Any]) -> None:
    for query in _QUERIES:
        everybodys, found = hits(library, query, None), hits(library, query, "eve")
        assert {hit[-1] for hit in found} <= {"eve"}, query
        if len(everybodys) == 1000:
            continue  # not all of everybody's were looked at
        expected = [hit for hit in everybodys if hit[-1] == "eve"]
        assert [hit for hit in found if hit[2]] == [hit for hit in expected if hit[2]], query
        # Near ones are looked for where there are few others, which one person has sooner than all together.
        assert {hit[0] for hit in expected} <= {hit[0] for hit in found}, query
    assert len(hits(library, "passport", "eve")) == 15
    assert len(hits(library, "pasport", "eve")) == 15, "one letter is missing"
    assert len(hits(library, "visa -passport", "eve")) == 5


def test_the_texts_of_others_are_not_looked_at(library: psycopg.Connection[Any]) -> None:
    few = pages(library, "passport", "eve")
    assert few * 3 < pages(library, "passport", "ann")
    library.execute("DROP INDEX ocr_document_owner")
    assert pages(library, "passport", "eve") > few * 2


def test_a_person_without_pictures_finds_nothing(library: psycopg.Connection[Any]) -> None:
    assert hits(library, "passport", "nobody") == []


def test_no_grams_are_computed_where_the_owner_is_thought_to_have_few_pictures(
    library: psycopg.Connection[Any],
) -> None:
    # The statistics leave out names of more than 1,024 bytes, and so take everybody else's share for small.
    library.execute("UPDATE asset SET owner = %s WHERE owner = 'ann'", ("海" * 400,))
    library.execute("REINDEX INDEX ocr_document_owner")
    library.execute("VACUUM ANALYZE")
    library.execute("SET track_functions = 'all'")
    for query in ("zanzibar", "visa", "word7 visa", "zanzibar passport", "pasport"):
        hits(library, query, "eve")  # makes the plans
        made = calls(library, query, "immich_ai.ocr_search(%s::jsonb, 'eve')")
        assert made["ocr_search"] == 1
        assert made.get("grams", 0) <= 10, query
