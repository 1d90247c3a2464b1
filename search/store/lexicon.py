"""The list of the words of all texts, by which what is typed almost right finds what was meant."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any

from psycopg import AsyncConnection

from search.query.nearness import is_chinese, is_word

_MOST_READINGS = 3
"""Of one character, the commonest first."""
_MOST_SOUNDS = 8
"""Of one word."""

_NEW = "SELECT w AS word FROM unnest(%s::text[]) AS w WHERE NOT EXISTS (SELECT FROM immich_ai.word k WHERE k.word = w)"
_ADD = """
INSERT INTO immich_ai.word (word, sounds)
SELECT w, string_to_array(s, ' ') FROM unnest(%s::text[], %s::text[]) AS t (w, s) ON CONFLICT DO NOTHING
"""


async def add_words(connection: AsyncConnection[Any], words: Iterable[str]) -> None:
    """List the words of a text, or of many, as ``search.store.documents.searched`` returns them.

    ``connection`` has rows as mappings. Call it once in a transaction, at its end: words are added in their order, so
    that two transactions that add the same ones wait for each other and never both at once.
    """
    listed = sorted(filter(is_word, words))
    new = [row["word"] for row in await (await connection.execute(_NEW, (listed,))).fetchall()] if listed else []
    if new:
        new.sort()
        await connection.execute(_ADD, (new, [" ".join(sounds(word)) for word in new]))


def sounds(word: str) -> list[str]:
    """Return how a Chinese word may be typed in Pinyin, without tones and blanks, u for ü; nothing for other words.

    >>> sounds("发票")
    ['fapiao']
    """
    if not is_chinese(word):
        return []
    # Its table of words takes 40 MB and is left out: each character has all of its readings instead.
    os.environ.setdefault("PYPINYIN_NO_PHRASES", "true")
    os.environ.setdefault("PYPINYIN_NO_DICT_COPY", "true")
    import pypinyin

    readings = pypinyin.pinyin(word, style=pypinyin.Style.NORMAL, heteronym=True, errors="ignore", v_to_u=False)
    if len(readings) != len(word):
        return []
    several = itertools.product(
        *(dict.fromkeys(one.replace("v", "u") for one in of_one[:_MOST_READINGS]) for of_one in readings)
    )
    return list(dict.fromkeys("".join(one) for one in itertools.islice(several, _MOST_SOUNDS)))
