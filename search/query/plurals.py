"""Plurals of English nouns that are no forms of one stem: children of child, men of man, knives of knife.

Those of which people take photographs and write papers, by hand; PostgreSQL's stemmer knows the regular ones.
"""

from __future__ import annotations

_PLURALS = """
child children|man men|woman women|person people|foot feet|tooth teeth|goose geese|mouse mice|louse lice
leaf leaves|loaf loaves|half halves|calf calves|shelf shelves|elf elves|wolf wolves|thief thieves|scarf scarves
knife knives|wife wives|life lives
index indices|appendix appendices|matrix matrices|vertex vertices
analysis analyses|basis bases|crisis crises|diagnosis diagnoses|hypothesis hypotheses|oasis oases|thesis theses
criterion criteria|phenomenon phenomena|curriculum curricula|bacterium bacteria
alumnus alumni|cactus cacti|fungus fungi|nucleus nuclei|radius radii|stimulus stimuli
"""
_IN_COMPOUNDS = (("child", "children"), ("man", "men"), ("wife", "wives"), ("shelf", "shelves"))
"""Nouns that end others: grandchildren, salesmen, housewives, bookshelves."""
_SHORTEST_FIRST_PART = 3
"""Letters before such a noun: omen is no plural of Oman."""


def other_number(word: str) -> str | None:
    """Return the plural of a folded word, or what it is the plural of, where that is irregular; else None.

    >>> other_number("children"), other_number("salesman"), other_number("invoices")
    ('child', 'salesmen', None)
    """
    if known := _OTHERS.get(word):
        return known
    for pair in _IN_COMPOUNDS:
        for one, other in (pair, pair[::-1]):
            if word.endswith(one) and len(word) >= len(one) + _SHORTEST_FIRST_PART:
                return word.removesuffix(one) + other
    return None


_OTHERS = {
    one: other
    for pair in _PLURALS.replace("\n", "|").strip("|").split("|")
    for one, other in (pair.split(), pair.split()[::-1])
}
