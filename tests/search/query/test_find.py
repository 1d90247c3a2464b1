"""Finding by text and by meaning, on a real database: what is found, in which order, with which lines, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from errors import ErrorCode, ServiceError
from search.query.answers import Mode, SearchRequest
from search.store.database import Database
from tests.search.query.finding import direction, embedding, found, id_of, names, put


def fill(database: Database, texts: dict[str, Sequence[str]]) -> None:
    async def write() -> None:
        for name, lines in texts.items():
            await put(database, name, lines)

    asyncio.run(write())


@pytest.fixture
def papers(database: Database) -> Database:
    fill(
        database,
        {
            "licence": ["營業執照", "统一社会信用代码 91310115MA1K4XYZ7Q", "住所 上海市浦东新区"],
            "invoice": ["增值税发票 No. RE16", "合计 ￥120.50"],
            "part": ["型号 A-102", "100% cotton_x", "Total amount 9"],
            "apart": ["营业时间 9:00", "请出示执照"],
            "sign": ["party at eight"],
            "art": ["modern art museum"],
            "empty": [],
        },
    )
    return database


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("发票", ["invoice"]),
        ("發票", ["invoice"]),
        ("ＲＥ１６", ["invoice"]),
        ("re", ["invoice"]),
        ("16", ["invoice"]),
        ("票", ["invoice"]),
        ("a-102", ["part"]),
        ("102", ["part"]),
        ("100%", ["part"]),
        ("n_x", ["part"]),
        ("￥120", ["invoice"]),
        ("XYZ7", ["licence"]),
        ("会信用", ["licence"]),
        ("上海 执照", ["licence"]),
        ("营业执照", ["licence", "apart"]),
        ('"营业执照"', ["licence"]),
        ("执照 -上海", ["apart"]),
        ("发票 or museum", ["art", "invoice"]),
        ("art", ["art", "sign"]),
        ("total amount", ["part"]),
        ("9_0", []),
        ("没有的", []),
    ],
)
def test_text_is_found(papers: Database, query: str, first: list[str]) -> None:
    page = found(papers, f"ocr:{query}")
    assert page.mode is Mode.OCR
    if papers.cutter == "zhparser" and "apart" in first[1:]:
        first = first[
            : len(names(page))
        ]  # zhparser's dictionary may have the whole as one word, and its parts are no hit then
        assert first
    assert sorted(names(page)) == sorted(first) if " or " in query else names(page) == first
    assert all(hit.ocr is not None and 0 <= hit.ocr.score <= 1 and hit.score == hit.ocr.score for hit in page.hits)
    assert [hit.ocr.rank for hit in page.hits if hit.ocr] == list(range(1, len(page.hits) + 1))


def test_matching_lines_come_with_their_boxes_and_what_to_mark(papers: Database) -> None:
    (hit,) = [hit for hit in found(papers, "ocr:营业执照 91310115").hits if hit.id == id_of("licence")]
    assert hit.ocr is not None
    assert not hit.ocr.exact
    assert [(line.n, line.text[slice(*line.spans[0])]) for line in hit.lines] == [(1, "營業執照"), (2, "91310115")]
    assert hit.lines[0].box == pytest.approx((0.1, 0.2, 0.9, 0.2, 0.9, 0.3, 0.1, 0.3))
    assert (hit.lines[0].box_score, hit.lines[0].text_score) == pytest.approx((0.95, 0.9))


def test_words_that_stand_apart_are_marked_apart(papers: Database) -> None:
    hits = found(papers, "ocr:营业执照").hits
    if papers.cutter == "zhparser" and len(hits) == 1:
        pytest.skip("zhparser's dictionary has the whole as one word here")
    hit = hits[1]
    assert [line.text[slice(*line.spans[0])] for line in hit.lines] == ["营业", "执照"]


def test_short_lines_and_short_texts_come_first(database: Database) -> None:
    page = ["第一行", *["很长的一页文字写满了整张纸" for _ in range(60)]]
    fill(
        database,
        {"page": [*page, "请把发票交给财务"], "line": ["请把发票交给财务"], "word": ["发票"], "apart": ["发", "票"]},
    )
    assert names(found(database, "ocr:发票")) == ["word", "line", "page"]


def test_pages_join_to_the_whole_list_without_gap_or_repeat(database: Database) -> None:
    fill(database, {f"same-{number:02}": ["same text"] for number in range(23)})
    whole = names(found(database, "ocr:same text", limit=100))
    joined: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = found(database, "ocr:same text", limit=10, cursor=cursor)
        joined, cursor, pages = joined + names(page), page.next_cursor, pages + 1
    assert pages == 3
    assert joined == whole
    assert [id_of(name) for name in whole] == sorted(map(id_of, whole))


def test_a_cursor_of_another_search_is_refused(database: Database) -> None:
    fill(database, {f"same-{number}": ["same"] for number in range(3)})
    cursor = found(database, "ocr:same", limit=1).next_cursor
    assert cursor is not None
    for query, text in (("ocr:other", cursor), ("ocr:same", "AAAA"), ("ocr:same", "é")):
        with pytest.raises(ServiceError) as refused:
            found(database, query, limit=1, cursor=text)
        assert refused.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("limit", [0, 101])
def test_a_limit_out_of_range_is_no_request(limit: int) -> None:
    with pytest.raises(ValidationError, match="limit"):
        SearchRequest(q="ocr:same", limit=limit)


def test_an_owner_that_no_user_of_immich_can_be_is_refused(immich_database: Database, database: Database) -> None:
    with pytest.raises(ServiceError, match=r"owner.*UUID") as refused:
        found(immich_database, "ocr:same", owner="ann")
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert found(immich_database, "ocr:same", owner=str(uuid4())).hits == ()
    assert found(database, "ocr:same", owner="ann").hits == ()


def test_meaning_is_ordered_by_similarity(database: Database) -> None:
    async def write() -> None:
        for name, angle in (("near", 0.1), ("far", 2.0), ("middle", 0.8)):
            await put(database, name, None, direction(1, angle))

    asyncio.run(write())
    page = found(database, "狗", Mode.CLIP, embed=embedding(direction(1)))
    assert names(page) == ["near", "middle", "far"]
    assert page.hits[0].clip is not None
    assert page.hits[0].score == page.hits[0].clip.similarity == pytest.approx(1 / (1.01**0.5), abs=1e-5)
    assert page.hits[0].ocr is None
    assert page.hits[0].lines == ()


@pytest.mark.parametrize("source", ["database", "immich_database"])
def test_vectors_of_another_model_or_size_are_told_apart(
    request: pytest.FixtureRequest, postgresql: object, source: str
) -> None:
    database: Database = request.getfixturevalue(source)
    asyncio.run(put(database, "one", ["发票"], direction(1)))
    other = embedding(direction(1)[:256], "tiny" if source == "immich_database" else "other")
    with pytest.raises(ServiceError) as refused:
        found(database, "发票", Mode.CLIP, embed=other)
    assert refused.value.code is ErrorCode.STORED_MODEL_DIFFERS
    page = found(database, "发票", embed=other)
    assert (names(page), page.mode, [note.code for note in page.notes]) == (
        ["one"],
        Mode.OCR,
        [ErrorCode.STORED_MODEL_DIFFERS],
    )


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.sampled_from("a1b2发票据 -¥é"), max_size=12), min_size=1, max_size=20))
def test_the_grams_of_a_text_hold_those_of_every_piece_of_it(database: Database, texts: list[str]) -> None:
    async def missing() -> list[dict[str, object]]:
        async with database.connection() as connection:
            cursor = await connection.execute(_PIECES_WITH_OTHER_GRAMS, (texts,))
            return await cursor.fetchall()

    assert asyncio.run(missing()) == []


_PIECES_WITH_OTHER_GRAMS = """
SELECT whole, piece FROM unnest(%s::text[]) AS whole, generate_series(1, length(whole)) AS start, generate_series(1,
4) AS size,
       LATERAL (SELECT substr(whole, start, size) AS piece) p
WHERE NOT immich_ai.grams(piece) <@ immich_ai.grams(whole)
"""


def test_where_zhparser_is_all_its_token_types_are_mapped(database: Database) -> None:
    if database.cutter != "zhparser":
        pytest.skip("zhparser is not installed in this PostgreSQL")

    async def unmapped() -> list[dict[str, object]]:
        async with database.connection() as connection:
            cursor = await connection.execute(
                "select alias from ts_token_type('zhparser') where tokid not in (select maptokentype from "
                "pg_ts_config_map"
                " where mapcfg = 'immich_ai.chinese'::regconfig)"
            )
            return await cursor.fetchall()

    assert asyncio.run(unmapped()) == []


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(max_size=60)
    | st.text(st.sampled_from("a1发票 \"“「」'-－|&!():*<>\\%_\0\ud800😀;$"), max_size=30)
    | st.just("票' \\" * 250),
    mode=st.sampled_from(Mode),
)
def test_any_text_is_answered_or_refused(papers: Database, query: str, mode: Mode) -> None:
    try:
        found(papers, query, mode, embed=embedding(direction(1)))
    except ServiceError as error:
        refused = error.code
    else:
        refused = ErrorCode.INVALID_QUERY
    assert refused is ErrorCode.INVALID_QUERY
