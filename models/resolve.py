"""Finds the files of a model: on this machine, checked, else fetched from where the catalog says.

Places, in order: a local folder (CLIP_DOWNLOAD_ROOT, then the cache folder), BentoML's model store, a file that an
installed package ships, a hub. Of a model whose digests the catalog knows each file is looked for on its own; of any
other one, a whole part is taken from one folder.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from models.digest import Digest, DigestCache
from models.download import Progress, RemoteFile, download, download_lock
from models.entry import HubFile, ModelEntry, PackageFile, UrlFile
from models.hub import Manifest, file_url, list_repository, read_manifest, write_manifest
from models.lookup import Lookup
from models.paths import path_below
from models.places import (
    VERIFIED,
    cache_folder,
    digest_cache,
    known_sources,
    local_folders,
    names_of,
    take_file,
    take_folder,
)
from models.transfer import Limits, TransferFailed
from settings import Settings
from settings.addresses import shown_url

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Destination:
    """Where downloads of a model go, within which limits, and who is told how far they are."""

    folder: Path
    limits: Limits
    progress: Progress | None


def resolve(
    entry: ModelEntry,
    settings: Settings,
    part: str | None = None,
    *,
    downloads: Path | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Return the files of `entry` by their names: of one `part` (``visual``, ``detection``, …) or of all.

    All required files are there, optional ones where they exist. Digests are checked before the first use and again
    when a file's size, mtime or inode changes. Blocks while files are downloaded; safe to call from several threads and
    processes at once. `downloads`: where downloads go, if not to the cache folder; what an earlier, broken one left
    there is continued. `progress` is told of the bytes that come.

    Raises ``ModelUnavailable``, which names the model, every place that was looked at, and what to do. Raises
    ``ValueError`` where the model has no such part.
    """
    entry.part_files(part)
    lookup = Lookup(entry, settings)
    to = _Destination(downloads or cache_folder(entry, settings), limits or Limits(), progress)
    with lookup.errors():
        found = find_local(part, lookup, to.folder)
        if found is not None:
            return found
        if entry.folder is not None or not (entry.has_digests or entry.hub):
            lookup.give_up()
        lookup.require_network()
        with download_lock(to.folder):
            found = find_local(part, lookup, to.folder)  # another process may have been faster
            return found if found is not None else _fetch(part, lookup, to)


def find_local(part: str | None, lookup: Lookup, downloads: Path) -> dict[str, Path] | None:
    """Return the files of `part` that are on this machine, checked, by name; None if a required one is not.

    `downloads`: a folder to look at first. Raises ``OSError``, ``RapidOcrListError``.
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


def _fetch(part: str | None, lookup: Lookup, to: _Destination) -> dict[str, Path]:
    """Download what is missing of `part`. The caller holds the lock. Raises ``ModelUnavailable``, ``OSError``."""
    if lookup.entry.hub is not None:
        return _fetch_repository(part, lookup.entry.hub, lookup, to)
    for file in lookup.entry.part_files(part):
        if file.sources and take_file(file, _folders(lookup, to.folder), lookup) is None:
            sources = [source for source in known_sources(file) if not isinstance(source, PackageFile)]
            remotes = [_remote(source, lookup.settings.hf_endpoint) for source in sources]
            if not any(_is_fetched(file.name, remote, lookup, to) for remote in remotes):
                lookup.give_up()
    found = find_local(part, lookup, to.folder)
    return found if found is not None else lookup.give_up()


def _fetch_repository(part: str | None, repo: str, lookup: Lookup, to: _Destination) -> dict[str, Path]:
    """Download a part of a repository, and keep the hub's own digests beside the files."""
    files = lookup.entry.part_files(part)
    endpoint = lookup.settings.hf_endpoint
    try:
        manifest = _manifest(repo, endpoint, to)
        missing = [file.name for file in files if file.required and file.name not in manifest.files]
        if missing:
            raise TransferFailed(f"the repository has no {', '.join(missing)}")
        # Before the files: whatever is found beside it later must be what it says.
        write_manifest(to.folder, manifest)
        names = names_of(manifest.files, files, part)
        digests = digest_cache(to.folder, lookup.entry, lookup.settings)
        for name in names:
            path, (expected, _) = to.folder / name, manifest.files[name]
            if not path.is_file() or digests.digest(path, expected.algorithm) != expected:
                _download(name, manifest.remote(endpoint, name), lookup.entry, to)
        return {name: to.folder / name for name in names}
    except TransferFailed as error:
        lookup.tried(shown_url(f"{endpoint.rstrip('/')}/{repo}"), str(error))
        lookup.give_up()


def _manifest(repo: str, endpoint: str, to: _Destination) -> Manifest:
    """Return the list of the revision that the other part came from, so that both fit; else of the newest one."""
    known = read_manifest(to.folder)
    if known is not None and known.repo == repo:
        try:
            return list_repository(endpoint, repo, known.commit, limits=to.limits)
        except TransferFailed as error:
            if error.status != 404:  # the hub has that revision no more
                raise
    return list_repository(endpoint, repo, limits=to.limits)


def _remote(source: HubFile | UrlFile, endpoint: str) -> RemoteFile:
    url = file_url(endpoint, source.repo, source.path) if isinstance(source, HubFile) else source.url
    return RemoteFile(url, Digest("sha256", source.sha256), source.bytes)


def _is_fetched(name: str, remote: RemoteFile, lookup: Lookup, to: _Destination) -> bool:
    try:
        _download(name, remote, lookup.entry, to)
    except TransferFailed as error:
        lookup.tried(shown_url(remote.url), str(error))
        return False
    return True


def _download(name: str, remote: RemoteFile, entry: ModelEntry, to: _Destination) -> None:
    """Download one file and remember that its bytes are right. Raises ``TransferFailed``, ``OSError``."""
    title = f"{name} of {entry.name} ({entry.task.value}) to {to.folder}"
    target = path_below(to.folder, name)
    download(remote, target, title=title, limits=to.limits, progress=to.progress)
    DigestCache(to.folder / VERIFIED).remember(target, remote.digest)
    log.info("%s of %s is here and its digest is right.", name, entry.name)
