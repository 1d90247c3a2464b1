"""search.store.refresh: documents of earlier versions are made anew, in both sources, once and in pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from search.store import refresh as refresh_module
from search.store.database import Database
from search.store.refresh import refresh
from tests.search.query.finding import found, names, put

OLD = """
update immich_ai.ocr_document set folded = lower(text), cut = lower(text), pieces = '{}', form = 0;
"""


@pytest.mark.parametrize("source", ["database", "immich_database"])
def test_old_documents_are_made_anew(
    request: pytest.FixtureRequest, postgresql: object, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: Database = request.getfixturevalue(source)
    monkeypatch.setattr(refresh_module, "_BATCH", 2)

    async def execute(*statements: str) -> None:
        async with database.connection() as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def story() -> list[Any]:
        for number in range(4):
            await put(database, f"other-{number}", ["nothing"])
        await put(database, "receipt", ["Café", "¥1,280.00", "增值税发票"])
        await put(database, "empty", [])
        await execute(OLD, "delete from immich_ai.word")
        return [await refresh(database), await refresh(database)]

    assert asyncio.run(story()) == [6, 0]
    for query in ("cafe", "1280", "fapiao"):
        assert names(found(database, f"ocr:{query}")) == ["receipt"]


def test_lines_that_go_on_are_joined_from_the_corners_that_immich_keeps(immich_database: Database) -> None:
    async def story() -> None:
        await put(immich_database, "notice", ["今天上午停水请各位业", "主提前储水感谢支持的"])
        async with immich_database.connection() as connection:
            await connection.execute(OLD.encode())
            await connection.execute(
                "update public.asset_ocr set x1 = 0.1, x4 = 0.1, x2 = 0.4, x3 = 0.4, y1 = top, y2 = top,"
                " y3 = top + 0.03, y4 = top + 0.03 from"
                " (select id as line, 0.06 + 0.04 * row_number() over (order by y1) as top"
                " from public.asset_ocr) o where id = line"
            )
        await refresh(immich_database)

    asyncio.run(story())
    (hit,) = found(immich_database, "ocr:业主").hits
    assert [(line.n, line.text[slice(*line.spans[0])]) for line in hit.lines] == [(1, "业"), (2, "主")]
