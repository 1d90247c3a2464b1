"""What of a model is on this machine, and whether its bytes are right: each place is looked at on its own, and read anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from errors import ModelUnavailable
from models import store
from models.checked import CheckedFiles, expected_digests
from models.digest import Digest, digest_of
from models.entry import ModelEntry, Task
from models.fetch import Fetching
from models.folders import cache_folder, recorded_digests
from models.search_log import SearchLog
from settings import Settings

Kind = Literal["folder", "cache", "store", "package"]


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that files of a model lie."""

    kind: Kind
    folder: Path
    files: Mapping[str, Path]
    """The model's files that are there, by name."""
    whole: bool
    """Whether every required file is there, or in an installed package."""

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What reading every byte in one place came to."""

    state: Literal["right", "unchecked", "incomplete", "damaged"]
    detail: str

    @property
    def good(self) -> bool:
        return self.state in ("right", "unchecked")


def places(entry: ModelEntry, settings: Settings) -> list[Place]:
    """Every place with files of ``entry``, in the order in which the service looks. Bytes are not read."""
    shipped = _shipped(entry, settings)
    found = []
    for kind, folder in _folders(entry, settings):
        files = _files_in(folder, entry)
        if files:
            lacking = [file.name for file in entry.files if file.required and file.name not in files and file.name not in shipped]
            found.append(Place(kind, folder, files, not lacking))
    if shipped and all(file.name in shipped for file in entry.files if file.required):
        found.append(Place("package", next(iter(shipped.values())).parent, shipped, whole=True))
    return found


def verify(entry: ModelEntry, place: Place, settings: Settings) -> Verdict:
    """Read every file in ``place``. Raises ``OSError``."""
    search = SearchLog(entry, settings, place.folder)
    expected: dict[str, set[Digest]] = {}
    if entry.has_digests:
        expected = expected_digests(entry, search)
    else:
        recorded = recorded_digests(place.folder)
        if recorded is not None:
            expected = {name: {digest} for name, digest in recorded.items()}
    wrong = [name for name, path in place.files.items() if name in expected and not _is_one_of(path, expected[name])]
    if wrong:
        return Verdict("damaged", f"wrong bytes: {', '.join(wrong)}")
    lacking = _lacking(entry, place, expected)
    if lacking:
        return Verdict("incomplete", f"lacks {', '.join(lacking)}")
    if not expected:
        return Verdict("unchecked", "nobody knows its digests")
    return Verdict("right", f"{len(place.files)} files")


def _lacking(entry: ModelEntry, place: Place, expected: Mapping[str, set[Digest]]) -> list[str]:
    required = [] if place.whole else [file.name for file in entry.files if file.required]
    # The store holds whole models; a hub's list may name more than was fetched of it.
    recorded = list(expected) if place.kind == "store" and not entry.has_digests else []
    return [name for name in dict.fromkeys([*required, *recorded]) if name not in place.files]


def _folders(entry: ModelEntry, settings: Settings) -> list[tuple[Kind, Path]]:
    if entry.folder is not None:
        return [("folder", entry.folder)]
    folders: list[tuple[Kind, Path]] = []
    if entry.task is Task.CLIP and settings.clip_download_root is not None:
        folders.append(("folder", settings.clip_download_root / entry.name))
    folders.append(("cache", cache_folder(entry, settings)))
    return [*folders, *(("store", model.folder) for model in store.all_stored(entry.name))]


def _files_in(folder: Path, entry: ModelEntry) -> dict[str, Path]:
    recorded = recorded_digests(folder) or {}
    names = dict.fromkeys([*(file.name for file in entry.files), *recorded])
    return {name: folder / name for name in names if (folder / name).is_file()}


def _shipped(entry: ModelEntry, settings: Settings) -> dict[str, Path]:
    if not entry.has_digests:
        return {}
    search = SearchLog(entry, settings, cache_folder(entry, settings))
    try:
        return CheckedFiles(entry, settings, search, Fetching(cache_folder(entry, settings))).in_packages(entry.files)
    except ModelUnavailable:  # the installed rapidocr is another one
        return {}


def _is_one_of(path: Path, digests: set[Digest]) -> bool:
    return digest_of(path, next(iter(digests)).algorithm) in digests
