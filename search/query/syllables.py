"""Syllables of Pinyin without tones, by which Chinese that is typed with blanks between them is told."""

from __future__ import annotations

import re

_A = "a|ai|an|ang|ao"
_SYLLABLE = re.compile(
    rf"""{_A}|e|ei|en|eng|er|o|ou
      | [bpm](?:{_A}|ei|en|eng|i|ian|iao|ie|in|ing|o|u)|[pm]ou|me|miu
      | f(?:a|an|ang|ei|en|eng|o|ou|u)
      | [dtnl](?:{_A}|e|ei|eng|i|ian|iao|ie|ing|ong|ou|u|uan|un|uo)|[dn]en|[dl]ia|[dnl]iu|[dt]ui|lo
      | [nl](?:iang|in|ue|v|ve)
      | [gkh](?:{_A}|e|ei|en|eng|ong|ou|u|ua|uai|uan|uang|ui|un|uo)
      | [jqx](?:i|ia|ian|iang|iao|ie|in|ing|iong|iu|u|uan|ue|un)
      | [zc]h?(?:{_A}|e|ei|en|eng|i|ong|ou|u|uan|ui|un|uo)|sh(?:ei|uai|ua|uang)|[zc]h(?:ua|uai|uang)
      | sh?(?:{_A}|e|en|eng|i|ou|u|uan|ui|un|uo)|song
      | r(?:an|ang|ao|e|en|eng|i|ong|ou|u|ua|uan|ui|un|uo)
      | y(?:a|an|ang|ao|e|i|in|ing|o|ong|ou|u|uan|ue|un)
      | w(?:a|ai|an|ang|ei|en|eng|o|u)""",
    re.VERBOSE,
)
_MOST = 6
"""Syllables of one word: as many characters as a Chinese word has that is listed by its sound."""


def is_syllable(folded: str) -> bool:
    """Return whether a folded word may be a syllable."""
    return _SYLLABLE.fullmatch(folded) is not None


def sounds_with(words: tuple[str, ...], at: int) -> tuple[str, ...]:
    """Return what the word at ``at`` may be a syllable of: it with its neighbours that are syllables, joined.

    >>> sounds_with(("2024", "fa", "piao"), 1)
    ('fapiao',)
    """
    first = last = at
    if not is_syllable(words[at]):
        return ()
    while first > 0 and is_syllable(words[first - 1]):
        first -= 1
    while last + 1 < len(words) and is_syllable(words[last + 1]):
        last += 1
    return tuple(
        "".join(words[start:end]).replace("v", "u")
        for start in range(max(first, at - _MOST + 1), at + 1)
        for end in range(max(start + 2, at + 1), min(last + 1, start + _MOST) + 1)
    )
