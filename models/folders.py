"""Folders that hold a whole model, or a whole half of one, checked against the record beside the files.

The record is a hub's list (``models.hub``) or the ``model.yaml`` of BentoML's store (``models.store``). A folder without one is
taken as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.digest import Digest, DigestCache
from models.entry import ModelEntry, ModelFile, Task, in_part
from models.fetch import VERIFIED
from models.hub import read_manifest
from models.search_log import SearchLog
from models.store import read_stored, store_name, stored, workshop
from settings import Settings

log = logging.getLogger(__name__)


def cache_folder(entry: ModelEntry, settings: Settings) -> Path:
    """The folder that the service's own downloads of ``entry`` go to: ``<cache folder>/<task>/<name>``."""
    return settings.cache_folder / entry.task.value / entry.name


def local_folders(entry: ModelEntry, settings: Settings, search: SearchLog) -> list[Path]:
    """Folders on this machine that may hold the model, first come first served."""
    folders = [cache_folder(entry, settings)]
    if entry.task is Task.CLIP and settings.clip_download_root is not None:
        folders.insert(0, settings.clip_download_root / entry.name)
    in_store = stored(entry.name)
    if in_store is not None:
        folders.append(in_store.folder)
    else:
        search.nothing_stored(store_name(entry.name))
    return folders


def digest_cache(folder: Path, entry: ModelEntry, settings: Settings) -> DigestCache:
    """Where digests of files in ``folder`` are remembered: in it if downloads go there, else in the cache folder."""
    own = folder == cache_folder(entry, settings) or folder.is_relative_to(workshop())
    return DigestCache((folder if own else settings.cache_folder) / VERIFIED)


def recorded_digests(folder: Path) -> Mapping[str, Digest] | None:
    """What the files in ``folder`` must be, by name; None where nothing is recorded."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return {name: digest for name, (digest, _) in manifest.files.items()}
    in_store = read_stored(folder)
    return in_store.digests if in_store is not None and in_store.digests else None


def names_of(recorded: Iterable[str], files: tuple[ModelFile, ...], part: str | None) -> list[str]:
    """What to have of a folder: ``files`` and the rest of the part's folder, since large graphs keep weights in files of any name."""
    named = {file.name for file in files}
    return [name for name in recorded if name in named or ("/" in name and (part is None or in_part(name, part)))]


def taken_from(folder: Path, entry: ModelEntry, part: str | None, settings: Settings, search: SearchLog) -> dict[str, Path] | None:
    """The files of ``entry`` in ``folder`` if all that are required are there and right; None, and a note in ``search``, if not."""
    recorded = recorded_digests(folder)
    files = entry.part_files(part)
    if recorded is None:
        names = [file.name for file in files if file.required or (folder / file.name).is_file()]
    else:
        names = list(dict.fromkeys([*names_of(recorded, files, part), *(file.name for file in files if file.required)]))
    lacking = [name for name in names if not (folder / name).is_file() or (recorded is not None and name not in recorded)]
    if lacking:
        search.tried(folder, f"lacks {', '.join(lacking)}" if folder.is_dir() else "no such folder")
        return None
    digests = digest_cache(folder, entry, settings)
    if recorded is not None:
        wrong = [name for name in names if not _is_right(folder / name, recorded[name], digests, search)]
        if wrong:
            return None
    how = "as it is: no digests are known" if recorded is None else "and its digests are right"
    log.info("%s (%s%s) is taken from %s %s.", entry.name, entry.task.value, f", {part}" if part else "", folder, how)
    return {name: folder / name for name in names}


def _is_right(path: Path, expected: Digest, digests: DigestCache, search: SearchLog) -> bool:
    actual = digests.digest(path, expected.algorithm)
    if actual != expected:
        search.wrong(path, actual, {expected})
    return actual == expected
