"""Where the files of a model are on this machine, checked; what is missing is fetched.

Sources, in order: a local folder (CLIP_DOWNLOAD_ROOT, then the cache folder), the BentoML model store, a file that an
installed package ships, a hub. Three kinds of entries differ in who knows what the bytes must be:

- the catalog does (faces, OCR): each file is looked for on its own and taken only if its digest is right;
- the hub does (Immich's CLIP models): its list is kept beside the files (``models.hub``), and they are checked against that;
- nobody does (CN-CLIP converted by the user, a user's own folder): the files are taken as they are, if all are there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import ModelUnavailable
from models.digest import Digest, DigestCache
from models.download import RemoteFile, download, download_lock
from models.entry import HubFile, ModelEntry, ModelFile, PackageFile, RapidOcrFile, Task, UrlFile, in_part
from models.hub import Manifest, file_url, list_repository, read_manifest, write_manifest
from models.installed import package_folder, store_folder, store_name
from models.rapidocr_models import RapidOcrListError, sources_of
from models.search_log import SearchLog
from models.transfer import Patience, TransferFailed
from settings import Settings

log = logging.getLogger(__name__)

_VERIFIED = ".verified.json"


def cache_folder(entry: ModelEntry, settings: Settings) -> Path:
    """The folder that downloads of ``entry`` go to: ``<cache folder>/<task>/<name>``."""
    return settings.cache_folder / entry.task.value / entry.name


def locate(entry: ModelEntry, settings: Settings, part: str | None = None, *, patience: Patience | None = None) -> dict[str, Path]:
    """The files of ``entry`` (of one ``part`` of it: ``visual``, ``textual``, ``detection``, ``recognition``), by their names.

    All required files are there, optional ones where they exist. Digests are checked before the first use and again when a
    file's size, mtime or inode changes. Blocks while files are downloaded; safe to call from several threads and processes at once.

    Raises ``ModelUnavailable``, which names the model, every place that was looked at, and what to do. Raises ``ValueError``
    where the model has no such part.
    """
    files = entry.part_files(part)
    search = SearchLog(entry, settings, cache_folder(entry, settings))
    with _disk_errors(search):
        if entry.folder is not None:
            return _taken_as_is(entry, files, [entry.folder], search) or search.give_up()
        if entry.has_digests:
            return _Checked(entry, settings, search, patience).locate(files)
        if entry.hub is not None:
            return _Listed(entry, entry.hub, settings, search, patience).locate(files, part)
        return _taken_as_is(entry, files, _folders(entry, settings, search), search) or search.give_up()


@contextmanager
def _disk_errors(search: SearchLog) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        search.tried("the disk", f"refused ({error})")
        raise ModelUnavailable(search.message()) from error


def _folders(entry: ModelEntry, settings: Settings, search: SearchLog) -> list[Path]:
    """Local folders that may hold the model, first come first served."""
    folders = [cache_folder(entry, settings)]
    if entry.task is Task.CLIP and settings.clip_download_root is not None:
        folders.insert(0, settings.clip_download_root / entry.name)
    stored = store_folder(entry.name)
    if stored is not None:
        folders.append(stored)
    else:
        search.nothing_stored(store_name(entry.name))
    return folders


def _taken_as_is(entry: ModelEntry, files: tuple[ModelFile, ...], folders: list[Path], search: SearchLog) -> dict[str, Path] | None:
    """The files in the first folder that has all required ones. No digest is known, so none is checked."""
    for folder in folders:
        lacking = [file.name for file in files if file.required and not (folder / file.name).is_file()]
        if not lacking:
            log.info("%s (%s) is taken from %s as it is: no digests are known.", entry.name, entry.task.value, folder)
            return {file.name: folder / file.name for file in files if (folder / file.name).is_file()}
        search.tried(folder, f"lacks {', '.join(lacking)}" if folder.is_dir() else "no such folder")
    return None


class _Checked:
    """Looks for files whose digests the catalog knows, each on its own."""

    def __init__(self, entry: ModelEntry, settings: Settings, search: SearchLog, patience: Patience | None) -> None:
        self._entry, self._settings, self._search, self._patience = entry, settings, search, patience
        self._folder = cache_folder(entry, settings)
        self._own = DigestCache(self._folder / _VERIFIED)
        self._others = DigestCache(settings.cache_folder / _VERIFIED)

    def locate(self, files: tuple[ModelFile, ...]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for file in files:
            path = self._find(file)
            if path is not None:
                found[file.name] = path
        return found

    def _find(self, file: ModelFile) -> Path | None:
        if not file.sources:  # optional, and in no source: a user may have put it into the folder
            path = self._folder / file.name
            return path if path.is_file() else None
        sources = self._sources(file)
        digests = {Digest("sha256", source.sha256) for source in sources}
        local = self._local(file, sources, digests)
        if local is not None:
            return local
        self._search.require_network()
        target = self._folder / file.name
        remotes = [_remote(source, self._settings) for source in sources if not isinstance(source, PackageFile)]
        with download_lock(self._folder):
            # Another process may have been faster.
            if self._matches(target, digests, self._own) or any(self._is_fetched(file, remote) for remote in remotes):
                return target
        return self._search.give_up()

    def _local(self, file: ModelFile, sources: list[PackageFile | HubFile | UrlFile], digests: set[Digest]) -> Path | None:
        cached = self._folder / file.name
        if self._matches(cached, digests, self._own):
            return cached
        stored = store_folder(self._entry.name)
        if stored is None:
            self._search.nothing_stored(store_name(self._entry.name))
        elif self._matches(stored / file.name, digests, self._others):
            return stored / file.name
        for source in sources:
            if isinstance(source, PackageFile):
                folder = package_folder(source.package)
                if folder is None:
                    self._search.tried(f"the Python package {source.package}", "not installed")
                elif self._matches(folder / source.path, {Digest("sha256", source.sha256)}, self._others):
                    return folder / source.path
        return None

    def _matches(self, path: Path, digests: set[Digest], cache: DigestCache) -> bool:
        if not path.is_file():
            self._search.tried(path, "not there")
            return False
        actual = cache.digest(path, "sha256")
        if actual not in digests:
            self._search.wrong(path, actual, digests)
        return actual in digests

    def _sources(self, file: ModelFile) -> list[PackageFile | HubFile | UrlFile]:
        sources: list[PackageFile | HubFile | UrlFile] = []
        for source in file.sources:
            if isinstance(source, RapidOcrFile):
                try:
                    sources.extend(sources_of(source.key))
                except RapidOcrListError as error:
                    self._search.tried("rapidocr", str(error))
                    self._search.give_up()
            else:
                sources.append(source)
        return sources

    def _is_fetched(self, file: ModelFile, remote: RemoteFile) -> bool:
        try:
            _fetch(self._entry, file.name, remote, self._folder, self._patience)
        except TransferFailed as error:
            self._search.tried(remote.url, str(error))
            return False
        return True


class _Listed:
    """Looks for files whose digests the hub knows, all files of a part together."""

    def __init__(self, entry: ModelEntry, repo: str, settings: Settings, search: SearchLog, patience: Patience | None) -> None:
        self._entry, self._repo, self._settings, self._search, self._patience = entry, repo, settings, search, patience
        self._folder = cache_folder(entry, settings)

    def locate(self, files: tuple[ModelFile, ...], part: str | None) -> dict[str, Path]:
        for folder in _folders(self._entry, self._settings, self._search):
            found = self._in_folder(folder, files, part)
            if found is not None:
                return found
        self._search.require_network()
        with download_lock(self._folder):
            found = self._in_folder(self._folder, files, part)  # another process was faster
            return found if found is not None else self._fetch_part(files, part)

    def _in_folder(self, folder: Path, files: tuple[ModelFile, ...], part: str | None) -> dict[str, Path] | None:
        manifest = read_manifest(folder)
        if manifest is None:
            return _taken_as_is(self._entry, files, [folder], self._search)
        names = _names(manifest, files, part)
        lacking = [name for name in names if not (folder / name).is_file()]
        lacking += [file.name for file in files if file.required and file.name not in manifest.files]
        if lacking:
            self._search.tried(folder, f"lacks {', '.join(lacking)}")
            return None
        wrong = [name for name in names if not self._is_right(manifest, folder, name)]
        return None if wrong else {name: folder / name for name in names}

    def _is_right(self, manifest: Manifest, folder: Path, name: str) -> bool:
        own = folder == self._folder
        cache = DigestCache((folder if own else self._settings.cache_folder) / _VERIFIED)
        expected, _ = manifest.files[name]
        actual = cache.digest(folder / name, expected.algorithm)
        if actual != expected:
            self._search.wrong(folder / name, actual, {expected})
        return actual == expected

    def _fetch_part(self, files: tuple[ModelFile, ...], part: str | None) -> dict[str, Path]:
        try:
            manifest = self._list()
            missing = [file.name for file in files if file.required and file.name not in manifest.files]
            if missing:
                raise TransferFailed(f"the repository has no {', '.join(missing)}")
            # Before the files: whatever is found beside it later must be what it says.
            write_manifest(self._folder, manifest)
            names = _names(manifest, files, part)
            for name in names:
                target = self._folder / name
                if not (target.is_file() and self._is_right(manifest, self._folder, name)):
                    _fetch(self._entry, name, manifest.remote(self._settings.hf_endpoint, name), self._folder, self._patience)
            return {name: self._folder / name for name in names}
        except TransferFailed as error:
            self._search.tried(f"{self._settings.hf_endpoint.rstrip('/')}/{self._repo}", str(error))
            self._search.give_up()

    def _list(self) -> Manifest:
        """The revision that the other half came from, so that both fit; the newest where the hub has that one no more."""
        known = read_manifest(self._folder)
        if known is not None and known.repo == self._repo:
            try:
                return list_repository(self._settings.hf_endpoint, self._repo, known.commit, self._patience)
            except TransferFailed as error:
                if error.status != 404:
                    raise
        return list_repository(self._settings.hf_endpoint, self._repo, patience=self._patience)


def _names(manifest: Manifest, files: tuple[ModelFile, ...], part: str | None) -> list[str]:
    """What to have of a repository: ``files`` and the rest of the part's folder, since large graphs keep weights in files of any name."""
    named = {file.name for file in files}
    return [name for name in manifest.files if name in named or ("/" in name and (part is None or in_part(name, part)))]


def _remote(source: HubFile | UrlFile, settings: Settings) -> RemoteFile:
    url = file_url(settings.hf_endpoint, source.repo, source.path) if isinstance(source, HubFile) else source.url
    return RemoteFile(url, Digest("sha256", source.sha256), source.bytes)


def _fetch(entry: ModelEntry, name: str, remote: RemoteFile, folder: Path, patience: Patience | None) -> None:
    """Download into ``folder``, the entry's own, and remember that the bytes are right. Raises ``TransferFailed``."""
    target = folder / name
    download(remote, target, title=f"{name} of {entry.name} ({entry.task.value}) to {folder}", patience=patience)
    DigestCache(folder / _VERIFIED).remember(target, remote.digest)
    log.info("%s of %s is here and its digest is right.", name, entry.name)
