"""What Immich is set to, as it keeps that in its own database."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from search.immich.settings import immich_settings
from search.store.database import Database
from tests.search.conftest import HERE


@pytest.mark.parametrize(("stored", "read"), [("1000", 1000), ("1", 1), ("10000", 10_000), ("99999999", 10_000)])
def test_any_size_that_immich_allows_is_taken_within_bounds(immich_database: Database, stored: str, read: int) -> None:
    with psycopg.connect(immich_database.conninfo, autocommit=True) as connection:
        connection.execute((HERE / "immich" / "tables_3_1.sql").read_bytes())
        connection.execute(
            "INSERT INTO public.system_metadata VALUES ('system-config', jsonb_build_object('machineLearning',"
            " jsonb_build_object('ocr',"
            " jsonb_build_object('modelName', 'PP-OCRv5_server', 'maxResolution', %s::bigint))))",
            (stored,),
        )

    async def settings() -> tuple[str, int]:
        async with immich_database.connection() as connection:
            found = await immich_settings(connection)
        return found.ocr_model, found.ocr_options.max_resolution

    assert asyncio.run(settings()) == ("PP-OCRv5_server", read)
