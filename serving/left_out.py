"""Notes of what an answer had to leave out, told in its headers, in the log and to ``/stats``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import metrics
from runners.contract import Result

FIELD = "text_regions_left_out"
"""Of the log line."""
HEADER = "x-text-regions-left-out"


def note_left_out(fields: dict[str, Any], results: Iterable[Result]) -> None:
    """Note in ``fields``, and count, the regions of text that ``results`` did not look at, if there are any."""
    count = sum(getattr(result, "left_out", 0) for result in results)
    if count:
        fields[FIELD] = count
        metrics.tell_left_out(count)


def left_out_headers(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the header of an answer that left something out; none for any other."""
    return {HEADER: str(fields[FIELD])} if FIELD in fields else {}
