"""Finds the files of a model: on this machine, checked, else fetched from where the catalog says.

Places, in order: a local folder (CLIP_DOWNLOAD_ROOT, then the cache folder), BentoML's model store, a file that an
installed package ships, a hub. Of a model whose digests the catalog knows each file is looked for on its own; of any
other one, a whole part is taken from one folder.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from models.checkpoint import WORK, fetch_and_convert
from models.download import download_lock, is_locked
from models.entry import ModelEntry
from models.fetch import Destination, fetch_file, fetch_repository
from models.lookup import Lookup
from models.places import cache_folder, local_folders, take_file, take_folder
from models.progress import Progress, Reporter
from models.transfer import Limits
from settings import Settings

log = logging.getLogger(__name__)


def resolve(
    entry: ModelEntry,
    settings: Settings,
    part: str | None = None,
    *,
    downloads: Path | None = None,
    limits: Limits | None = None,
    listener: Callable[[Progress], None] | None = None,
) -> dict[str, Path]:
    """Return the files of ``entry`` by their names: of one ``part`` (``visual``, ``detection``, …) or of all.

    All required files are there, optional ones where they exist. Digests are checked before the first use and again
    when a file's size, mtime or inode changes. Blocks while files are downloaded and converted; safe to call from
    several threads and processes at once, of which one fetches. ``downloads``: where downloads go, if not to the cache
    folder; what an earlier, broken one left there is continued. ``listener`` is told how far it is, in place of the
    log.

    Raises ``ModelUnavailable``, which names the model, every place that was looked at, and what to do. Raises
    ``ValueError`` where the model has no such part.
    """
    entry.part_files(part)
    lookup = Lookup(entry, settings)
    folder = downloads or cache_folder(entry, settings)
    with lookup.as_model_unavailable():
        found = find_local(part, lookup, folder)
        if found is not None:
            _clean(folder, entry, settings)
            return found
        if entry.folder is not None or not (entry.has_digests or entry.hub or entry.checkpoint):
            lookup.give_up()
        lookup.require_network()
        with download_lock(folder):
            found = find_local(part, lookup, folder)  # another process may have been faster
            if found is None:
                with Reporter(entry, settings, folder, listener) as reporter:
                    found = _fetch(part, lookup, Destination(folder, limits or Limits(), reporter))
            return found


def _clean(folder: Path, entry: ModelEntry, settings: Settings) -> None:
    """Remove the checkpoint that a process left in ``folder`` which was killed when the model was whole already.

    It stays where a part is missing, which can be made of it, and while another process is at work.
    """
    work = folder / WORK
    if settings.keep_checkpoints or entry.checkpoint is None or work.is_symlink() or not work.is_dir():
        return
    try:
        if not is_locked(folder) and find_local(None, Lookup(entry, settings), folder) is not None:
            with download_lock(folder):
                if work.is_dir():  # else another process was faster
                    shutil.rmtree(work)
    except OSError as error:
        log.warning("%s is of no use any more and cannot be removed: %s.", work, error)


def find_local(part: str | None, lookup: Lookup, downloads: Path) -> dict[str, Path] | None:
    """Return the files of ``part`` that are on this machine, checked, by name; None if a required one is not.

    ``downloads``: a folder to look at first. Raises ``OSError``, ``RapidOcrListError``.
    """
    entry = lookup.entry
    folders = _folders(lookup, downloads)
    if not entry.has_digests or entry.folder is not None:
        return next((files for folder in folders if (files := take_folder(folder, part, lookup)) is not None), None)
    found: dict[str, Path] = {}
    for file in entry.part_files(part):
        if file.sources:
            path = take_file(file, folders, lookup)
            if path is None:
                return None
            found[file.name] = path
        elif (own := cache_folder(entry, lookup.settings) / file.name).is_file():  # an optional file of the user's
            found[file.name] = own
    return found


def _folders(lookup: Lookup, downloads: Path) -> list[Path]:
    folders = local_folders(lookup)
    return folders if downloads in folders or lookup.entry.folder is not None else [downloads, *folders]


def _fetch(part: str | None, lookup: Lookup, destination: Destination) -> dict[str, Path]:
    """Download what is missing of ``part``. Raises ``ModelUnavailable``, ``NotEnough``, ``OSError``."""
    entry = lookup.entry
    if entry.hub is not None:
        return fetch_repository(part, entry.hub, lookup, destination)
    if entry.checkpoint is not None:
        fetch_and_convert(entry.checkpoint, lookup, destination)
    else:
        for file in entry.part_files(part):
            if file.sources and take_file(file, _folders(lookup, destination.folder), lookup) is None:
                fetch_file(file, lookup, destination)
    found = find_local(part, lookup, destination.folder)
    if found is None:
        lookup.give_up()
    return found
