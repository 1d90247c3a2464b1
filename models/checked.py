"""Models whose digests the catalog knows (faces, OCR): each file is looked for on its own, and taken only if its digest is right."""

from __future__ import annotations

from pathlib import Path

from models.digest import Digest, DigestCache
from models.download import RemoteFile, download_lock
from models.entry import HubFile, ModelEntry, ModelFile, PackageFile, RapidOcrFile, UrlFile
from models.fetch import VERIFIED, Fetching
from models.folders import cache_folder, digest_cache
from models.hub import file_url
from models.installed import package_folder
from models.rapidocr_models import RapidOcrListError, sources_of
from models.search_log import SearchLog
from models.store import store_name, stored
from models.transfer import TransferFailed
from settings import Settings


class CheckedFiles:
    """One search for such a model's files."""

    def __init__(self, entry: ModelEntry, settings: Settings, search: SearchLog, fetching: Fetching) -> None:
        self._entry, self._settings, self._search, self._fetching = entry, settings, search, fetching

    def locate(self, files: tuple[ModelFile, ...]) -> dict[str, Path]:
        """The files by name. Raises ``ModelUnavailable``, ``OSError``."""
        found: dict[str, Path] = {}
        for file in files:
            path = self._find(file)
            if path is not None:
                found[file.name] = path
        return found

    def in_packages(self, files: tuple[ModelFile, ...]) -> dict[str, Path]:
        """Those of ``files`` that installed Python packages ship, by name."""
        found = {file.name: self._in_package(known_sources(file, self._search)) for file in files if file.sources}
        return {name: path for name, path in found.items() if path is not None}

    def _find(self, file: ModelFile) -> Path | None:
        if not file.sources:  # optional, and in no source: a user may have put it into the folder
            path = cache_folder(self._entry, self._settings) / file.name
            return path if path.is_file() else None
        sources = known_sources(file, self._search)
        digests = {Digest("sha256", source.sha256) for source in sources}
        local = self._local(file, sources, digests)
        if local is not None:
            return local
        self._search.require_network()
        target = self._fetching.folder / file.name
        remotes = [_remote(source, self._settings) for source in sources if not isinstance(source, PackageFile)]
        with download_lock(self._fetching.folder):
            # Another process may have been faster.
            if self._is_right_in(self._fetching.folder, file, digests) or any(self._is_fetched(file, remote) for remote in remotes):
                return target
        return self._search.give_up()

    def _local(self, file: ModelFile, sources: list[PackageFile | HubFile | UrlFile], digests: set[Digest]) -> Path | None:
        folders = [cache_folder(self._entry, self._settings)]
        if self._fetching.folder not in folders:
            folders.insert(0, self._fetching.folder)
        in_store = stored(self._entry.name)
        if in_store is None:
            self._search.nothing_stored(store_name(self._entry.name))
        else:
            folders.append(in_store.folder)
        for folder in folders:
            if self._is_right_in(folder, file, digests):
                return folder / file.name
        return self._in_package(sources)

    def _in_package(self, sources: list[PackageFile | HubFile | UrlFile]) -> Path | None:
        cache = DigestCache(self._settings.cache_folder / VERIFIED)
        for source in sources:
            if isinstance(source, PackageFile):
                folder = package_folder(source.package)
                if folder is None:
                    self._search.tried(f"the Python package {source.package}", "not installed")
                elif self._matches(folder / source.path, {Digest("sha256", source.sha256)}, cache):
                    return folder / source.path
        return None

    def _is_right_in(self, folder: Path, file: ModelFile, digests: set[Digest]) -> bool:
        return self._matches(folder / file.name, digests, digest_cache(folder, self._entry, self._settings))

    def _matches(self, path: Path, digests: set[Digest], cache: DigestCache) -> bool:
        if not path.is_file():
            self._search.tried(path, "not there")
            return False
        actual = cache.digest(path, "sha256")
        if actual not in digests:
            self._search.wrong(path, actual, digests)
        return actual in digests

    def _is_fetched(self, file: ModelFile, remote: RemoteFile) -> bool:
        try:
            self._fetching.fetch(self._entry, file.name, remote)
        except TransferFailed as error:
            self._search.tried(remote.url, str(error))
            return False
        return True


def known_sources(file: ModelFile, search: SearchLog) -> list[PackageFile | HubFile | UrlFile]:
    """The sources of ``file``, those that rapidocr lists looked up. Raises ``ModelUnavailable``."""
    sources: list[PackageFile | HubFile | UrlFile] = []
    for source in file.sources:
        if isinstance(source, RapidOcrFile):
            try:
                sources.extend(sources_of(source.key))
            except RapidOcrListError as error:
                search.tried("rapidocr", str(error))
                search.give_up()
        else:
            sources.append(source)
    return sources


def expected_digests(entry: ModelEntry, search: SearchLog) -> dict[str, set[Digest]]:
    """What the catalog says that each file must be: one of these. Raises ``ModelUnavailable``."""
    sources = {file.name: known_sources(file, search) for file in entry.files if file.sources}
    return {name: {Digest("sha256", source.sha256) for source in known} for name, known in sources.items()}


def _remote(source: HubFile | UrlFile, settings: Settings) -> RemoteFile:
    url = file_url(settings.hf_endpoint, source.repo, source.path) if isinstance(source, HubFile) else source.url
    return RemoteFile(url, Digest("sha256", source.sha256), source.bytes)
