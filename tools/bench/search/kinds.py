"""The recall of search by kind of question: 13 kinds of 20 over 90 made-up papers, read by the real OCR.

Numbers, dates and words are typed in another form than they are printed in. A paper counts as an answer where OCR read
right what the question is about. Reading takes minutes on the first run, and is kept in
~/.cache/immich-bento/search-quality.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import UUID

import numpy as np
import opencc

from search.query.answers import Mode
from search.query.folding import fold
from search.store.records import Line
from tools.bench.report import Cell, Table
from tools.bench.search import phrases
from tools.bench.search.index import Entry, build, temporary_database
from tools.bench.search.papers import Paper, papers
from tools.bench.search.quality import ranked, scored
from tools.bench.search.questions import Question
from tools.bench.search.reading import CACHE, read

EACH = 20
_SEED = 20261128


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and what must be printed on a paper that answers it."""

    kind: str
    query: str
    printed: str


def asked(made: Sequence[Paper]) -> list[Asked]:
    """Return 20 questions of each kind, the same on every run."""
    random = Random(_SEED)
    found: list[Asked] = []
    for kind, make in _MAKERS.items():
        of_kind: dict[str, Asked] = {}
        for query, printed in make(random, made):
            of_kind.setdefault(query, Asked(kind, query, printed))
            if len(of_kind) == EACH:
                break
        found += of_kind.values()
    return found


def answers(printed: str, texts: Sequence[str]) -> frozenset[int]:
    """Return the numbers of the texts that have ``printed``, wherever their lines end."""
    needle = _squeezed(printed)
    return frozenset(number for number, text in enumerate(texts) if needle in _squeezed(text))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"what was read ({CACHE})")


def run(options: argparse.Namespace) -> list[Table]:
    made = papers()
    return [_table(made, read(made, options.cache))]


def questions_of(made: Sequence[Paper], lines: Sequence[Sequence[Line]]) -> list[Question]:
    """Return the questions with their answers: the numbers of the papers whose ``lines`` have what is asked about."""
    texts = ["\n".join(line.text for line in one) for one in lines]
    return [Question(one.kind, one.query, answers(one.printed, texts)) for one in asked(made)]


async def rankings_of(questions: Sequence[Question], lines: Sequence[Sequence[Line]]) -> list[list[int]]:
    """Return the numbers of the first hundred papers of each question, by the text of their ``lines`` alone."""
    entries = (Entry(UUID(int=number), "", f"/{number}.jpg", one) for number, one in enumerate(lines))
    async with temporary_database() as database:
        await asyncio.to_thread(build, database.conninfo, entries, [np.eye(len(lines), 512, dtype=np.float32)], "any")
        return await ranked(database, questions, Mode.OCR, {})


def _table(made: Sequence[Paper], lines: Sequence[Sequence[Line]]) -> Table:
    questions = questions_of(made, lines)
    answerable = [question for question in questions if question.answers]
    rankings = asyncio.run(rankings_of(answerable, lines))
    rows: list[tuple[Cell, ...]] = []
    for kind in (*_MAKERS, "all"):
        of_kind = [at for at, question in enumerate(answerable) if kind in (question.kind, "all")]
        score = scored([rankings[at] for at in of_kind], [answerable[at] for at in of_kind])
        total = sum(kind in (question.kind, "all") for question in questions)
        rows.append((kind, total, len(of_kind), f"{score.recall_at_10:.3f}", f"{score.mrr:.3f}"))
    return Table(
        f"{len(questions)} questions over {len(made)} papers",
        ("query", "queries", "read right", "R@10", "MRR"),
        tuple(rows),
        "Of the queries whose answer OCR read right on some paper.",
    )


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", fold(re.sub(r"-\n", "", text)))


def _facts(made: Sequence[Paper], name: str) -> Iterator[tuple[Paper, str]]:
    for paper in made:
        if (fact := getattr(paper, name)) is not None:
            yield paper, fact


def _shuffled(random: Random) -> list[tuple[str, str]]:
    """Return the messages, each in Chinese and English, in random order."""
    return random.sample(phrases.MESSAGES, len(phrases.MESSAGES))


def _words(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for chinese, english in _shuffled(random):
        for word in (chinese[:2], max(english.split(), key=len)):
            yield word, word


def _parts(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for chinese, english in _shuffled(random):
        word = max(english.split(), key=len)
        for part in (chinese[1:5], word[1:5]):
            yield part, part


def _characters(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for chinese, _ in _shuffled(random):
        for character in chinese[::3]:
            yield character, character


def _numbers(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for at, (paper, number) in enumerate(_facts(made, "number")):
        yield (number, " ".join(re.findall("....", number)))[at % 2], paper.lines[4][4:]


def _amounts(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for at, (paper, amount) in enumerate(_facts(made, "amount")):
        yield (amount, amount.split(".")[0], f"￥{amount}")[at % 3], paper.lines[1].split(maxsplit=1)[1]


def _dates(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for at, paper in enumerate(made[:40]):
        if paper.date is not None:
            year, month, day = paper.date
            forms = (
                f"{year}{month:02}{day:02}",
                f"{year}年{month}月{day}日",
                f"{year}/{month}/{day}",
                f"{month}月{day}日",
            )
            yield forms[at % 4], paper.lines[2]


def _telephones(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for at, (paper, telephone) in enumerate(_facts(made, "telephone")):
        yield (
            (telephone, f"+86{telephone}", f"{telephone[:3]}.{telephone[3:7]}.{telephone[7:]}")[at % 3],
            paper.lines[3][3:],
        )


def _mails(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for at, (_, mail) in enumerate(_facts(made, "mail")):
        yield (mail, mail.split("@")[0], mail.upper())[at % 3], mail


def _over_line_ends(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for paper in made[40:70]:
        for one, other in zip(paper.lines, paper.lines[1:], strict=False):
            if one.endswith("-"):
                word = one.split()[-1][:-1] + other.split()[0].rstrip(".")
                yield word, word
            elif not one.isascii() and one[-2:].isalpha() and other[:2].isalpha():
                yield one[-2:] + other[:2], one[-2:] + other[:2]


def _other_script(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    to_traditional = opencc.OpenCC("s2t")
    for chinese, _ in _shuffled(random):
        for part in (chinese[:4], chinese[-4:]):
            if (other := to_traditional.convert(part)) != part:
                yield other, part


def _accents(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for _, name in _facts(made, "name"):
        for word in name.split():
            yield fold(word), word


def _stems(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    singular = (
        "meeting charger parcel porter password flight hour birthday name company licence building mailbox refund day "
        "homework room invoice copy dinner minute key"
    )
    for word in singular.split():
        yield f"{word[:-1]}ies" if word in ("company", "copy") else f"{word}s", word


def _one_wrong(random: Random, made: Sequence[Paper]) -> Iterator[tuple[str, str]]:
    for chinese, english in _shuffled(random):
        word = max(english.split(), key=len)
        at = random.randrange(1, len(word) - 1)
        if word.isalpha() and len(word) >= 5:
            yield f"{word[:at]}q{word[at + 1 :]}", word
        yield f"{chinese[0]}某{chinese[2:4]}", chinese[:4]


_MAKERS: dict[str, Callable[[Random, Sequence[Paper]], Iterator[tuple[str, str]]]] = {
    "word": _words,
    "part of a word": _parts,
    "one character": _characters,
    "number in groups": _numbers,
    "amount": _amounts,
    "date": _dates,
    "telephone": _telephones,
    "mail": _mails,
    "over a line end": _over_line_ends,
    "traditional": _other_script,
    "accents": _accents,
    "other form of a word": _stems,
    "one wrong character": _one_wrong,
}
