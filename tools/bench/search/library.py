"""A made-up library for ``search-speed``: texts and vectors that are distributed like real ones, the same on every run.

Words: jieba's own two-character words and those of Python's documentation, drawn by Zipf's law (exponent 1), so that
the commonest is in every tenth text. Texts: two in five pictures have one, mostly a few words, one in ten of them a
page (log-normal lengths). Codes like RE16 and A-102 are sprinkled in. Vectors: unit length, 512 numbers, around 1,000
centres.
"""

from __future__ import annotations

import itertools
import pydoc_data.topics
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import rjieba
from numpy.typing import NDArray

from runners.contract import Float32

SIZE = 512
OWNERS = {"ann": 0.7, "bob": 0.25, "cid": 0.04, "dan": 0.01}
"""The shares of a household."""
FEW = "eve"
"""The owner of every thousandth picture."""
_WORDS = 20_000
_CENTRES = 1000
_SEED = 20260301


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the library."""

    id: UUID
    owner: str
    lines: tuple[str, ...]


def vocabulary() -> list[str]:
    """Return 20,000 words, the commonest first: Chinese and English take turns three to one."""
    random = np.random.default_rng(_SEED)
    characters = [
        bytes([row + 0xA0, cell + 0xA0]).decode("gb2312")
        for row in range(16, 56)
        for cell in range(1, 95 if row < 55 else 90)
    ]
    chinese: dict[str, None] = {}
    while len(chinese) < _WORDS * 3 // 4:
        pairs = random.integers(0, len(characters), (200_000, 2))
        chinese.update(
            dict.fromkeys(
                word for one, other in pairs.tolist() if rjieba.has_word(word := characters[one] + characters[other])
            )
        )
    english = dict.fromkeys(
        word for topic in pydoc_data.topics.topics.values() for word in re.findall(r"[a-z]{3,12}", topic.lower())
    )
    turns = [iter(chinese)] * 3 + [iter(english)]
    return [word for word in (next(turn, "") for turn in itertools.islice(itertools.cycle(turns), _WORDS)) if word]


def pictures(count: int, words: Sequence[str]) -> Iterator[Picture]:
    """Yield ``count`` pictures; those of a smaller library are the first of a larger one's."""
    random = np.random.default_rng(_SEED + 1)
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    for start in range(0, count, 1000):
        block = min(1000, count - start)
        has_text = random.random(1000) < 0.4
        page = random.random(1000) < 0.1
        lengths = (
            np.where(page, random.lognormal(np.log(150), 0.5, 1000), random.lognormal(np.log(8), 0.8, 1000))
            .astype(int)
            .clip(1, 600)
        )
        owners = random.choice(list(OWNERS), 1000, p=list(OWNERS.values()))
        ids = random.integers(0, 256, (1000, 16), dtype=np.uint8)
        drawn = [
            random.choice(len(words), length, p=share) if text else None
            for text, length in zip(has_text, lengths, strict=True)
        ]
        codes = random.integers(0, 10_000, 1000)
        for at in range(block):
            drawn_here = drawn[at]
            lines = () if drawn_here is None else _lines([words[word] for word in drawn_here], int(codes[at]))
            owner = FEW if at == 0 else str(owners[at])  # blocks are of a thousand
            yield Picture(UUID(bytes=ids[at].tobytes()), owner, lines)


def vectors(count: int) -> Iterator[Float32]:
    """Yield blocks of at most 1,000 unit vectors (n, 512), ``count`` in all, in the order of ``pictures``."""
    centres = _centres()
    random = np.random.default_rng(_SEED + 3)
    for start in range(0, count, 1000):
        block = centres[random.integers(0, _CENTRES, 1000)] + _noise(random, 1000)
        yield _unit(block)[: min(1000, count - start)]


def query_vectors(count: int) -> Float32:
    """Return (count, 512): other points around the same centres."""
    random = np.random.default_rng(_SEED + 4)
    return _unit(_centres()[random.integers(0, _CENTRES, count)] + _noise(random, count))


def queries(count: int, words: Sequence[str]) -> list[str]:
    """Return queries as people type them.

    Half are one word (by the square root of its frequency, since people look for rare words), the others two words,
    three characters of two words, a code, a single character, or a quoted pair.
    """
    random = np.random.default_rng(_SEED + 5)
    share = 1 / np.sqrt(np.arange(1, len(words) + 1))
    share /= share.sum()
    drawn = [[words[word] for word in random.choice(len(words), 2, p=share)] for _ in range(count)]
    kinds = random.choice(6, count, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    forms = (
        lambda one, other: one,
        lambda one, other: f"{one} {other}",
        lambda one, other: (one + other)[:3],
        lambda one, other: f"RE{ord(one[0]) % 97}",
        lambda one, other: one[0],
        lambda one, other: f'"{one}"',
    )
    return [forms[kind](*pair) for kind, pair in zip(kinds, drawn, strict=True)]


def askers(count: int) -> list[str]:
    """Return who asks each query: owners with more pictures more often."""
    return [
        str(owner) for owner in np.random.default_rng(_SEED + 6).choice(list(OWNERS), count, p=list(OWNERS.values()))
    ]


def _lines(words: list[str], code: int) -> tuple[str, ...]:
    if code % 10 == 0:
        words.append(f"RE{code % 97}" if code % 20 else f"A-{code % 1000}")
    lines, line = [], ""
    for word in words:
        glue = " " if line and (word.isascii() or line[-1].isascii()) else ""
        line += glue + word
        if len(line) > 16:
            lines.append(line)
            line = ""
    return tuple([*lines, line] if line else lines)


def _centres() -> Float32:
    return _unit(np.random.default_rng(_SEED + 2).normal(size=(_CENTRES, SIZE)))


def _noise(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    noise: NDArray[np.float64] = random.normal(size=(count, SIZE)) * (0.8 / np.sqrt(SIZE))
    return noise


def _unit(rows: NDArray[np.float64]) -> Float32:
    unit: Float32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
