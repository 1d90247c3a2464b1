"""Lines of hits that do not have what was typed letter by letter: it goes over a line's end, is a number in another
form, or is almost a typed word.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from search.query.alternatives import near_json
from search.query.answers import FoundLine, Hit
from search.query.highlight import explains, matching_lines, needles_of
from search.query.parse import ParsedQuery
from search.store.database import Database

_ACROSS = """
SELECT id, immich_ai.highlighted_across(id, %(needles)s) AS lines,
       ARRAY(
           SELECT word FROM jsonb_array_elements(%(near)s::jsonb) AS near,
                  unnest(immich_ai.close_words(near) || immich_ai.misspelt_words(near)) AS word
       ) AS words
FROM unnest(%(ids)s::uuid[]) AS id
"""


async def with_explanations(database: Database, hits: Sequence[Hit], parsed: ParsedQuery) -> list[Hit]:
    """Return ``hits`` with the lines that matched where their ``lines`` do not show why they were found.

    The database is asked only if there are such hits.
    """
    unclear = [hit.id for hit in hits if _is_unclear(hit, parsed)]
    if not unclear:
        return list(hits)
    values = {"ids": unclear, "needles": list(needles_of(parsed)), "near": near_json(parsed)}
    rows = await database.rows(_ACROSS, values)
    lines: dict[UUID, tuple[FoundLine, ...]] = {
        row["id"]: matching_lines(row["lines"] or (), parsed, row["words"]) for row in rows
    }
    return [hit.model_copy(update={"lines": lines.get(hit.id) or hit.lines}) for hit in hits]


def _is_unclear(hit: Hit, parsed: ParsedQuery) -> bool:
    return hit.ocr is not None and (not hit.lines or (hit.ocr.exact and not explains(hit.lines, parsed)))
