"""The succession of CLIP models: what has to be done again when another answers than before, told before it does.

Which one answered last is kept in the service's cache folder.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from models.catalog import Catalog
from models.durable import clear_path
from models.entry import ModelEntry, ModelKind
from settings import Settings

log = logging.getLogger(__name__)

_RECORD = "clip-model"
"""File below the cache folder: the catalog's name of the model that CLIP_MODEL chose at the last start."""
_IMMICHS = "whatever Immich names"
"""In place of a name, where CLIP_MODEL was not set."""
_PICTURES = 10_000


def succeeded(settings: Settings) -> str | None:
    """Return what answered CLIP requests at the last start: a model's name, or ``whatever Immich names``.

    None where no start was recorded.
    """
    try:
        path = _record(settings)
        return (path.read_text(encoding="utf-8").strip() or None) if path.is_file() else None  # a pipe would block
    except (OSError, UnicodeDecodeError):
        return None


def record(entry: ModelEntry | None, settings: Settings) -> None:
    """Keep that ``entry`` answers CLIP requests from now on. None: whatever Immich names."""
    name = entry.name if entry is not None else _IMMICHS
    if succeeded(settings) == name:
        return
    try:
        settings.cache_folder.mkdir(parents=True, exist_ok=True)
        clear_path(_record(settings), unless=stat.S_ISREG)
        _record(settings).write_text(name + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("%s cannot be written (%s): the next change of CLIP_MODEL will not be told.", error.filename, error)


def succession(entry: ModelEntry | None, catalog: Catalog, settings: Settings) -> str | None:
    """Return what has to be done again, and how long it takes, if ``entry`` answers from now on. None: nothing, or
    nobody knows what answered before.

    ``entry``: None for whatever Immich names.
    """
    before, after = succeeded(settings), entry.name if entry is not None else _IMMICHS
    if before is None or before == after:
        return None
    other_size = entry is not None and entry.embedding_size != _size(before, catalog)
    first = f"choose a CLIP model of {entry.embedding_size} numbers, then " if entry is not None and other_size else ""
    back = f"CLIP_MODEL={before}" if before != _IMMICHS else "CLIP_MODEL unset"
    return (
        f"{after} in place of {before}: vectors of two CLIP models cannot be compared, so all pictures have to be done "
        f"again. In Immich {first}run Smart Search → All and restart its server; index folders again "
        "(`python -m search index`)."
        f"{_duration(entry)} To keep what there is, start with {back} before Immich asks for anything."
    )


def _record(settings: Settings) -> Path:
    return settings.cache_folder / _RECORD


def _size(name: str, catalog: Catalog) -> int | None:
    known = (entry.embedding_size for entry in catalog.of_task(ModelKind.CLIP) if entry.name == name)
    return next(known, None)


def _duration(entry: ModelEntry | None) -> str:
    """Return a sentence with the time that a library takes, where it was measured."""
    if entry is None or entry.milliseconds is None:
        return ""
    minutes = entry.milliseconds * _PICTURES / 60_000
    said = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"
    return f" Two cores take about {said} for {_PICTURES:,} pictures."
