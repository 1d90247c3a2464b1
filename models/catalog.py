"""The models that exist: ``catalog.toml`` and a user's own file, and finding an entry by the name that a request gives.

No model's name is spelled out in code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from errors import ErrorCode, ServiceError
from models.catalog_file import CatalogFile, Override, read_catalog_file
from models.entry import ModelEntry, ModelFile, ModelKind
from models.toml_table import CatalogError

__all__ = [
    "BUILT_IN",
    "Catalog",
    "CatalogError",
    "ModelEntry",
    "ModelFile",
    "ModelKind",
    "load_catalog",
    "normalise_clip_name",
]

BUILT_IN = Path(__file__).with_name("catalog.toml")


def normalise_clip_name(raw: str) -> str:
    """Return the key that Immich looks a CLIP name up by: what follows the last ``/``, with ``:`` as ``_``.

    ``immich-app/ViT-B-32::openai`` is ``ViT-B-32__openai``. From ``cleanModelName`` in Immich's ``utils/misc.ts``.
    """
    return raw.rsplit("/", 1)[-1].replace(":", "_")


class Catalog:
    """All known models. Immutable."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        """Index ``entries`` by name. Raises ``CatalogError`` where two models of one task share a name."""
        self._entries = tuple(entries)
        self._by_name: dict[tuple[ModelKind, str], ModelEntry] = {}
        for entry in self._entries:
            for name in (entry.name, *entry.aliases):
                taken = self._by_name.setdefault((entry.task, name), entry)
                if taken is not entry:
                    raise CatalogError(
                        f"Two {entry.task.value} models are called {name}: of the families {taken.family} and "
                        f"{entry.family}. Give yours another name; to change only the advice of a built-in model, "
                        "write its name and advice, nothing else."
                    )

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Return every model, in the order of the files."""
        return self._entries

    def of_task(self, task: ModelKind) -> tuple[ModelEntry, ...]:
        """Return every model of ``task``."""
        return tuple(entry for entry in self._entries if entry.task is task)

    def find(self, task: ModelKind, name: str) -> ModelEntry:
        """Return the model that ``name`` stands for: a name, an alias, or for CLIP any spelling that Immich accepts.

        Case counts. Raises ``ServiceError`` UNKNOWN_MODEL, with the names closest to it.
        """
        entry = self._by_name.get((task, name))
        if entry is None and task is ModelKind.CLIP:
            entry = self._by_name.get((task, normalise_clip_name(name)))
        if entry is None:
            raise ServiceError(ErrorCode.UNKNOWN_MODEL, self._unknown(task, name))
        return entry

    def _unknown(self, task: ModelKind, name: str) -> str:
        shown = repr(name if len(name) <= 100 else name[:100] + "…")
        close = self._close_names(task, normalise_clip_name(name) if task is ModelKind.CLIP else name)
        known = [entry.name for entry in self.of_task(task)]
        if close:
            hint = f"Did you mean {' or '.join(close)}?"
        elif len(known) <= 20:
            hint = f"Known: {', '.join(known)}."
        else:
            hint = f"Known are {len(known)}, among them {', '.join(known[:5])}."
        return (
            f"No {task.value} model is called {shown}. {hint} `python -m models list` shows all "
            "names; MODEL_CATALOG adds your own."
        )

    def _close_names(self, task: ModelKind, name: str) -> list[str]:
        folded, name = {known.lower(): known for of_task, known in self._by_name if of_task is task}, name[:100].lower()
        longer = [known for known in folded if name and known.startswith(name)]
        close = [*longer[:3], *difflib.get_close_matches(name, folded, n=3, cutoff=0.7)]
        return [folded[known] for known in dict.fromkeys(close)][:3]


def load_catalog(extra: Path | None = None) -> Catalog:
    """Read the built-in catalog, and the user's own file ``extra`` (MODEL_CATALOG) after it.

    Raises ``CatalogError`` naming the file and the entry that is wrong.
    """
    built_in = read_catalog_file(BUILT_IN)
    if extra is None:
        return Catalog(built_in.entries)
    own = read_catalog_file(extra, families=built_in.families)
    return Catalog([*_overridden(built_in, own.overrides, extra), *own.entries])


def _overridden(built_in: CatalogFile, overrides: Mapping[str, Override], path: Path) -> list[ModelEntry]:
    unknown = set(overrides) - {entry.name for entry in built_in.entries}
    if unknown:
        raise CatalogError(
            f"{path}: {', '.join(sorted(unknown))}: only a built-in model may do without `family`. Name the family, "
            "or correct the name."
        )
    return [
        replace(entry, advice=overrides[entry.name].advice) if entry.name in overrides else entry
        for entry in built_in.entries
    ]
