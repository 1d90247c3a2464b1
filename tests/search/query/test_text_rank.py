"""Ranks of texts have nothing of pictures that the searcher cannot see: neither a place nor a number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import psycopg
import pytest

from search.query.parse import parse
from search.query.text_rank import rank_texts
from search.query.timeline import Timeline
from search.store.database import Database
from tests.search.immich.library import Library
from tests.search.query.finding import owner_id, put

ANN, BOB = owner_id("ann"), owner_id("bob")


def ranked(
    database: Database, query: str, timeline: Timeline, *, within: Sequence[UUID] | None = None, most: int = 100
) -> list[UUID]:
    work = rank_texts(database, parse(query), timeline, within=within, most=most, seconds=30)
    return [one.id for one in asyncio.run(work)]


def write(database: Database, names: Sequence[str], owner: str, line: str, visibility: str = "timeline") -> list[UUID]:
    async def work() -> list[UUID]:
        ids = [await put(database, name, [line], owner=owner) for name in names]
        async with database.connection() as connection:
            await connection.execute(
                "update public.asset set visibility = %s::public.asset_visibility_enum where id = any (%s)",
                (visibility, ids),
            )
        return ids

    return asyncio.run(work())


@pytest.mark.parametrize("visibility", ["archive", "locked", "hidden"])
def test_what_a_partner_has_off_the_timeline_takes_no_place(immich_database: Database, visibility: str) -> None:
    (own,) = write(immich_database, ["own"], ANN, "rankword and much else besides")
    (shown,) = write(immich_database, ["shown"], BOB, "rankword and more")
    hidden = write(immich_database, ["hidden"], BOB, "rankword", visibility)
    assert ranked(immich_database, "rankword", Timeline(ANN, (BOB,))) == [shown, own]
    assert ranked(immich_database, "rankword", Timeline(ANN, (BOB,)), most=1) == [shown]
    assert (ranked(immich_database, "rankword", Timeline(BOB))[0] == hidden[0]) is (visibility == "archive")
    assert ranked(immich_database, "rankword", Timeline(ANN)) == [own]


def test_what_a_partner_has_off_the_timeline_does_not_hide_what_is_almost_right(immich_database: Database) -> None:
    timeline = Timeline(ANN, (BOB,))
    (almost,) = write(immich_database, ["almost"], BOB, "restaurent")
    before = ranked(immich_database, "restaurant", timeline)
    write(immich_database, [f"archived-{n}" for n in range(25)], BOB, "restaurant", "archive")
    write(immich_database, ["archived almost"], BOB, "restaurent", "archive")
    assert ranked(immich_database, "restaurant", timeline) == before == [almost]


def test_within_given_pictures_nothing_else_is_found(immich_database: Database) -> None:
    theirs, elsewhere = write(immich_database, ["theirs", "elsewhere"], BOB, "invoice")
    (almost,) = write(immich_database, ["almost"], ANN, "invoise")
    write(immich_database, [f"more-{n}" for n in range(25)], ANN, "invoice")
    assert ranked(immich_database, "invoice", Timeline(ANN, (BOB,)), within=(theirs, almost)) == [theirs, almost]
    assert ranked(immich_database, "invoice", Timeline(ANN), within=()) == []
    assert elsewhere in ranked(immich_database, "invoice", Timeline(ANN, (BOB,)))


def test_what_a_partner_has_archived_keeps_nothing_else_from_being_found(immich_database: Database) -> None:
    """Of a word in many texts, 1000 are ranked: those of a partner that are shown."""
    with psycopg.connect(immich_database.conninfo) as connection:
        connection.execute(
            'insert into public.asset (id, "ownerId", "originalFileName", "localDateTime", visibility)'
            " select gen_random_uuid(), %s, 'archived ' || n, now(), 'archive' from generate_series(1, 1100) n",
            (BOB,),
        )
        connection.execute(
            "insert into immich_ai.ocr_document (asset_id, text, folded, cut)"
            " select id, 'manifold', 'manifold', 'manifold' from public.asset"
        )
    (shown,) = write(immich_database, ["shown"], BOB, "manifold and much else besides")
    assert ranked(immich_database, "manifold", Timeline(ANN, (BOB,))) == [shown]


def test_the_forks_older_table_is_asked_too(fork_database: Database) -> None:
    library = Library(fork_database.conninfo, "assets")
    try:
        shown, archived = library.upload(), library.upload(visibility="archive")
    finally:
        library.close()
    with psycopg.connect(fork_database.conninfo) as connection:
        found = connection.execute("select id, visible, on_timeline from immich_ai.source_asset").fetchall()
    assert sorted(found) == sorted([(shown, True, True), (archived, True, False)])
