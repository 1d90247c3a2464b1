"""Text that an edit in Immich has cropped away is found no more, although the next sync has not come yet."""

from __future__ import annotations

import asyncio

import pytest

from search.query.answers import Mode
from search.store.database import Database
from tests.search.query.finding import direction, embedding, found, names, put

QUERIES = ["ocr:发票", '"发票 A-1"', "发票"]


def _change(database: Database, *statements: bytes) -> None:
    async def run() -> None:
        async with database.connection() as connection:
            for statement in statements:
                await connection.execute(statement)

    asyncio.run(run())


@pytest.fixture
def invoices(immich_database: Database) -> Database:
    async def write() -> None:
        await put(immich_database, "half", ["发票 A-1", "kept"], direction(0, 1))
        await put(immich_database, "whole", ["发票 A-1"], direction(1))
        await put(immich_database, "other", ["发票 A-1", "more"], direction(0, 1))

    asyncio.run(write())
    return immich_database


@pytest.mark.parametrize("query", QUERIES)
def test_pictures_without_the_line_are_not_found_by_it(invoices: Database, query: str) -> None:
    assert set(names(found(invoices, query, Mode.OCR))) == {"half", "whole", "other"}
    _change(
        invoices,
        b'UPDATE asset_ocr SET "isVisible" = false WHERE text LIKE \'%A-1\' AND "assetId" IN '
        b"(SELECT id FROM public.asset WHERE \"originalFileName\" IN ('half', 'whole'))",
    )
    assert names(found(invoices, query, Mode.OCR)) == ["other"]
    assert names(found(invoices, "ocr:kept", Mode.OCR)) == ["half"]


def test_one_that_is_found_by_its_meaning_stays(invoices: Database) -> None:
    _change(invoices, b"UPDATE public.asset_ocr SET \"isVisible\" = false WHERE text LIKE '%A-1'")
    hits = found(invoices, "发票", Mode.HYBRID, embed=embedding(direction(1))).hits
    assert hits
    assert all(hit.ocr is None and hit.clip is not None for hit in hits)


def test_pictures_that_immich_reads_anew_are_found_meanwhile(invoices: Database) -> None:
    """It empties the table before it fills it again."""
    _change(invoices, b"TRUNCATE asset_ocr")
    assert set(names(found(invoices, "ocr:发票"))) == {"half", "whole", "other"}
