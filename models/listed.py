"""Models whose digests the hub knows (Immich's CLIP models): its list is kept beside the files, and they are checked against that."""

from __future__ import annotations

from pathlib import Path

from models.download import download_lock
from models.entry import ModelEntry, ModelFile
from models.fetch import Fetching
from models.folders import digest_cache, local_folders, names_of, taken_from
from models.hub import Manifest, list_repository, read_manifest, write_manifest
from models.search_log import SearchLog
from models.transfer import TransferFailed
from settings import Settings


class ListedFiles:
    """One search for such a model's files: all files of a part together."""

    def __init__(self, entry: ModelEntry, repo: str, settings: Settings, search: SearchLog, fetching: Fetching) -> None:
        self._entry, self._repo, self._settings, self._search, self._fetching = entry, repo, settings, search, fetching

    def locate(self, part: str | None) -> dict[str, Path]:
        """The files by name. Raises ``ModelUnavailable``, ``OSError``."""
        folders = local_folders(self._entry, self._settings, self._search)
        if self._fetching.folder not in folders:
            folders.insert(0, self._fetching.folder)
        for folder in folders:
            found = self._in_folder(folder, part)
            if found is not None:
                return found
        self._search.require_network()
        with download_lock(self._fetching.folder):
            found = self._in_folder(self._fetching.folder, part)  # another process was faster
            return found if found is not None else self._fetch_part(self._entry.part_files(part), part)

    def _in_folder(self, folder: Path, part: str | None) -> dict[str, Path] | None:
        return taken_from(folder, self._entry, part, self._settings, self._search)

    def _fetch_part(self, files: tuple[ModelFile, ...], part: str | None) -> dict[str, Path]:
        folder = self._fetching.folder
        try:
            manifest = self._list()
            missing = [file.name for file in files if file.required and file.name not in manifest.files]
            if missing:
                raise TransferFailed(f"the repository has no {', '.join(missing)}")
            # Before the files: whatever is found beside it later must be what it says.
            write_manifest(folder, manifest)
            names = names_of(manifest.files, files, part)
            for name in names:
                if not self._is_right(manifest, name):
                    self._fetching.fetch(self._entry, name, manifest.remote(self._settings.hf_endpoint, name))
            return {name: folder / name for name in names}
        except TransferFailed as error:
            self._search.tried(f"{self._settings.hf_endpoint.rstrip('/')}/{self._repo}", str(error))
            self._search.give_up()

    def _is_right(self, manifest: Manifest, name: str) -> bool:
        path, (expected, _) = self._fetching.folder / name, manifest.files[name]
        digests = digest_cache(self._fetching.folder, self._entry, self._settings)
        return path.is_file() and digests.digest(path, expected.algorithm) == expected

    def _list(self) -> Manifest:
        """The revision that the other half came from, so that both fit; the newest where the hub has that one no more."""
        known = read_manifest(self._fetching.folder)
        if known is not None and known.repo == self._repo:
            try:
                return list_repository(self._settings.hf_endpoint, self._repo, known.commit, self._fetching.patience)
            except TransferFailed as error:
                if error.status != 404:
                    raise
        return list_repository(self._settings.hf_endpoint, self._repo, patience=self._fetching.patience)
