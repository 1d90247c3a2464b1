"""The places of a model's files on this machine, and whether their bytes are right.

What the bytes must be is known from the catalog (faces, OCR), else from a record beside the files: a hub's list
(``models.hub``), or the ``model.yaml`` of BentoML's store. A folder without a record is taken as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models import store
from models.digest import Digest, DigestCache, digest_of
from models.entry import HubFile, ModelEntry, ModelFile, ModelKind, PackageFile, RapidOcrFile, UrlFile, in_part
from models.lookup import Lookup
from models.manifest import DamagedRecord, read_manifest
from models.packages import RapidOcrListError, package_folder, rapidocr_sources
from settings import Settings

log = logging.getLogger(__name__)

_MOST_NAMES = 10
"""Of files, in a message."""
_V2 = "v2"
"""The revision of Immich's models that its cache keeps in a folder of that name, in the model's folder."""

Kind = Literal["folder", "cache", "store", "package", "project"]
"""Where files lie: a folder of the user's, the cache, BentoML's store, an installed package, this project itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that files of a model lie."""

    kind: Kind
    folder: Path
    files: Mapping[str, Path]
    """The model's files that are there, by name."""
    whole: bool
    """True if every required file is there, or in an installed package."""

    @property
    def bytes(self) -> int:
        """Return the bytes of the files."""
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of reading every byte in one place."""

    state: Literal["right", "unchecked", "incomplete", "damaged"]
    detail: str

    @property
    def good(self) -> bool:
        """Return whether the model may be used."""
        return self.state in ("right", "unchecked")


def cache_folder(entry: ModelEntry, settings: Settings) -> Path:
    """Return the folder that the service's own downloads of ``entry`` go to: ``<cache folder>/<task>/<name>``, and
    below that ``v2`` where Immich publishes the model and MACHINE_LEARNING_MODEL_REVISION is ``v2``.
    """
    folder = entry.folder_below(settings.cache_folder)
    return folder / _V2 if entry.has_revisions and settings.model_revision == _V2 else folder


def local_folders(lookup: Lookup) -> list[Path]:
    """Return the folders on this machine that may hold the model, in the order in which they are looked at."""
    folders = [folder for _, folder in _own_folders(lookup.entry, lookup.settings)]
    if lookup.entry.has_digests and (other := cache_folder(lookup.entry, lookup.settings) / _V2).is_dir():
        folders.append(other)
    if lookup.entry.folder is None:
        in_store = store.stored(lookup.entry.name)
        if in_store is not None:
            folders.append(in_store.folder)
        else:
            lookup.note_tried("the BentoML model store", f"no {store.store_name(lookup.entry.name)}")
    return folders


def take_folder(folder: Path, part: str | None, lookup: Lookup) -> dict[str, Path] | None:
    """Return the files of ``part`` (None: of all parts) in ``folder`` by name, if all required ones are there and
    right.

    Returns None, and notes why in ``lookup``, if not. Raises ``OSError``.
    """
    entry = lookup.entry
    try:
        recorded = recorded_digests(folder)
    except DamagedRecord as error:
        lookup.note_tried(folder, f"its record cannot be trusted: {error}")
        return None
    files = entry.part_files(part)
    required = [file.name for file in files if file.required]
    if recorded is None:
        names = [file.name for file in files if file.required or (folder / file.name).is_file()]
    else:
        names = list(dict.fromkeys([*names_of(recorded, files, part), *required]))
    lacking = [
        name for name in names if not (folder / name).is_file() or (recorded is not None and name not in recorded)
    ]
    if lacking:
        lookup.note_tried(folder, f"lacks {_listed(lacking)}" if folder.is_dir() else "no such folder")
        return None
    if recorded is not None:
        digests = digest_cache(folder, entry, lookup.settings)
        right = [_is_one_of(folder / name, {recorded[name]}, digests, lookup) for name in names]
        if not all(right):
            return None
    how = "as it is: no digests are known" if recorded is None else "and its digests are right"
    log.info("%s (%s%s) is taken from %s %s.", entry.name, entry.task.value, f", {part}" if part else "", folder, how)
    return {name: folder / name for name in names}


def take_file(file: ModelFile, folders: Sequence[Path], lookup: Lookup) -> Path | None:
    """Return where ``file``, whose digests the catalog knows, lies with the right bytes: in ``folders``, or in a
    package.

    Returns None, and notes why in ``lookup``, if nowhere. Raises ``OSError``, ``RapidOcrListError``.
    """
    sources = known_sources(file)
    expected = {Digest("sha256", source.sha256) for source in sources}
    for folder in folders:
        digests = digest_cache(folder, lookup.entry, lookup.settings)
        if _is_one_of(folder / file.name, expected, digests, lookup):
            return folder / file.name
    return _packaged(sources, lookup)


def packaged_files(lookup: Lookup) -> dict[str, Path]:
    """Return the model's files that installed Python packages ship, checked, by name. Raises as ``take_file`` does."""
    found = {file.name: _packaged(known_sources(file), lookup) for file in lookup.entry.files}
    return {name: path for name, path in found.items() if path is not None}


def known_sources(file: ModelFile) -> list[PackageFile | HubFile | UrlFile]:
    """Return the sources of ``file``, those in rapidocr's list looked up. Raises ``RapidOcrListError``."""
    sources: list[PackageFile | HubFile | UrlFile] = []
    for source in file.sources:
        sources.extend(rapidocr_sources(source.key) if isinstance(source, RapidOcrFile) else [source])
    return sources


def expected_digests(entry: ModelEntry) -> dict[str, set[Digest]]:
    """Return what the catalog says that each file must be: one of these. Raises ``RapidOcrListError``."""
    return {
        file.name: {Digest("sha256", source.sha256) for source in known_sources(file)}
        for file in entry.files
        if file.sources
    }


def recorded_digests(folder: Path) -> Mapping[str, Digest] | None:
    """Return what the files in ``folder`` must be, by name; None where nothing is recorded.

    Raises ``DamagedRecord``.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return {name: digest for name, (digest, _) in manifest.files.items()}
    in_store = store.read_stored(folder)
    return in_store.digests if in_store is not None and in_store.digests else None


def names_of(recorded: Iterable[str], files: tuple[ModelFile, ...], part: str | None) -> list[str]:
    """Return which of the ``recorded`` files belong to ``files`` or to the folder of ``part`` (None: to any folder).

    Large graphs keep their weights in further files of any name, which no catalog knows.
    """
    named = {file.name for file in files}
    return [name for name in recorded if name in named or ("/" in name and (part is None or in_part(name, part)))]


def digest_cache(folder: Path, entry: ModelEntry, settings: Settings) -> DigestCache:
    """Return the memory of digests of files in ``folder``: in it if downloads go there, else in the cache folder."""
    own = folder == cache_folder(entry, settings) or folder.is_relative_to(store.staging_folder())
    return DigestCache.in_folder(folder if own else settings.cache_folder)


def places(entry: ModelEntry, settings: Settings) -> list[Place]:
    """Return every place with files of ``entry``, in the order in which the service looks. Bytes are not read."""
    shipped = _shipped(entry, settings)
    required = [file.name for file in entry.files if file.required]
    folders = _own_folders(entry, settings)
    if entry.folder is None:
        folders += [("store", model.folder) for model in store.all_stored(entry.name)]
    found = []
    for kind, folder in folders:
        files = _files_in(folder, entry)
        if files:
            found.append(Place(kind, folder, files, all(name in files or name in shipped for name in required)))
    if shipped and all(name in shipped for name in required):
        folder = common_folder(shipped)
        own = folder.is_relative_to(Path(__file__).parent)
        found.append(Place("project" if own else "package", folder, shipped, whole=True))
    return found


def common_folder(files: Mapping[str, Path]) -> Path:
    """Return the folder that all of `files`, of which there is one at least, lie in or below."""
    return Path(os.path.commonpath([path.parent for path in files.values()]))


def verify(entry: ModelEntry, place: Place) -> Verdict:
    """Read every file in ``place`` and check it. Raises ``OSError``, ``RapidOcrListError``."""
    expected = expected_digests(entry)
    if not expected:
        try:
            expected = {name: {digest} for name, digest in (recorded_digests(place.folder) or {}).items()}
        except DamagedRecord as error:
            return Verdict("damaged", str(error))
    wrong = [
        name
        for name, path in place.files.items()
        if name in expected and digest_of(path, next(iter(expected[name])).algorithm) not in expected[name]
    ]
    if wrong:
        return Verdict("damaged", f"wrong bytes: {_listed(wrong)}")
    required = [] if place.whole else [file.name for file in entry.files if file.required]
    # The store holds whole models; a hub's list may name more than was fetched of it.
    recorded = list(expected) if place.kind == "store" and not entry.has_digests else []
    lacking = [name for name in dict.fromkeys([*required, *recorded]) if name not in place.files]
    if lacking:
        return Verdict("incomplete", f"lacks {_listed(lacking)}")
    if not expected:
        return Verdict("unchecked", "nobody knows its digests")
    return Verdict("right", f"{len(place.files)} files")


def _listed(names: Sequence[str]) -> str:
    """Return the first of ``names``, and how many more there are: a hub's list may hold any number."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _own_folders(entry: ModelEntry, settings: Settings) -> list[tuple[Kind, Path]]:
    if entry.folder is not None:
        return [("folder", entry.folder)]
    folders: list[tuple[Kind, Path]] = [("cache", entry.folder_below(settings.cache_folder))]
    if entry.task is ModelKind.CLIP and settings.clip_download_root is not None:
        folders.insert(0, ("folder", settings.clip_download_root / entry.name))
    if not entry.has_revisions:
        return folders
    return [(kind, revision) for kind, folder in folders for revision in _revisions(folder, settings)]


def _revisions(folder: Path, settings: Settings) -> list[Path]:
    """Return the folders of a model's two revisions, the wanted one first; the other one only where it is there."""
    wanted, other = (folder / _V2, folder) if settings.model_revision == _V2 else (folder, folder / _V2)
    return [wanted, other] if other.is_dir() else [wanted]


def _files_in(folder: Path, entry: ModelEntry) -> dict[str, Path]:
    try:
        recorded = recorded_digests(folder) or {}
    except DamagedRecord:  # ``verify`` says so
        recorded = {}
    names = dict.fromkeys([*(file.name for file in entry.files), *recorded])
    return {name: folder / name for name in names if (folder / name).is_file()}


def _packaged(sources: Iterable[PackageFile | HubFile | UrlFile], lookup: Lookup) -> Path | None:
    digests = DigestCache.in_folder(lookup.settings.cache_folder)
    for source in sources:
        if isinstance(source, PackageFile):
            folder = package_folder(source.package)
            if folder is None:
                lookup.note_package_missing(source.package)
            elif _is_one_of(folder / source.path, {Digest("sha256", source.sha256)}, digests, lookup):
                return folder / source.path
    return None


def _shipped(entry: ModelEntry, settings: Settings) -> dict[str, Path]:
    try:
        return packaged_files(Lookup(entry, settings))
    except RapidOcrListError:  # the installed rapidocr is another one
        return {}


def _is_one_of(path: Path, expected: set[Digest], digests: DigestCache, lookup: Lookup) -> bool:
    if not path.is_file():
        lookup.note_tried(path, "not there")
        return False
    actual = digests.digest(path, next(iter(expected)).algorithm)
    if actual not in expected:
        if lookup.entry.has_digests and path.parent.parent.name == _V2:
            lookup.note_tried(path, "a graph of Immich's revision v2, whose digest the catalog does not have")
        else:
            lookup.note_wrong(path, actual, expected)
    return actual in expected
