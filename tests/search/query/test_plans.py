"""What a search looks at: the smaller side first, each thing worked out once, and the second look only where it is due.

Counted in calls of functions and in pages, never in time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.query.alternatives import alternatives_json
from search.query.answers import Mode, SearchRequest
from search.query.find import find
from search.query.parse import parse
from search.store.database import Database, examine
from search.store.documents import searched
from settings import Settings

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_PICTURES = {"ann": 1400, "eve": 10}
_FILLER = " ".join(f"word{n}" for n in range(40))


@pytest.fixture
def library(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Store pictures of two owners: `invoice` is in each text, `passport` in one of a thousand."""
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("SET search_path TO immich_ai, public")
        for owner, count in _PICTURES.items():
            connection.execute(
                "INSERT INTO immich_ai.asset (owner, uri, kind, size, modified, content_hash)"
                " SELECT %s, n, 'image', 1, now(), '' FROM generate_series(1, %s) n",
                (owner, count),
            )
        connection.execute(
            "INSERT INTO immich_ai.ocr_document (asset_id, text, folded, cut) SELECT id, '', t, t FROM ("
            " SELECT id, 'invoice ' || CASE WHEN uri::integer %% 1000 = 7 THEN 'passport' ELSE %s END AS t"
            " FROM immich_ai.asset) x",
            (_FILLER,),
        )
        connection.execute("VACUUM ANALYZE")
        yield connection


def pages(connection: psycopg.Connection[Any], query: str, owner: str | None) -> int:
    """Return how many pages a search of texts looks at, once its plans are made."""
    statement = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM immich_ai.ocr_search(%s::jsonb, %s)"
    values = (alternatives_json(parse(query), "jieba"), owner)
    connection.execute(statement, values)
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def calls(
    connection: psycopg.Connection[Any], query: str, search: LiteralString = "immich_ai.ocr_search(%s::jsonb)"
) -> dict[str, int]:
    """Return how often a search of everybody's texts calls our functions."""
    counted = "SELECT funcname, calls FROM pg_stat_xact_user_functions"
    with connection.transaction():
        before = dict(connection.execute(counted).fetchall())
        connection.execute(f"SELECT * FROM {search}", (alternatives_json(parse(query), "jieba"),))
        after = dict(connection.execute(counted).fetchall())
    return {name: count - before.get(name, 0) for name, count in after.items()}


def starts_at_pictures(connection: psycopg.Connection[Any], query: str, owner: str) -> bool:
    row = connection.execute(
        "SELECT immich_ai.smaller_side(ARRAY(SELECT immich_ai.asked(a) FROM jsonb_array_elements(%s::jsonb) a), %s)"
        " IS NOT NULL",
        (alternatives_json(parse(query), "jieba"), owner),
    ).fetchone()
    assert row is not None
    return bool(row[0])


def test_a_search_starts_at_the_smaller_side(library: psycopg.Connection[Any]) -> None:
    common, rare = "invoice", "passport"
    assert starts_at_pictures(library, common, "eve")
    assert starts_at_pictures(library, common, "nobody")
    assert not starts_at_pictures(library, common, "ann")
    assert not starts_at_pictures(library, rare, "eve")
    few = pages(library, common, "eve")
    assert few * 10 < pages(library, common, "ann")
    for owner in (None, *_PICTURES):
        assert pages(library, rare, owner) < 200


def test_an_owner_who_plainly_has_many_pictures_is_told_without_a_look_at_the_texts(
    library: psycopg.Connection[Any],
) -> None:
    before = pages(library, "invoice", "ann"), pages(library, "passport", "eve")
    library.execute("UPDATE pg_class SET reltuples = 100000 WHERE oid = 'immich_ai.ocr_document'::regclass")
    assert pages(library, "invoice", "ann") < before[0]
    assert pages(library, "passport", "eve") == before[1]
    assert starts_at_pictures(library, "invoice", "eve")


def test_a_text_of_our_own_index_is_found_without_a_look_at_its_picture(library: psycopg.Connection[Any]) -> None:
    everybodys = pages(library, "invoice", None)
    assert everybodys < pages(library, "invoice", "ann") / 2
    library.execute("UPDATE immich_ai.ocr_document SET source_read_at = now()")
    assert pages(library, "invoice", None) > everybodys * 2


def test_a_text_of_immichs_is_not_found_in_our_own_index(library: psycopg.Connection[Any]) -> None:
    library.execute(
        "INSERT INTO immich_ai.ocr_document (asset_id, text, folded, cut, source_read_at, source_digest)"
        " SELECT gen_random_uuid(), 'visa', 'visa', 'visa', CASE WHEN n = 1 THEN now() END, CASE WHEN n = 2 THEN '' END"
        " FROM generate_series(1, 2) n"
    )
    found = "SELECT count(*) FROM immich_ai.ocr_search(%s::jsonb)"
    assert library.execute(found, (alternatives_json(parse("visa"), "jieba"),)).fetchone() == (0,)


def test_many_alternatives_and_many_words_look_at_few_pages(library: psycopg.Connection[Any]) -> None:
    # 125 texts of each alternative, with five pages for each text and its picture, and 100 of the indexes.
    assert pages(library, " or ".join(f"word{n}" for n in range(32)), None) < 32 * (125 * 5 + 100)
    assert pages(library, " ".join(f"word{n}" for n in range(40)), None) < 1000 * 5 + 40 * 100
    assert pages(library, " ".join(f"missing{n}" for n in range(40)), None) < 40 * 100


def test_what_is_asked_is_worked_out_once_and_the_second_look_is_taken_only_after_a_poor_first(
    database: Database,
) -> None:
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("SET search_path TO immich_ai, public")
        connection.execute("SET track_functions TO 'all'")
        connection.execute(
            "INSERT INTO immich_ai.asset (uri, kind, size, modified, content_hash)"
            " SELECT n, 'image', 1, now(), '' FROM generate_series(1, 30) n"
        )
        connection.execute(
            "INSERT INTO immich_ai.ocr_document (asset_id, text, folded, cut)"
            " SELECT id, '', 'invoice', 'invoice' FROM immich_ai.asset"
        )
        rich, poor = calls(connection, "invoice or passport"), calls(connection, "passport or visa")
    assert rich["asked"] == poor["asked"] == rich["text_candidates"] == poor["text_candidates"] == 2
    assert rich.get("near_candidates", 0) == 0
    assert poor["near_candidates"] == 2


def test_a_search_of_texts_alone_does_not_look_for_meanings(library: psycopg.Connection[Any]) -> None:
    library.execute("SET track_functions = 'all'")
    called = calls(library, "passport", "immich_ai.hybrid_search(%s::jsonb, NULL, NULL)")
    assert called["ocr_search"] == 1
    assert called.get("clip_search", 0) == 0


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    needle=st.text("发票上海a1-. ", min_size=1, max_size=8),
    more=st.lists(st.text("发票上海a1-. ", max_size=8), max_size=3),
)
def test_the_longest_grams_promise_all(database: Database, needle: str, more: list[str]) -> None:
    with psycopg.connect(database.conninfo) as connection:
        row = connection.execute(
            "SELECT immich_ai.longest_grams(%(needle)s), immich_ai.grams(%(needle)s), immich_ai.grams(%(text)s)",
            {"needle": needle, "text": "\n".join([*more, needle + "".join(more)])},
        ).fetchone()
    assert row is not None
    longest, all_of_them, of_text = row
    assert set(longest or ()) <= set(all_of_them)
    assert (longest is None) == (not all_of_them)
    if longest is not None and set(longest) <= set(of_text):
        assert set(all_of_them) <= set(of_text)


@given(st.lists(st.text("营业执照发票 re16a-10.2,é", max_size=30), max_size=5))
def test_a_word_of_a_text_stands_in_it(lines: list[str]) -> None:
    """Where a word is the needle itself, its grams find all that it finds, and the index of words is not asked."""
    made = searched(lines)
    assert [word for word in made.words if word[0] not in "=~" and word not in made.folded] == []


def test_only_grams_are_looked_up_where_the_needle_is_the_word(database: Database) -> None:
    with psycopg.connect(database.conninfo) as connection:
        for query, by_words, by_grams in (
            ("invoice", False, True),
            ("a-102", True, True),
            ("re", True, False),
            ("invoice re", True, False),
            ("1,280", True, True),
        ):
            (alternative, *_) = json.loads(alternatives_json(parse(query), "jieba"))
            row = connection.execute(
                "SELECT q.indexed_words IS NOT NULL, q.indexed_grams IS NOT NULL FROM immich_ai.asked(%s::jsonb) q",
                (json.dumps(alternative),),
            ).fetchone()
            assert row == (by_words, by_grams), query


def test_a_connection_plans_the_page_of_a_search_once(database: Database) -> None:
    counted = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE %(searching)s"

    async def plans() -> list[tuple[int, int]]:
        async with Database(database.conninfo, examine(database.conninfo, "auto", migrate=False)) as pooled:
            await pooled.open()
            for _ in range(60):
                await find(pooled, SearchRequest(q="invoice", mode=Mode.OCR), None, Settings())
            rows = await pooled.rows(counted, {"searching": "%hybrid_search%"})
            return [(row["generic_plans"], row["custom_plans"]) for row in rows]

    ((kept, made),) = asyncio.run(plans())
    assert kept > 0
    assert made == 0


def test_a_search_tells_its_connection_nothing_beside_the_answer(database: Database) -> None:
    """A notice is written, sent and read for each word: PostgreSQL gives one for a tsquery without words."""
    notices: list[str | None] = []

    def ask(query: str) -> None:
        connection.execute("SELECT immich_ai.ocr_search(%s::jsonb)", (alternatives_json(parse(query), "jieba"),))

    with psycopg.connect(database.conninfo) as connection:
        ask("invoice")  # plans are made
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        for query in ("invoice", "maintenence", "发票 合计", "票据号", "fapiao", "a-102 re"):
            ask(query)
    assert notices == []
