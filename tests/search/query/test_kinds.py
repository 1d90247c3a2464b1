"""What people look for in what they have photographed: numbers, dates, words over line ends, accents, names, other
forms of a word, a wrong letter, Pinyin, phrases and exclusions. On a real database, as ``find`` answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from search.query.answers import SearchAnswer
from search.store.database import Database, examine
from tests.search.conftest import Server, UnpooledDatabase
from tests.search.query.finding import Box, found, names, put

PITCH = 0.04


def below(*widths: float, x: float = 0.1, y: float = 0.1) -> list[Box]:
    """Return boxes of lines below each other, as wide as ``widths``."""
    tops = [y + PITCH * number for number in range(len(widths))]
    return [
        (x, top, x + width, top, x + width, top + 0.03, x, top + 0.03) for width, top in zip(widths, tops, strict=True)
    ]


PAPERS: dict[str, Sequence[str]] = {
    "receipt": ["五金店收据", "合计 ¥1,280.00 元"],
    "dollars": ["Subtotal", "$2,450.50"],
    "rent": ["押金 3 500 元"],
    "euro": ["Gesamt 1.975,00 €"],
    "wide": ["总价 ￥６,４８０．００"],
    "thin": ["Total 7\u2009250,00"],
    "cells": ["128", "256", "12.50", "13.00"],
    "hotline": ["维修热线", "139 1234 8877"],
    "office": ["Tel (010) 6555-1234"],
    "mobile": ["联系 13800138000"],
    "bank": ["卡号 6222 0212 3456 7890 123"],
    "iban": ["IBAN DE89 3704 0044 0532 0130 00"],
    "order": ["Order No. 2024-7788-9911"],
    "plate": ["粤B·12345"],
    "flight": ["CA 1234 北京"],
    "zh-date": ["开票日期 2024年03月05日"],
    "iso-date": ["Date 2023-11-30"],
    "slash-date": ["Due 05/09/2022"],
    "named-date": ["Delivered 7 August 2021"],
    "birthday": ["生日 6月18日"],
    "era": ["令和5年4月2日"],
    "cafe": ["Café Müller", "crème brûlée 6 EUR"],
    "istanbul": ["İstanbul Büfe"],
    "bridge": ["Øresund", "Łódź"],
    "name": ["髙橋様", "山﨑", "渡邉", "斉藤"],
    "firm": ["company", "invoice"],
    "museum": ["Central maintenance depot"],
    "tax": ["增值悦发票"],
    "fapiao": ["发票抬头", "银行"],
    "code": ["MFG A-12", "SN 48213377"],
    "other-code": ["MFG 2012 A-7", "lot 12"],
    "keys": ["the keys are under the flowerpot"],
    "page-5": ["page 5 of 9"],
    "five-pages": ["5 page letter"],
    "art": ["party at eight"],
    "menu": ["麻婆豆腐 22元", "宫保鸡丁38 元"],
    "courier": ["SF 1234 5678 9012 3"],
    "router": ["MAC 00:1A:2B:3C:4D:5E"],
    "shift": ["12:30:45 18:00:10"],
    "school": ["child welcome", "no salesmen", "lost: one tooth, three knives, criteria"],
    "crowd": ["ten people waiting"],
    "market": ["Fa Piao Street"],
}
BOXES: dict[str, tuple[Sequence[str], Sequence[Box]]] = {
    "broken-zh": (["本店经营各类精密仪", "器与配件，欢迎选购"], below(0.54, 0.54)),
    "broken-en": (["Quarterly mainte-", "nance of the lift"], below(0.5, 0.48)),
    "paragraph": (["please water the plants twice", "a week and close the windows"], below(0.6, 0.6)),
    "columns": (
        ["左栏的文字写到葡", "左栏第二行在这里", "萄牙的右栏第一行", "右栏第二行在这里"],
        [*below(0.3, 0.3), *below(0.3, 0.3, x=0.5)],
    ),
    "table": (
        ["苹果", "12", "汁水", "30"],
        [*below(0.1)[:1], *below(0.05, x=0.6)[:1], *below(0.1, y=0.1 + PITCH), *below(0.05, x=0.6, y=0.1 + PITCH)],
    ),
}


@pytest.fixture(scope="module")
def papers(postgresql: Server) -> Iterator[Database]:
    name = postgresql.copy(())
    conninfo = postgresql.of(name)
    database = UnpooledDatabase(conninfo, examine(conninfo, "auto", migrate=False))

    async def write() -> None:
        for paper, lines in PAPERS.items():
            await put(database, paper, lines)
        for paper, (lines, boxes) in BOXES.items():
            await put(database, paper, lines, boxes=boxes)

    asyncio.run(write())
    yield database
    postgresql.drop(name)


@pytest.mark.parametrize(
    ("query", "paper"),
    [
        # amounts
        *((text, "receipt") for text in ("1280", "1280.00", "￥1280", "1,280", "1280元", "１２８０", "¥1,280.00")),
        *((text, "dollars") for text in ("2450", "2450.50", "$2450.5", "2,450", "2.450,50")),
        *((text, "rent") for text in ("3500", "3,500", "3500元", "3500.00", "3 500")),
        *((text, "euro") for text in ("1975", "1,975.00", "1975,00")),
        *((text, "wide") for text in ("6480", "6,480.00")),
        *((text, "thin") for text in ("7250", "7,250.00", "7 250")),
        # telephones, cards, accounts, orders, plates
        *(
            (text, "hotline")
            for text in ("13912348877", "139-1234-8877", "139 1234 8877", "+8613912348877", "12348877")
        ),
        *((text, "office") for text in ("01065551234", "010-65551234", "65551234", "(010) 65551234")),
        *((text, "mobile") for text in ("138 0013 8000", "138-0013-8000", "+86 13800138000", "138.0013.8000")),
        *((text, "bank") for text in ("6222021234567890123", "6222-0212-3456-7890-123", "7890123")),
        *((text, "iban") for text in ("DE89370400440532013000", "de89 3704 0044 0532 0130 00")),
        *((text, "order") for text in ("202477889911", "2024 7788 9911", "77889911")),
        *((text, "plate") for text in ("B12345", "粤B12345", "粤B·12345")),
        *((text, "flight") for text in ("CA1234", "ca-1234", "ca 1234")),
        *((text, "code") for text in ("A12", "a-12", "482 13377", "4821-3377")),
        *((text, "courier") for text in ("SF1234567890123", "sf 1234567890123", "SF-1234567890123", "1234567890123")),
        *((text, "router") for text in ("001A2B3C4D5E", "00-1A-2B-3C-4D-5E", "00:1a:2b:3c:4d:5e", "001a.2b3c.4d5e")),
        # blanks between Chinese and figures, which are a matter of taste and of reading
        *((text, "menu") for text in ('"麻婆豆腐22元"', '"麻婆豆腐 22 元"', '"宫保鸡丁 38元"', "鸡丁38", '"38元"')),
        # dates
        *((text, "zh-date") for text in ("20240305", "3月5日", "2024-03-05", "2024/3/5", "2024年3月5日", "05/03/2024")),
        *((text, "zh-date") for text in ("2024年3月", "5 March 2024", "March 5, 2024", "三月五日", "5.3.2024")),
        *((text, "iso-date") for text in ("20231130", "2023年11月30日", "11月30日", "30.11.2023", "2023/11/30")),
        *((text, "slash-date") for text in ("20220905", "2022-09-05", "2022-05-09", "9月5日")),
        *((text, "named-date") for text in ("20210807", "2021年8月7日", "8月7日", "Aug 7")),
        *((text, "birthday") for text in ("6月18日", "06月18日", "June 18")),
        *((text, "era") for text in ("20230402", "2023年4月2日")),
        # accents and names
        *((text, "cafe") for text in ("cafe", "muller", "Müller", "brulee", "creme BRULEE")),
        *((text, "istanbul") for text in ("istanbul", "ISTANBUL", "İstanbul", "bufe")),
        *((text, "bridge") for text in ("oresund", "lodz", "Øresund")),
        *((text, "name") for text in ("高橋", "高桥", "崎", "渡辺", "渡邊", "斎藤", "齋藤", "斉藤")),
        # over line ends
        *((text, "broken-zh") for text in ("仪器", "精密仪器", '"精密仪器与配件"', "各类精密仪器")),
        *((text, "broken-en") for text in ('"maintenance of the lift"', '"quarterly maintenance"')),
        *((text, "paragraph") for text in ('"twice a week"', "plants twice a week")),
    ],
)
def test_it_is_found_first(papers: Database, query: str, paper: str) -> None:
    page = found(papers, f"ocr:{query}")
    assert names(page)[:1] == [paper]
    assert page.hits[0].lines
    assert all(line.spans for line in page.hits[0].lines)


@pytest.mark.parametrize(
    ("query", "paper"),
    [
        ("companies", "firm"),
        ("invoices", "firm"),
        ("invoicing", "firm"),
        ("maintenence", "museum"),
        ("depott", "museum"),
        ("flowerpto", "keys"),
        ("增值税", "tax"),
        ("增值税发票", "tax"),
        ("维修热缐", "hotline"),
        ("发嫖抬头", "fapiao"),
        ("fapiao", "fapiao"),
        ("yinhang", "fapiao"),
        ("yin'hang", "fapiao"),
        ("rexian", "hotline"),
        ("yin hang", "fapiao"),
        ("yin hang fa piao", "fapiao"),
        ("fa piao 银行", "fapiao"),
        ("children", "school"),
        ("salesman", "school"),
        ("teeth", "school"),
        ("knife", "school"),
        ("criterion", "school"),
        ("children teeth", "school"),
        ("person", "crowd"),
    ],
)
def test_what_is_almost_right_is_found(papers: Database, query: str, paper: str) -> None:
    page = found(papers, f"ocr:{query}")
    assert paper in names(page)
    (hit,) = [hit for hit in page.hits if hit.name == paper]
    assert hit.ocr is not None
    assert not hit.ocr.exact
    assert hit.ocr.score < 0.5
    assert hit.lines


def test_chinese_typed_in_syllables_comes_after_the_words_as_they_were_typed(papers: Database) -> None:
    first, *others = found(papers, "ocr:fa piao").hits
    assert first.name == "market"
    assert {hit.name for hit in others} == {"fapiao", "tax"}
    assert [line.text[slice(*span)] for hit in others for line in hit.lines for span in line.spans] == ["发票", "发票"]
    assert names(found(papers, 'ocr:"fa piao"')) == ["market"]


@pytest.mark.parametrize(
    "query",
    [
        "128256",
        "123045180010",
        "12801300",
        "12.5013.00",
        "1280.50",
        "1281",
        "13912348878",
        "139123488",
        "20240306",
        "3月6日",
        "A-13",
        "A-1Z",
        "48213378",
        "葡萄牙",
        "果汁",
        '"plants a week"',
        '"flowerpot keys"',
        '"part"',
        '"page 9"',
    ],
)
def test_it_is_not_found(papers: Database, query: str) -> None:
    assert names(found(papers, f"ocr:{query}")) == []


@pytest.mark.parametrize(
    ("query", "papers_found"),
    [
        ("MFG -A-12", ["other-code"]),
        ("MFG -A-1", ["code", "other-code"]),
        ("MFG -12", []),  # A-12 has 12 by itself, and so has lot 12
        ('"page 5" -"5 page"', ["page-5"]),
        ('page -"5 page"', ["page-5"]),
        ("party -art", ["art"]),
        ("合计 -1280", []),
        ("合计 -128", ["receipt"]),
        ("热线 -13912348877", []),
        ('lift -"quarterly maintenance"', []),
        ('lift -"maintenance quarterly"', ["broken-en"]),
    ],
)
def test_a_minus_takes_away_what_exactly_has_it(papers: Database, query: str, papers_found: list[str]) -> None:
    assert sorted(names(found(papers, f"ocr:{query}"))) == sorted(papers_found)


def test_both_lines_of_a_broken_word_are_shown(papers: Database) -> None:
    for query, marked in (("仪器", ["仪", "器"]), ("maintenance", ["mainte", "nance"])):
        (hit,) = [hit for hit in found(papers, f"ocr:{query}").hits if hit.name.startswith("broken")]
        assert [line.text[slice(*line.spans[0])] for line in hit.lines] == marked
        assert [line.n for line in hit.lines] == [1, 2]


def test_numbers_are_marked_as_they_are_written(papers: Database) -> None:
    def marked(page: SearchAnswer) -> list[str]:
        return [line.text[slice(*span)] for line in page.hits[0].lines for span in line.spans]

    assert marked(found(papers, "ocr:1280")) == ["1,280.00"]
    assert marked(found(papers, "ocr:1280.00")) == ["1,280.00"]
    assert marked(found(papers, "ocr:13912348877")) == ["139 1234 8877"]
    assert marked(found(papers, "ocr:20240305")) == ["2024年03月05日"]


def test_what_is_exact_comes_before_forms_of_it_and_these_before_a_wrong_letter(database: Database) -> None:
    async def write() -> None:
        await put(database, "wrong", ["invuice"])
        await put(database, "form", ["invoicing"])
        await put(database, "exact", ["a long line with many more words than others and an invoice"])
        await put(database, "part", ["myinvoicebox"])

    asyncio.run(write())
    page = found(database, "ocr:invoice")
    assert names(page)[:2] == ["exact", "part"]
    assert names(page)[2:] == ["form", "wrong"]
