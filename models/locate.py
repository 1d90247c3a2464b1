"""Where the files of a model are on this machine, checked; what is missing is fetched.

Sources, in order: a local folder (CLIP_DOWNLOAD_ROOT, then the cache folder), the BentoML model store, a file that an
installed package ships, a hub. Three kinds of entries differ in who knows what the bytes must be:

- the catalog does (faces, OCR): ``models.checked``;
- the hub does (Immich's CLIP models): ``models.listed``;
- nobody does beforehand (CN-CLIP, a user's own folder): a model that was converted or pulled has its digests in the store and is
  checked against them; any other folder is taken as it is, if all files are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import ModelUnavailable
from models.checked import CheckedFiles
from models.entry import ModelEntry
from models.fetch import Fetching
from models.folders import cache_folder, local_folders, taken_from
from models.listed import ListedFiles
from models.search_log import SearchLog
from models.transfer import Patience
from settings import Settings

__all__ = ["cache_folder", "locate"]


def locate(
    entry: ModelEntry,
    settings: Settings,
    part: str | None = None,
    *,
    patience: Patience | None = None,
    fetching: Fetching | None = None,
) -> dict[str, Path]:
    """The files of ``entry`` (of one ``part`` of it: ``visual``, ``textual``, ``detection``, ``recognition``), by their names.

    All required files are there, optional ones where they exist. Digests are checked before the first use and again when a
    file's size, mtime or inode changes. Blocks while files are downloaded; safe to call from several threads and processes at once.
    ``fetching``: where downloads go, if not to the cache folder.

    Raises ``ModelUnavailable``, which names the model, every place that was looked at, and what to do. Raises ``ValueError``
    where the model has no such part.
    """
    files = entry.part_files(part)
    search = SearchLog(entry, settings, cache_folder(entry, settings))
    fetching = fetching or Fetching(cache_folder(entry, settings), patience)
    with disk_errors(search):
        if entry.has_digests and entry.folder is None:
            return CheckedFiles(entry, settings, search, fetching).locate(files)
        if entry.hub is not None:
            return ListedFiles(entry, entry.hub, settings, search, fetching).locate(part)
        for folder in [entry.folder] if entry.folder is not None else local_folders(entry, settings, search):
            found = taken_from(folder, entry, part, settings, search)
            if found is not None:
                return found
        return search.give_up()


@contextmanager
def disk_errors(search: SearchLog) -> Iterator[None]:
    """Turns ``OSError`` into ``ModelUnavailable``."""
    try:
        yield
    except OSError as error:
        search.tried("the disk", f"refused ({error})")
        raise ModelUnavailable(search.message()) from error
