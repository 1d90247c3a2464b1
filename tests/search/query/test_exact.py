"""Quoted phrases and exclusions, compared with a plain matcher over random texts and queries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.query.folding import fold
from search.store.database import Database
from tests.search.query.finding import Box, found, id_of, names, put

WORDS = ("page", "pages", "5", "55", "a-12", "12", "A", "发票", "上海", "票", "Café", "cafe", "50%", "don't", "x_y")
LINES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
TEXTS = st.lists(st.lists(LINES, min_size=1, max_size=3), min_size=1, max_size=8)
PHRASES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


def stands_in(phrase: str, text: str) -> bool:
    """Return whether ``phrase`` stands in ``text`` with no letter or digit right beside its own."""

    def goes_on(one: str, other: str) -> bool:
        return all(character.isalnum() and ord(character) < 0x2E80 for character in (one, other))

    return any(
        text.startswith(phrase, at)
        and not (at > 0 and goes_on(text[at - 1], phrase[0]))
        and not (at + len(phrase) < len(text) and goes_on(phrase[-1], text[at + len(phrase)]))
        for at in range(len(text))
    )


def matches(lines: Sequence[str], wanted: Sequence[str], unwanted: Sequence[str]) -> bool:
    folded = [fold(line) for line in lines]
    return all(any(stands_in(fold(phrase), line) for line in folded) for phrase in wanted) and not any(
        stands_in(fold(phrase), line) for phrase in unwanted for line in folded
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=TEXTS,
    wanted=st.lists(PHRASES, min_size=1, max_size=2, unique=True),
    unwanted=st.lists(PHRASES, max_size=2, unique=True),
)
def test_phrases_and_exclusions_are_what_a_plain_matcher_says(
    database: Database, texts: list[list[str]], wanted: list[str], unwanted: list[str]
) -> None:
    async def write() -> None:
        async with database.connection() as connection:
            await connection.execute("truncate immich_ai.asset, immich_ai.ocr_document cascade")
        for number, lines in enumerate(texts):
            await put(database, str(number), lines)

    asyncio.run(write())
    query = " ".join([*(f'"{phrase}"' for phrase in wanted), *(f'-"{phrase}"' for phrase in unwanted)])
    expected = [str(number) for number, lines in enumerate(texts) if matches(lines, wanted, unwanted)]
    assert sorted(names(found(database, f"ocr:{query}"))) == sorted(expected)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    line=st.text("天地玄黄宇宙洪荒日月盈昃", min_size=6, max_size=12),
    start=st.integers(0, 4),
    size=st.integers(1, 6),
)
def test_a_phrase_of_a_paragraph_is_found_wherever_its_lines_end(
    database: Database, line: str, start: int, size: int
) -> None:
    half = len(line) // 2
    lines = [line[:half], line[half : 2 * half]]
    boxes: list[Box] = [
        (0.1, top, 0.1 + 0.03 * half, top, 0.1 + 0.03 * half, top + 0.03, 0.1, top + 0.03) for top in (0.1, 0.14)
    ]
    phrase = line[: 2 * half][start : start + size]

    async def write() -> None:
        async with database.connection() as connection:
            await connection.execute("truncate immich_ai.asset, immich_ai.ocr_document cascade")
        await put(database, "paragraph", lines, boxes=boxes)

    asyncio.run(write())
    page = found(database, f'ocr:"{phrase}"')
    assert [hit.id for hit in page.hits] == [id_of("paragraph")]
    shown = "".join(found_line.text[slice(*found_line.spans[0])] for found_line in page.hits[0].lines)
    assert phrase.startswith(shown) or shown.startswith(phrase) or phrase in shown
