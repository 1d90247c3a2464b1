"""The list of models, known and here, as a table for people and as JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from models.entry import HubFile, ModelEntry, PackageFile, UrlFile
from models.places import Place, places
from models.progress import Progress, on_its_way
from settings import Settings


@dataclass(frozen=True, slots=True)
class Row:
    """One model."""

    entry: ModelEntry
    places: tuple[Place, ...]
    """Those that hold all of it."""
    on_its_way: Progress | None
    """Its progress, where some process is fetching or converting it now."""
    bytes: int | None
    """On disk if it is here, else what the catalog says; None where nobody knows before a download."""


def rows(entries: Iterable[ModelEntry], settings: Settings) -> list[Row]:
    """Return one row per model. Bytes of files are not read. Raises ``OSError``."""
    return [_row(entry, settings) for entry in entries]


def as_table(rows: Iterable[Row]) -> str:
    """Return lines with the columns name, task, size, where it is, licence."""
    cells = [("NAME", "TASK", "SIZE", "HERE", "LICENCE")]
    for row in rows:
        here = ", ".join(dict.fromkeys(place.kind for place in row.places)) or "-"
        if row.on_its_way is not None:
            here = _moving(row.on_its_way)
        cells.append((row.entry.name, row.entry.task.value, _size(row.bytes), here, row.entry.licence))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]) for line in cells
    )


def as_json(rows: Iterable[Row]) -> str:
    """Return a JSON list of objects; ``here`` lists the places that hold all of a model."""
    return json.dumps([_object(row) for row in rows], indent=1, ensure_ascii=False)


def _object(row: Row) -> dict[str, object]:
    entry = row.entry
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "task": entry.task.value,
        "family": entry.family,
        "embedding_size": entry.embedding_size,
        "bytes": row.bytes,
        "here": [{"kind": place.kind, "folder": str(place.folder), "bytes": place.bytes} for place in row.places],
        "on_its_way": _on_its_way(row.on_its_way),
        "licence": entry.licence,
        "advice": entry.advice,
    }


def _moving(progress: Progress) -> str:
    if progress.since:
        return "waiting for a hub"
    return "asking hubs" if progress.state == "asking" else f"{progress.state} {progress.percent or 0} %"


def _on_its_way(progress: Progress | None) -> dict[str, object] | None:
    if progress is None:
        return None
    return {
        "state": progress.state,
        "step": progress.step,
        "bytes": progress.bytes,
        "total": progress.total,
        "percent": progress.percent,
        "seconds_left": progress.seconds_left,
        "since": progress.since or None,
        "again": progress.again or None,
    }


def _row(entry: ModelEntry, settings: Settings) -> Row:
    whole = tuple(place for place in places(entry, settings) if place.whole)
    progress = on_its_way(entry.task, entry.name, settings)
    return Row(entry, whole, progress, whole[0].bytes if whole else _known_size(entry))


def _known_size(entry: ModelEntry) -> int | None:
    if entry.download is not None:
        return entry.download
    if entry.checkpoint is not None:
        return entry.checkpoint.bytes
    total = 0
    for file in entry.files:
        sizes = [
            source.bytes
            for source in file.sources
            if isinstance(source, (PackageFile, HubFile, UrlFile)) and source.bytes
        ]
        if file.required and not sizes:
            return None
        total += sizes[0] if sizes else 0
    return total


def _size(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.0f} MB"
