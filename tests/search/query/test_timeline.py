"""Searches leave out what a partner has archived: it takes no place, shortens no list, and is no picture's like."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from search.query.answers import Hit, Mode
from search.query.similar import similar
from search.query.timeline import Timeline
from search.store.database import Database
from tests.search.query.finding import direction, embedding, found, id_of, owner_id, put

ANN, BOB = owner_id("ann"), owner_id("bob")
SEEN = Timeline(ANN, (BOB,))
TOWARDS = embedding(direction(1))


def put_all(database: Database, number: int, owner: str, *, visibility: str = "timeline", angle: float = 0.0) -> None:
    """Add pictures with the word 发票. ``angle``: how far their vectors are from that of the searches."""

    async def write() -> None:
        for n in range(number):
            name = f"{visibility}-{owner[:4]}-{n}"
            await put(database, name, ["发票"], direction(1, angle + n / 1000), owner)

    asyncio.run(write())
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute(
            'update public.asset set visibility = %s where "ownerId" = %s and "originalFileName" like %s',
            (visibility, owner, f"{visibility}-%"),
        )


def pages(database: Database, mode: Mode, limit: int) -> Sequence[tuple[Sequence[Hit], bool]]:
    """Return all pages of a search for Ann, and whether each has another behind it."""
    cursor, told = None, []
    while True:
        page = found(database, "发票", mode, embed=TOWARDS, timeline=SEEN, limit=limit, cursor=cursor)
        cursor = page.next_cursor
        told.append((page.hits, cursor is not None))
        if cursor is None:
            return told


@pytest.mark.parametrize("mode", list(Mode))
def test_a_search_answers_as_if_there_were_no_archive_of_partners(immich_database: Database, mode: Mode) -> None:
    put_all(immich_database, 3, ANN, angle=0.5)
    put_all(immich_database, 4, BOB, angle=0.4)
    before = pages(immich_database, mode, 2)
    put_all(immich_database, 70, BOB, visibility="archive")
    put_all(immich_database, 2, BOB, visibility="locked")
    assert pages(immich_database, mode, 2) == before
    assert sum(len(hits) for hits, _ in before) == 7


def test_ones_own_archive_is_searched(immich_database: Database) -> None:
    put_all(immich_database, 1, ANN, visibility="archive")
    assert [hit.id for hit in found(immich_database, "发票", embed=TOWARDS, timeline=SEEN).hits] == [
        id_of(f"archive-{ANN[:4]}-0")
    ]


@pytest.mark.parametrize("whose", [ANN, BOB])
def test_pictures_like_one_are_as_if_there_were_no_archive_of_partners(immich_database: Database, whose: str) -> None:
    put_all(immich_database, 4, ANN, angle=0.5)
    put_all(immich_database, 4, BOB, angle=0.4)
    one = id_of(f"timeline-{whose[:4]}-0")

    def alike(**more: Any) -> Sequence[Hit]:
        return asyncio.run(similar(immich_database, one, model=None, timeline=SEEN, most=more.get("most", 5)))

    before = alike()
    put_all(immich_database, 30, BOB, visibility="archive", angle=0.45)
    assert alike() == before
    assert len(before) == 5
