"""The output of the commands: a table on a terminal, lines with tabs elsewhere, or JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from search.query.answers import Hit, SearchAnswer
    from search.store.records import Failed
    from search.store.statistics import Statistics


def print_model(answer: BaseModel) -> None:
    """Print ``answer`` as one JSON object, in the form of the HTTP API."""
    print(answer.model_dump_json(indent=1))  # noqa: T201


def print_answer(answer: SearchAnswer) -> None:
    """Print the hits, the best first, and on standard error what the answer had to do without."""
    rows = [
        (str(place), hit.name or "", _why(hit), _line(hit), str(hit.id)) for place, hit in enumerate(answer.hits, 1)
    ]
    _print_rows(("", "picture", "found by", "text", "id"), rows)
    if not rows:
        _note("Nothing was found.")
    for note in answer.notes:
        _note(note.message)


def print_failures(found: Sequence[Failed], *, as_json: bool) -> None:
    """Print what failed, the latest first."""
    if as_json:
        print(json.dumps([_failure(one) for one in found], indent=1, ensure_ascii=False))  # noqa: T201
        return
    rows = [
        (
            one.failed_at.astimezone().strftime("%Y-%m-%d %H:%M"),
            *(one.owner, one.uri or str(one.asset_id), one.task, str(one.attempts), one.message),
        )
        for one in found
    ]
    if not rows:
        _note("Nothing has failed.")
    _print_rows(("when", "owner", "file", "task", "tries", "why"), rows)


def print_statistics(found: Statistics) -> None:
    """Print the counts, a line each, and on standard error what is to be known besides."""
    table = Table(show_header=False)
    for name, value in _statistics(found).items():
        table.add_row(name, value)
    Console().print(table)
    for note in found.notes:
        _note(note.message)


def _statistics(found: Statistics) -> Mapping[str, str]:
    return {
        "pictures from": found.source,
        "words cut by": found.cutter,
        "pictures": f"{found.assets:,}",
        "with text": f"{found.read:,}",
        "without text": f"{found.empty:,}",
        "waiting to be read": f"{found.waiting:,}",
        "embedded": f"{found.embedded:,}",
        "failed": f"{found.failed:,}",
        **({} if found.lost is None else {"perhaps lost": f"{found.lost:,}"}),
        "models": ", ".join(name for name in (found.models.clip, found.models.ocr) if name) or "none",
    }


def _failure(one: Failed) -> dict[str, object]:
    return {
        "failed_at": one.failed_at.isoformat(),
        "owner": one.owner,
        "uri": one.uri,
        "asset_id": str(one.asset_id),
        "task": one.task,
        "attempts": one.attempts,
        "message": one.message,
    }


def _why(hit: Hit) -> str:
    parts = [
        *(["exact text" if hit.ocr.exact else "text"] if hit.ocr is not None else []),
        *([f"meaning {hit.clip.similarity:.2f}"] if hit.clip is not None else []),
    ]
    return ", ".join(parts)


def _line(hit: Hit) -> str:
    """Return the first line of text that matches, with the number of further ones."""
    if not hit.lines:
        return ""
    more = f" (and {len(hit.lines) - 1} more)" if len(hit.lines) > 1 else ""
    return " ".join(hit.lines[0].text.split()) + more


def _print_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console = Console()
    if not rows:
        return
    if not console.is_terminal:
        print("\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows))  # noqa: T201
        return
    table = Table(*header)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
