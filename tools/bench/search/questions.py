"""120 queries with known answers over the documents, and the queries of the mixed set.

An answer is right if the document's true text says it; what OCR made of it does not matter. Eight kinds of 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import opencc

from search.query.folding import fold
from tools.bench.search.documents import Document

KINDS = (
    "word",
    "part of a word",
    "one character",
    "code",
    "traditional or simplified",
    "full width",
    "two words",
    "quoted phrase",
)
EACH = 15
_MOST_ANSWERS = 40
"""A query that more documents than this answer says nothing about the order."""
_SEED = 20260303


@dataclass(frozen=True, slots=True)
class Question:
    """A query as a person types it, and the numbers of the documents that answer it."""

    kind: str
    query: str
    answers: frozenset[int]


def questions(documents: Sequence[Document]) -> list[Question]:
    """Return up to 15 questions of each kind, each about another text of the documents, the same on every run."""
    random = Random(_SEED)
    texts = ["\n".join(map(fold, document.lines)) for document in documents]
    chinese = sorted(
        {word for document in documents for line in document.lines for word in line.split() if _is_chinese(word)}
    )
    english = sorted(
        {line for document in documents for line in document.lines if line.isascii() and 2 <= len(line.split()) <= 4}
    )
    codes = sorted(
        {word for document in documents for line in document.lines for word in line.split() if _is_code(word)}
    )
    makers: dict[str, Callable[[], tuple[str, tuple[str, ...]]]] = {
        "word": lambda: _itself(random.choice([random.choice(chinese), random.choice(english).split()[0]])),
        "part of a word": lambda: _itself(_part(random, random.choice([word for word in chinese if len(word) > 3]))),
        "one character": lambda: _itself(random.choice(random.choice(chinese))),
        "code": lambda: _itself(random.choice(codes)),
        "traditional or simplified": lambda: _itself(_other_script(random.choice(chinese))),
        "full width": lambda: _wide(random.choice([*codes, *english])),
        "two words": lambda: _two(random, random.choice(documents)),
        "quoted phrase": lambda: _quoted(
            random.choice([*english, *(line for document in documents for line in document.lines if " " in line)])
        ),
    }
    made: list[Question] = []
    for kind in KINDS:
        asked: dict[str, Question] = {}
        for _ in range(2000):
            query, needles = makers[kind]()
            answers = frozenset(
                number for number, text in enumerate(texts) if all(fold(needle) in text for needle in needles)
            )
            if query and 1 <= len(answers) <= _MOST_ANSWERS:
                asked.setdefault(query, Question(kind, query, answers))
            if len(asked) == EACH:
                break
        made += asked.values()
    return made


def _itself(text: str) -> tuple[str, tuple[str, ...]]:
    return text, (text,)


def _part(random: Random, word: str) -> str:
    length = random.randint(2, len(word) - 1)
    start = random.randint(0, len(word) - length)
    return word[start : start + length]


def _other_script(word: str) -> str:
    for direction in ("s2t", "t2s"):
        converted: str = _converter(direction).convert(word)
        if converted != word:
            return converted
    return ""


@lru_cache
def _converter(direction: str) -> opencc.OpenCC:
    return opencc.OpenCC(direction)


def _wide(text: str) -> tuple[str, tuple[str, ...]]:
    wide = "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else "\u3000" for character in text)
    return wide, tuple(text.split())


def _two(random: Random, document: Document) -> tuple[str, tuple[str, ...]]:
    one, other = random.sample(document.lines, 2)
    words = (random.choice(one.split()), random.choice(other.split()))
    if any(len(fold(word)) < 2 or not word.replace(".", "").isalnum() for word in words):
        return "", ()
    return " ".join(words), words


def _quoted(line: str) -> tuple[str, tuple[str, ...]]:
    return f'"{line}"', (line,)


def _is_chinese(word: str) -> bool:
    return 2 <= len(word) <= 9 and all("\u4e00" <= character <= "\u9fff" for character in word)


def _is_code(word: str) -> bool:
    return word.isascii() and len(word) > 2 and any(map(str.isdigit, word)) and any(map(str.isalpha, word))
