"""Nobody is shown another's picture, nor one that is in the trash, hidden or locked: in all modes, over both
sources.
"""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.query.answers import Mode
from search.query.timeline import Timeline
from search.store.database import Database
from search.store.source import Source
from tests.search.query.finding import MODEL, direction, embedding, found, id_of, names, owner_id, put

PEOPLE = ("ann", "bob", "cid")
QUERIES = ["发票", "票", "ocr:发票 or re16", "ocr:RE16", "re", '"发票 re16"', "发票 -上海", "上海"]


def owner_of(name: str) -> str:
    return name.split("-")[0]


@pytest.fixture(params=["database", "immich_database"])
def shared(request: pytest.FixtureRequest, postgresql: object) -> Database:
    """Store fifteen pictures of each of three people; Immich's with some that must not be seen."""
    database: Database = request.getfixturevalue(request.param)

    async def write() -> None:
        for person_number, person in enumerate(PEOPLE):
            for number in range(15):
                lines = ["发票 RE16", "上海" if number % 2 else "北京"] if number % 3 else None
                await put(
                    database,
                    f"{person}-{number}",
                    lines,
                    direction(1, number / 30, person_number / 10),
                    owner_id(person),
                )
        async with database.connection() as connection:
            if database.source is Source.STANDALONE:
                await connection.execute("select immich_ai.index_embeddings(%s, 512)", (MODEL,))
                return
            for number, change in (
                (1, '"deletedAt" = now()'),
                (2, "visibility = 'hidden'"),
                (4, "visibility = 'locked'"),
            ):
                await connection.execute(
                    f"update public.asset set {change} where id = %s".encode(), (id_of(f"ann-{number}"),)
                )

    asyncio.run(write())
    return database


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.sampled_from(QUERIES),
    mode=st.sampled_from(Mode),
    person=st.sampled_from([*PEOPLE, "nobody"]),
    limit=st.integers(1, 100),
    towards=st.floats(-1, 1),
)
def test_no_query_of_one_owner_shows_anothers_picture(
    shared: Database, query: str, mode: Mode, person: str, limit: int, towards: float
) -> None:
    page = found(shared, query, mode, embed=embedding(direction(1, 0.2, towards)), owner=owner_id(person), limit=limit)
    assert {owner_of(name) for name in names(page)} <= {person}
    if person == "nobody":
        assert not page.hits
    elif mode in (Mode.CLIP, Mode.HYBRID):
        assert len(page.hits) >= min(limit, 12)


@pytest.mark.parametrize("mode", list(Mode))
def test_several_people_are_searched_as_one(shared: Database, mode: Mode) -> None:
    """What two people find together is what everybody finds, without the others. Fused lists are in another order,
    since the places in both lists are counted without the others too.
    """
    towards = embedding(direction(1, 0.2))
    timeline = Timeline(owner_id("ann"), (owner_id("cid"),))
    both = names(found(shared, "发票", mode, embed=towards, timeline=timeline, limit=100))
    everybody = names(found(shared, "发票", mode, embed=towards, limit=100))
    theirs = [name for name in everybody if owner_of(name) in ("ann", "cid")]
    assert both == theirs if mode in (Mode.OCR, Mode.CLIP) else sorted(both) == sorted(theirs)
    assert {owner_of(name) for name in both} == {"ann", "cid"}


@pytest.mark.parametrize("mode", list(Mode))
def test_pictures_in_the_trash_hidden_or_locked_are_not_shown(shared: Database, mode: Mode) -> None:
    page = found(shared, "发票", mode, embed=embedding(direction(1)), owner=owner_id("ann"), limit=100)
    unseen = {"ann-1", "ann-2", "ann-4"}
    if shared.source is Source.STANDALONE:
        assert unseen <= set(names(page))
    else:
        assert page.hits
        assert not unseen & set(names(page))


def test_everybody_means_everybody(shared: Database) -> None:
    page = found(shared, "发票", embed=embedding(direction(1)), limit=100)
    assert {owner_of(name) for name in names(page)} == set(PEOPLE)


def test_an_owner_of_few_and_of_many_pictures_finds_the_same(database: Database) -> None:
    """A search starts at the owner's pictures, or at the texts that match."""
    query = """
    SELECT asset_id, score, exact
    FROM immich_ai.text_candidates(immich_ai.asked(%(alternative)s::jsonb), 'ann', %(owned)s::uuid[], 1000) ORDER BY 1
    """
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("SET search_path TO immich_ai, public")
        connection.execute(
            "INSERT INTO immich_ai.asset (owner, uri, kind, size, modified, content_hash)"
            " SELECT o, o || n, 'image', 1, now(), '' FROM generate_series(1, 20) n, unnest(ARRAY['ann', 'bob']) o"
        )
        connection.execute(
            "INSERT INTO immich_ai.ocr_document (asset_id, text, folded, cut) SELECT id, t, t, t FROM"
            " (SELECT id, 'invoice a-' || length(uri) || ' total ' || uri AS t FROM immich_ai.asset) x"
        )
        owned = connection.execute("SELECT array_agg(id) FROM immich_ai.asset WHERE owner = 'ann'").fetchone()
        assert owned is not None
        for wanted, unwanted, words in (
            (["invoice"], [], ["'invoice'"]),
            (["voic"], [], ["'voic'"]),
            (["total", "invoice"], ["a-4"], ["'total'", "'invoice'"]),
            (["a"], [], ["'a'"]),
        ):
            values = {"alternative": json.dumps({"all": wanted, "none": unwanted, "words": words})}
            few = connection.execute(query, values | {"owned": owned[0]}).fetchall()
            assert few == connection.execute(query, values | {"owned": None}).fetchall()
            assert bool(few) is (wanted != ["a"])
