"""Puts a model into BentoML's store, from this machine, a folder or a hub, and takes it off this machine."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models import store
from models.checkpoint import convert_file
from models.digest import Digest, digest_of
from models.download import download_lock
from models.durable import clear_path
from models.entry import ModelEntry, ModelFile, UrlFile
from models.fetch import Destination
from models.lookup import Lookup
from models.manifest import usable_manifest
from models.places import (
    common_folder,
    expected_digests,
    known_sources,
    packaged_files,
    places,
    take_folder,
)
from models.progress import Progress, Reporter
from models.resolve import resolve
from models.transfer import Limits
from settings import Settings

_MOST_NAMES = 5
"""Of checkpoints, in a message."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """The outcome of one pull."""

    how: Literal["stored", "already stored", "in a package", "in your folder"]
    folder: Path
    tag: str = ""


def pull(
    entry: ModelEntry,
    settings: Settings,
    *,
    carried: Path | None = None,
    limits: Limits | None = None,
    listener: Callable[[Progress], None] | None = None,
) -> Pulled:
    """Have all of ``entry`` in the store. What is elsewhere on this machine is linked, not copied, where the disk
    allows.

    ``carried``: a folder that holds the files, in our layout or under their original names; no network is asked then.
    Models that installed packages ship whole, and a user's own folders, stay where they are. Blocks while another
    process pulls the same model.

    Raises ``ModelUnavailable``, ``NotStored``, ``OSError``.
    """
    if entry.folder is not None:
        resolve(entry, settings)
        return Pulled("in your folder", entry.folder)
    own = settings if carried is None else settings.model_copy(update={"offline": True})
    lookup = Lookup(entry, own, carried=carried)
    downloads = _downloads(entry)
    with lookup.as_model_unavailable():
        shipped = packaged_files(lookup)
        if shipped and all(file.name in shipped for file in entry.files if file.required):
            return Pulled("in a package", common_folder(shipped))
        with store.model_lock(entry):
            there = _stored_whole(lookup)
            if there is not None:
                _clear(downloads)  # of a process that was killed after it had stored them
                return Pulled("already stored", there.folder, there.tag)
            if carried is not None:
                files = {**shipped, **_carried_files(carried, lookup, shipped, listener)}
                source = str(carried.resolve())
            else:
                files = resolve(entry, settings, downloads=downloads, limits=limits, listener=listener)
                source = _source(entry, downloads)
            folder = store.save(entry, files, {"source": source})
            _clear(downloads)
    return Pulled("stored", folder, store.tag_of(folder))


@dataclass(frozen=True, slots=True)
class Removed:
    """The outcome of one removal."""

    folders: tuple[Path, ...]
    """Those that are gone."""
    links: tuple[tuple[Path, Path], ...]
    """Links that are gone, with the folders behind them, which are left as they were."""
    kept: tuple[Path, ...]
    """Folders with files of the model that are not this project's to remove."""


def remove(entry: ModelEntry, settings: Settings) -> Removed:
    """Remove ``entry`` and its unfinished downloads from BentoML's store and the cache folder.

    Folders are renamed before they are emptied, so that nobody finds half a model. What lies behind a link is another
    program's or the user's: a link to the model's folder is removed alone, and nothing is removed where a folder above
    it is a link. Raises ``OSError``.
    """
    cache = entry.folder_below(settings.cache_folder)  # of every revision
    gone: list[Path] = []
    links: list[tuple[Path, Path]] = []
    with store.model_lock(entry):
        for folder, trash in (
            (store.versions_folder(entry.name), store.staging_folder()),
            (_downloads(entry), store.staging_folder()),
            (cache, cache.parent),  # a rename stays on one disk
        ):
            if folder.is_symlink():
                links.append((folder, folder.resolve()))
                folder.unlink()
            elif folder.is_dir() and not (folder == cache and folder.parent.is_symlink()):
                moved = trash / f".removed-{folder.name}-{os.getpid()}"
                os.replace(folder, moved)
                shutil.rmtree(moved)
                gone.append(folder)
    return Removed(tuple(gone), tuple(links), tuple(place.folder for place in places(entry, settings)))


def _downloads(entry: ModelEntry) -> Path:
    """Return the folder in which a pull collects the files of ``entry``, on the disk of the store."""
    return store.staging_folder() / store.store_name(entry.name)


def _clear(downloads: Path) -> None:
    """Remove what was downloaded; where that fails, the next pull does."""
    with suppress(OSError):
        clear_path(downloads, unless=stat.S_ISLNK)


def _stored_whole(lookup: Lookup) -> store.StoredModel | None:
    """Return the stored version if all of it is there, and is what the catalog and the version's own record say."""
    model = store.stored(lookup.entry.name)
    if model is None or not model.digests:
        return None
    if any(model.digests.get(name) not in known for name, known in expected_digests(lookup.entry).items()):
        return None
    return model if take_folder(model.folder, None, lookup) is not None else None


def _source(entry: ModelEntry, downloads: Path) -> str:
    """Return where the bytes came from, for the record."""
    manifest = usable_manifest(downloads)
    if manifest is not None:
        return f"{manifest.repo}@{manifest.commit}"
    return "this machine" if entry.hub is None and not entry.has_digests else "the catalog's sources"


def _carried_files(
    folder: Path, lookup: Lookup, have: Collection[str], listener: Callable[[Progress], None] | None
) -> dict[str, Path]:
    """Return all required files below ``folder``, but for those in ``have``, and optional ones where they are there.

    Files whose digests the catalog knows are found by them, whatever they are called. Of other models the folder, or
    one below it that is called like the model, holds the layout; a hub's own cache (``models--owner--name``) and
    BentoML's store will do, and so will the model's checkpoint, which is converted. Raises ``ModelUnavailable``,
    ``OSError``.
    """
    if not folder.is_dir():
        lookup.note_cause(folder, "no such folder", f"{folder} does not exist or is no folder")
        lookup.give_up()
    if lookup.entry.has_digests:
        return _by_digest(folder, lookup, have)
    for candidate in _layouts(lookup.entry, folder):
        found = take_folder(candidate, None, lookup) if candidate.is_dir() else None
        if found is not None and _stay_within(found, folder, lookup):
            return found
    checkpoint = lookup.entry.checkpoint
    paths = sorted(filter(Path.is_file, folder.rglob(checkpoint.file))) if checkpoint is not None else []
    for path in paths:
        if _stay_within({path.name: path}, folder, lookup):
            return _converted(path, lookup, listener)
    if not paths and lookup.entry.family == "cn-clip":
        _note_others(folder, lookup)
    return lookup.give_up()


def _note_others(folder: Path, lookup: Lookup) -> None:
    """Note the checkpoints below ``folder`` beside the one that is looked for, which is not there."""
    entry = lookup.entry
    names = sorted({path.name for path in folder.rglob("*.pt") if path.is_file()})
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    others = f", but {', '.join(names[:_MOST_NAMES])}{more}" if names else ""
    wanted = entry.checkpoint.file if entry.checkpoint is not None else "files of the model"
    lookup.note_cause(f"checkpoints in {folder}", f"no {wanted}{others}", f"{folder} holds no {wanted}{others}")
    if names:
        lookup.note_tried("a checkpoint of another name", f"`python -m models convert CHECKPOINT --as {entry.name}`")


def _converted(path: Path, lookup: Lookup, listener: Callable[[Progress], None] | None) -> dict[str, Path]:
    folder = _downloads(lookup.entry)
    with download_lock(folder), Reporter(lookup.entry, lookup.settings, folder, listener) as reporter:
        convert_file(path, lookup, Destination(folder, Limits(), reporter))
        found = take_folder(folder, None, lookup)
    if found is None:
        lookup.give_up()
    return found


def _layouts(entry: ModelEntry, folder: Path) -> Iterator[Path]:
    """Yield where below ``folder`` the layout may lie; the first is noted as looked at even if there is nothing."""
    for base in (folder / entry.name, entry.folder_below(folder)):
        yield base
        if entry.has_revisions and (base / "v2").is_dir():  # Immich's cache
            yield base / "v2"
    for base in (folder / store.store_name(entry.name), folder / "models" / store.store_name(entry.name)):
        yield from sorted(base.glob("*/"), reverse=True)
    if entry.hub is not None:
        yield from sorted(folder.glob(f"**/models--{entry.hub.replace('/', '--')}/snapshots/*/"))
    yield folder


def _stay_within(files: dict[str, Path], folder: Path, lookup: Lookup) -> bool:
    """Return whether no link leads out of ``folder``, or out of the hub's cache that it is a part of."""
    root = folder.resolve()
    root = next((parent for parent in (root, *root.parents) if parent.name.startswith("models--")), root)
    for name, path in files.items():
        if not path.resolve().is_relative_to(root):
            why = f"{name} is a link that leads out of {root}"
            lookup.note_cause(path, why, f"{path} leads out of {root}")
            return False
    return True


def _by_digest(folder: Path, lookup: Lookup, have: Collection[str]) -> dict[str, Path]:
    expected = expected_digests(lookup.entry)
    files = {file.name: file for file in lookup.entry.files}
    wanted = {name: digests for name, digests in expected.items() if name not in have}
    there = [
        path for parent, _, names in os.walk(folder) for name in sorted(names) if (path := Path(parent, name)).is_file()
    ]
    digests: dict[Path, Digest] = {}
    found: dict[str, Path] = {}
    for name, known in wanted.items():
        for path in _likely(files[name], there, lookup.entry):
            if path not in digests:
                digests[path] = digest_of(path, "sha256")
            if digests[path] in known:
                found[name] = path
                break
        if name not in found and files[name].required:
            why = f"no file there is {name}, which has {' or '.join(sorted(map(str, known)))}"
            lookup.note_cause(folder, why, f"no file in {folder} is {name}")
            lookup.give_up()
    return found


def _likely(file: ModelFile, there: list[Path], entry: ModelEntry) -> Iterator[Path]:
    """Yield files that may be ``file``, the likeliest first: of its name, here or elsewhere, then of its size or
    kind.
    """
    sources = known_sources(file)
    original = {(source.url if isinstance(source, UrlFile) else source.path).rsplit("/", 1)[-1] for source in sources}
    names = {file.name.rsplit("/", 1)[-1], *original}
    sizes = {source.bytes for source in sources if source.bytes is not None}
    ours = [path for path in there if path.as_posix().endswith(f"{entry.name}/{file.name}")]
    named = [path for path in there if path.name in names]
    # The catalog knows the sizes of most files; of the others only those of the same kind are read.
    alike = [path for path in there if path.suffix == Path(file.name).suffix]
    others = [path for path in there if path.stat().st_size in sizes] if sizes else alike
    yield from dict.fromkeys([*ours, *named, *others])
