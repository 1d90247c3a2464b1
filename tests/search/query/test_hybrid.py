"""Both lists in one order: fusion, exact hits among the first ten, and answers without CLIP."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import ErrorCode, ModelUnavailable, ServiceError
from search.query.answers import Mode
from search.store.database import Database
from search.store.records import Vector
from settings import Settings
from tests.search.query.finding import MODEL, direction, embedding, found, names, put

RRF = Settings(search_fusion="rrf")


def test_ranks_are_fused_by_their_reciprocals_and_both_parts_are_told(database: Database) -> None:
    async def write() -> None:
        await put(database, "both", ["the word dog here in a longer line"], direction(1, 0.5))
        await put(database, "text", ["dog"], direction(0, 0, 1))
        await put(database, "dog", None, direction(1, 0.1))

    asyncio.run(write())
    page = found(database, "dog", embed=embedding(direction(1)), config=RRF)
    assert page.mode is Mode.HYBRID
    assert not page.notes
    by_name = {hit.name: hit for hit in page.hits}
    both = by_name["both"]
    assert both.ocr is not None
    assert both.clip is not None
    assert (both.ocr.rank, both.clip.rank) == (2, 2)
    assert both.score == pytest.approx(1 / 62 + 1 / 62)
    assert by_name["dog"].score == pytest.approx(1 / 61)
    assert by_name["text"].score == pytest.approx(1 / 61 + 1 / 63)


def test_weights_and_the_weighted_sum_are_followed(database: Database) -> None:
    async def write() -> None:
        await put(database, "text", ["dog"])
        await put(database, "dog", None, direction(1))

    asyncio.run(write())
    embed = embedding(direction(1))
    assert names(found(database, "dog", embed=embed, config=Settings(search_clip_weight=2))) == ["dog", "text"]
    assert names(found(database, "dog", embed=embed, config=Settings(search_ocr_weight=2))) == ["text", "dog"]
    weighted = found(
        database,
        "dog",
        embed=embed,
        config=Settings(search_fusion="weighted", search_clip_weight=0.5, search_ocr_weight=0.25),
    )
    by_name = {hit.name: hit for hit in weighted.hits}
    assert by_name["dog"].score == pytest.approx(0.5, abs=1e-5)
    text = by_name["text"].ocr
    assert text is not None
    assert by_name["text"].score == pytest.approx(0.25 * text.score)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fusion=st.sampled_from(["rrf", "weighted"]),
    clip_weight=st.sampled_from([0, 5e-324, 0.3, 1, 100, 1e308]),
    ocr_weight=st.sampled_from([0, 5e-324, 0.01, 1, 1e308]),
    query=st.sampled_from(["红色 or 绿色", "发票", "發票", "收据 -x", "色"]),
)
def test_an_exact_hit_is_never_below_the_tenth_place(
    library: Database, fusion: str, clip_weight: float, ocr_weight: float, query: str
) -> None:
    config = Settings(search_fusion=fusion, search_clip_weight=clip_weight, search_ocr_weight=ocr_weight)
    page = found(library, query, Mode.HYBRID, embed=embedding(direction(1, 0.3)), config=config, limit=100)
    places = [place for place, hit in enumerate(page.hits, start=1) if hit.ocr is not None and hit.ocr.exact]
    assert len(page.hits) > 40
    assert places
    assert len(places) <= 10
    assert max(places) <= 10
    again = found(library, query, Mode.HYBRID, embed=embedding(direction(1, 0.3)), config=config, limit=7)
    assert names(again) == names(page)[:7]


@pytest.fixture
def library(database: Database) -> Database:
    """Store forty pictures that mean what is asked for; among them, texts that have it and texts that almost do."""

    async def write() -> None:
        for number in range(40):
            lines = ["发货", "票根"] if number % 3 == 0 else ["收到", "据说 RE 16"] if number % 3 == 1 else None
            await put(database, f"near-{number}", lines, direction(1, number / 100))
        for number in range(9):
            await put(
                database,
                f"exact-{number}",
                ["长" * number + "发票", "RE16", "收据", "红色" if number else "绿色"],
                direction(-1, number),
            )

    asyncio.run(write())
    return database


def test_without_clip_text_answers_and_says_so(database: Database) -> None:
    asyncio.run(put(database, "text", ["发票"]))

    async def broken(text: str) -> Vector:
        raise ModelUnavailable("The weights cannot be had.")

    for embed in (None, broken):
        page = found(database, "发票", embed=embed)
        assert names(page) == ["text"]
        assert page.mode is Mode.OCR
        assert [note.code for note in page.notes] == [ErrorCode.MODEL_UNAVAILABLE]
        with pytest.raises(ServiceError) as refused:
            found(database, "发票", Mode.CLIP, embed=embed)
        assert refused.value.code is ErrorCode.MODEL_UNAVAILABLE


def test_the_functions_can_be_called_by_a_person(database: Database) -> None:
    async def ask() -> list[str]:
        await put(database, "text", ["发票 2024", "上海"], direction(1))
        await put(database, "other", ["发票 2023", "上海"], direction(0, 1))
        async with database.connection() as connection:
            cursor = await connection.execute(
                """
                select a.name from immich_ai.ocr_search('[{"all": ["发票", "上海"], "none": ["2023"]}]') f
                join immich_ai.source_asset a on a.id = f.asset_id
                """
            )
            by_text = [row["name"] for row in await cursor.fetchall()]
            cursor = await connection.execute(
                """
                select a.name from immich_ai.clip_search((select vector from immich_ai.embedding order by vector desc
                limit 1), %s) f
                join immich_ai.source_asset a on a.id = f.asset_id order by f.rank
                """,
                (MODEL,),
            )
            return [*by_text, *(row["name"] for row in await cursor.fetchall())]

    assert asyncio.run(ask()) == ["text", "text", "other"]
