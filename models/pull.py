"""Puts a model into BentoML's store: from this machine, from a folder that somebody carried here, or from a hub."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models import store
from models.carried import carried_files
from models.checked import CheckedFiles, expected_digests
from models.download import Progress
from models.entry import ModelEntry
from models.fetch import Fetching
from models.folders import cache_folder, taken_from
from models.hub import read_manifest
from models.locate import disk_errors, locate
from models.search_log import SearchLog
from models.transfer import Patience
from settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of one pull."""

    how: Literal["stored", "already stored", "in a package", "in your folder"]
    folder: Path
    tag: str = ""


def pull(
    entry: ModelEntry,
    settings: Settings,
    *,
    carried: Path | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Have all of ``entry`` in the store. What is elsewhere on this machine is linked, not copied, where the disk allows.

    ``carried``: a folder that holds the files, in our layout or under their original names; no network is asked then. Models that
    installed packages ship whole, and a user's own folders, stay where they are. Blocks while another process pulls the same model.

    Raises ``ModelUnavailable``, ``NotStored``, ``OSError``.
    """
    if entry.folder is not None:
        locate(entry, settings)
        return Pulled("in your folder", entry.folder)
    search = SearchLog(entry, settings, cache_folder(entry, settings))
    bench = store.workshop() / store.store_name(entry.name)
    fetching = Fetching(bench, patience, progress)
    with disk_errors(search):
        shipped = CheckedFiles(entry, settings, search, fetching).in_packages(entry.files) if entry.has_digests else {}
        if shipped and all(file.name in shipped for file in entry.files if file.required):
            return Pulled("in a package", next(iter(shipped.values())).parent)
        with model_lock(entry):
            there = stored_whole(entry, settings)
            if there is not None:
                return Pulled("already stored", there.folder, there.tag)
            if carried is not None:
                files = {**shipped, **carried_files(entry, carried, settings, search, shipped)}
                source = str(carried.resolve())
            else:
                files = locate(entry, settings, patience=patience, fetching=fetching)
                source = _source(entry, bench)
            folder = store.save(entry, files, {"source": source})
            shutil.rmtree(bench, ignore_errors=True)
    return Pulled("stored", folder, f"{folder.parent.name}:{folder.name}")


@contextmanager
def model_lock(entry: ModelEntry) -> Iterator[None]:
    """Keep other processes and threads from storing or removing the model. Raises ``OSError``."""
    store.workshop().mkdir(parents=True, exist_ok=True)
    with (store.workshop() / f"{store.store_name(entry.name)}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Another process is at work on %s; waiting for it.", entry.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stored_whole(entry: ModelEntry, settings: Settings) -> store.StoredModel | None:
    """The stored version of ``entry`` if all of it is there, and is what the catalog and the version's own record say."""
    model = store.stored(entry.name)
    if model is None or not model.digests:
        return None
    search = SearchLog(entry, settings, model.folder)
    if any(model.digests.get(name) not in known for name, known in expected_digests(entry, search).items()):
        return None
    return model if taken_from(model.folder, entry, None, settings, search) is not None else None


def _source(entry: ModelEntry, bench: Path) -> str:
    """Where the bytes came from, for the record."""
    manifest = read_manifest(bench)
    if manifest is not None:
        return f"{manifest.repo}@{manifest.commit}"
    return "this machine" if entry.hub is None and not entry.has_digests else "the catalog's sources"
