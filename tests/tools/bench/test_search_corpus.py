"""The benchmark's documents and questions, indexed from their known text: what text search must find in any case."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from search.query.answers import Mode
from search.store.records import Line
from tools.bench.__main__ import main
from tools.bench.search import library
from tools.bench.search.documents import COUNT, documents
from tools.bench.search.index import build, temporary_database
from tools.bench.search.kinds import questions_of, rankings_of
from tools.bench.search.papers import papers
from tools.bench.search.peers import by_ilike, by_strict_word_similarity, strict_word_similarity
from tools.bench.search.quality import entries, ranked, scored
from tools.bench.search.questions import EACH, KINDS, Question, questions
from tools.bench.search.speed import line_box

BOX = (0.1, 0.1, 0.9, 0.1, 0.9, 0.2, 0.1, 0.2)


def test_the_documents_are_as_many_and_as_various_as_promised() -> None:
    made = documents()
    assert len(made) == COUNT == 300
    assert {document.name.split("-")[0] for document in made} == {
        "receipt",
        "menu",
        "sign",
        "ticket",
        "screenshot",
        "card",
    }
    assert sum(document.look.angle != 0 for document in made) == 100
    assert sum("營" in text or "業" in text or "車" in text for document in made for text in document.lines) > 5
    assert documents() == made
    assert made[0].jpeg()[:2] == b"\xff\xd8"


def test_there_are_120_questions_each_with_an_answer() -> None:
    found = questions(documents())
    assert len(found) == len(KINDS) * EACH == 120
    assert all(question.answers for question in found)
    assert questions(documents()) == found


def test_text_search_finds_what_forty_documents_say() -> None:
    made = documents(40)
    questions_asked = questions(made)
    lines = [[Line(text, BOX, 0.9, 0.9) for text in document.lines] for document in made]

    async def search() -> list[list[int]]:
        async with temporary_database() as database:
            vectors = np.eye(len(made), 512, dtype=np.float32)
            await asyncio.to_thread(build, database.conninfo, entries(made, lines), [vectors], "any")
            return await ranked(database, questions_asked, Mode.OCR, {})

    score = scored(asyncio.run(search()), questions_asked)
    assert score.recall_at_10 >= 0.99
    assert score.mrr >= 0.99


def test_scores_are_what_they_are_called() -> None:
    two = [Question("word", "a", frozenset({1, 2})), Question("word", "b", frozenset({3}))]
    score = scored([[5, 1], [4, 6]], two)
    assert score.recall_at_10 == pytest.approx((0.5 + 0) / 2)
    assert score.mrr == pytest.approx((0.5 + 0) / 2)


def test_the_peers_match_as_their_documentation_says() -> None:
    # The examples of https://www.postgresql.org/docs/current/pgtrgm.html
    assert strict_word_similarity(["word"], ["two", "words"]) == pytest.approx(4 / 7)
    assert strict_word_similarity(["words"], ["two", "words"]) == 1
    assert by_strict_word_similarity("执照", ["营业执照", "发票"]) == [0]
    assert by_strict_word_similarity("照", ["营业执照"]) == []
    assert by_ilike("RE16", ["re16", "RE 16"]) == [0]


def test_a_made_up_library_is_the_same_on_every_run_and_a_part_of_a_larger_one() -> None:
    words = [f"w{number}" for number in range(500)]
    small, large = list(library.pictures(50, words)), list(library.pictures(1500, words))
    assert small == large[:50]
    assert 0.3 < sum(bool(picture.lines) for picture in large) / len(large) < 0.5
    (vectors,) = library.vectors(50)
    assert vectors.shape == (50, library.SIZE)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(library.queries(20, words)) == 20


@pytest.mark.slow
def test_speed_is_measured_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search-speed", "--assets", "300", "--queries", "16", "--json"]) == 0
    searches, recall, building = json.loads(capsys.readouterr().out)["tables"]
    assert len(searches["rows"]) == 9
    assert recall["rows"][0][:2] == [300, 1]
    assert building["rows"][0][0] == 300


def test_there_are_260_questions_of_13_kinds_and_search_answers_them() -> None:
    made = papers()
    lines = [[Line(text, line_box(n, text), 0.9, 0.9) for n, text in enumerate(paper.lines)] for paper in made]
    questions_asked = questions_of(made, lines)
    assert len(questions_asked) == 260
    answerable = [question for question in questions_asked if question.answers]
    assert len(answerable) > 240
    score = scored(asyncio.run(rankings_of(answerable, lines)), answerable)
    assert score.recall_at_10 >= 0.97
    assert score.mrr >= 0.9


@pytest.mark.slow
def test_slow_searches_are_measured_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search-slow", "--assets", "2000", "--queries", "8", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [row[1] for row in table["rows"]] == [8] * 8


@pytest.mark.slow
def test_the_real_ocr_reads_what_search_must_find(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search-quality", "--no-emoji", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    everything = dict(zip(table["columns"], table["rows"][-1], strict=True))
    assert float(everything["ocr: R@10"]) >= 0.95
    assert float(everything["ocr: MRR"]) >= 0.85
