"""Takes a model off this machine: out of BentoML's store and out of the cache folder, and nothing that is the user's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from models import store
from models.entry import ModelEntry
from models.folders import cache_folder
from models.presence import places
from models.pull import model_lock
from settings import Settings


def remove(entry: ModelEntry, settings: Settings) -> tuple[list[Path], list[Path]]:
    """Remove ``entry``, unfinished downloads of it too. Returns the folders that are gone, and those with files of it that stay.

    Folders are renamed before they are emptied, so that nobody finds half a model. Raises ``OSError``.
    """
    with model_lock(entry):
        gone = [model.folder for model in store.remove(entry.name)]
        folder, trash = cache_folder(entry, settings), cache_folder(entry, settings).with_name(f".removed-{entry.name}-{os.getpid()}")
        if folder.is_dir():
            os.replace(folder, trash)
            shutil.rmtree(trash)
            gone.append(folder)
        bench = store.workshop() / store.store_name(entry.name)
        if bench.is_dir():
            shutil.rmtree(bench)
            gone.append(bench)
    return gone, [place.folder for place in places(entry, settings)]
