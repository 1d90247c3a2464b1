"""A parsed query as the database takes it: the JSON that ``immich_ai.ocr_search`` describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from search.query.forms import typed_forms
from search.query.nearness import nears
from search.query.parse import Alternative, ParsedQuery
from search.query.words import quoted_word, words_query
from search.store.database import Cutter

_NUMBER = re.compile(r"=[@\d.]+")


def alternatives_json(parsed: ParsedQuery, cutter: Cutter) -> str:
    """Return the alternatives of a query. ``cutter``: of the database."""
    return json.dumps([_alternative(one, cutter == "jieba") for one in parsed.alternatives])


def near_json(parsed: ParsedQuery) -> str:
    """Return what may be almost right of a query, each once, as ``immich_ai.close_words`` takes it."""
    found = dict.fromkeys(one for asked in parsed.alternatives for one in nears(asked.wanted, asked.quoted))
    return json.dumps([one.as_json() for one in found if one is not None])


def _alternative(one: Alternative, in_python: bool) -> dict[str, object]:
    forms = [None if word in one.quoted else typed_forms(word) for word in one.wanted]
    # Only what has the very number goes: not A 12 for A-12.
    excluded = [[form for form in typed_forms(word).same if _NUMBER.fullmatch(form)] for word in one.unwanted]
    given: dict[str, object] = {
        "all": one.wanted,
        "none": one.unwanted,
        "quoted": [word in one.quoted for word in one.wanted],
        "forms": [form and _either((*form.same, *form.near)) for form in forms],
        "same": [form and _either(form.same) for form in forms],
        "near": [found and found.as_json() for found in nears(one.wanted, one.quoted)],
        "none_forms": [_either(words) for words in excluded if words],
    }
    if in_python:
        given["words"] = [words_query([word]) for word in one.wanted]
    return given


def _either(words: Iterable[str]) -> str | None:
    return " | ".join(map(quoted_word, words)) or None
