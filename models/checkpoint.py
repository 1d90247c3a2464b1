"""CN-CLIP models: their authors' checkpoint is fetched from a hub and converted on this machine.

All of it happens in ``<folder>/.checkpoint``: the checkpoint, and below ``model/`` what is made of it. The files get
their names in the folder when they are whole and checked, the record of their digests first. A process that is killed
at any point leaves what the next one goes on with.
"""

from __future__ import annotations

import logging
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from models.capacity import NotEnough, require_disk, require_memory
from models.conversion import CheckpointRefused, run_conversion
from models.digest import Digest, DigestCache, digest_of
from models.download import RemoteFile
from models.durable import clear_path, give_name, make_folder, sync_path
from models.entry import Checkpoint
from models.fetch import Destination, bytes_here, download_file, fetch_file, warn_of_wrong_file
from models.hub import by_speed, file_url, list_modelscope, list_repository, modelscope_url
from models.lookup import Lookup
from models.manifest import Manifest, usable_manifest, write_manifest
from models.paths import UnsafeName, path_below
from models.places import digest_cache, take_file
from models.transfer import TransferFailed
from settings.addresses import shown_url

log = logging.getLogger(__name__)

WORK = ".checkpoint"
"""The folder in which a model is made, below the one that it is for."""
_LARGEST_MODEL = 2
"""Bytes of the model, in fp32, for each byte of a checkpoint in fp16."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of a checkpoint."""

    repo: str
    url: str
    modelscope: bool


def fetch_and_convert(checkpoint: Checkpoint, lookup: Lookup, destination: Destination) -> None:
    """Have the model's files, with a record of their digests, in the folder of ``destination``.

    Raises ``ModelUnavailable``, ``NotEnough``, ``ConversionFailed``, ``OSError``.
    """
    work = _work(destination)
    # Where a process was killed between conversion and the last rename, the renames are all that is left to do.
    made = _made_before(work.folder / "model", destination.folder)
    if made is None:
        made = _make(checkpoint, lookup, work, pinned=_pinned(destination.folder))
    _finish(made, work.folder / "model", destination.folder)
    if not lookup.settings.keep_checkpoints:
        shutil.rmtree(work.folder)


def convert_file(path: Path, lookup: Lookup, destination: Destination) -> None:
    """Have the files that are made of the checkpoint at ``path``, with a record of their digests, in ``destination``'s
    folder.

    Raises as ``fetch_and_convert`` does.
    """
    work = _work(destination)
    require_disk(destination.folder, _model_bytes(lookup, path.stat().st_size), lookup.entry.name)
    made = _convert(path, path.name, lookup, work)
    _finish(made, work.folder / "model", destination.folder)
    shutil.rmtree(work.folder)


def _work(destination: Destination) -> Destination:
    """Return where the model is made: a folder, or nothing yet.

    Raises ``UnsafeName`` where that is a link, maybe to another disk; ``OSError``.
    """
    folder = destination.folder / WORK
    if folder.is_symlink():
        raise UnsafeName(f"{folder} is a link to {folder.resolve()}; nothing is written through it. Remove the link")
    for own in (folder, folder / "model"):
        clear_path(own, unless=stat.S_ISDIR)
    return replace(destination, folder=folder)


def _make(checkpoint: Checkpoint, lookup: Lookup, work: Destination, *, pinned: str | None) -> Manifest:
    """Return the record of the model that was made of the checkpoint of the first hub that gives one to make it of."""
    too_large: NotEnough | None = None
    refused: CheckpointRefused | None = None
    useless: set[Digest] = set()
    origins = list(_origins(checkpoint, lookup, work))
    for index, origin in enumerate(origins):
        place = shown_url(origin.url)
        try:
            remote = _listed(origin, checkpoint, lookup, work)
            if remote.digest in useless:
                raise TransferFailed(f"{checkpoint.file} is the same file there")
            path = _fetch(checkpoint, remote, lookup, work, pinned=pinned)
            return _convert(path, origin.repo, lookup, work)
        except TransferFailed as error:
            lookup.note_cause(place, str(error), str(error))
            warn_of_wrong_file(checkpoint.file, lookup, error, [other.url for other in origins[index + 1 :]])
        except NotEnough as error:  # by this hub's word for its size; another may know better
            too_large = too_large or error
        except CheckpointRefused as error:  # a proxy's or a mirror's file; another may have the right one
            refused = refused or CheckpointRefused(
                f"{error} It came from {place}; MODEL_HUB names the hub to ask first"
            )
            useless.add(remote.digest)
            lookup.note_tried(place, str(error))
            log.warning("%s; another hub is asked if there is one.", refused)
    if refused is not None:
        raise refused
    if too_large is not None:
        raise too_large
    return lookup.give_up()


def _fetch(
    checkpoint: Checkpoint, remote: RemoteFile, lookup: Lookup, work: Destination, *, pinned: str | None
) -> Path:
    """Return the checkpoint. Raises ``TransferFailed``, ``NotEnough``, ``OSError``."""
    path = work.folder / checkpoint.file
    if pinned is not None and remote.digest.value != pinned:
        raise TransferFailed(
            f"{checkpoint.file} is another file there now: it has {remote.digest} instead of sha256:{pinned}, "
            f"which was fetched before. `python -m models rm {lookup.entry.name}` forgets that one"
        )
    _require_room(path, remote, lookup, work.folder)
    digests = digest_cache(work.folder, lookup.entry, lookup.settings)
    if not (path.is_file() and digests.digest(path, "sha256") == remote.digest):
        clear_path(path)  # another hub's takes room
        work.reporter.expect(remote.bytes)
        download_file(checkpoint.file, remote, lookup, work)
    return path


def _origins(checkpoint: Checkpoint, lookup: Lookup, work: Destination) -> Iterator[_Origin]:
    """Yield where the checkpoint can be had: MODEL_HUB's hub first, or the one that is the first to answer."""
    settings = lookup.settings
    origins = []
    if checkpoint.huggingface is not None:
        url = file_url(settings.hf_endpoint, checkpoint.huggingface, checkpoint.file)
        origins.append(_Origin(checkpoint.huggingface, url, modelscope=False))
    if checkpoint.modelscope is not None:
        url = modelscope_url(settings.modelscope_endpoint, checkpoint.modelscope, checkpoint.file)
        origins.append(_Origin(checkpoint.modelscope, url, modelscope=True))
    if settings.model_hub == "auto" and len(origins) > 1:
        order = by_speed([origin.url for origin in origins], work.limits)
        origins.sort(key=lambda origin: order.index(origin.url))
    elif settings.model_hub == "modelscope":
        origins.reverse()
    yield from origins


def _listed(origin: _Origin, checkpoint: Checkpoint, lookup: Lookup, work: Destination) -> RemoteFile:
    """Return where the file is and what it must be, by the hub's own list. Raises ``TransferFailed``."""
    if origin.modelscope:
        manifest = list_modelscope(lookup.settings.modelscope_endpoint, origin.repo, limits=work.limits)
    else:
        manifest = list_repository(lookup.settings.hf_endpoint, origin.repo, limits=work.limits)
    digest, size = manifest.files.get(checkpoint.file, (None, 0))
    if digest is None or digest.algorithm != "sha256":
        raise TransferFailed(f"the repository {origin.repo} lists no {checkpoint.file} with its sha256")
    return RemoteFile(origin.url, digest, size)


def _require_room(path: Path, remote: RemoteFile, lookup: Lookup, folder: Path) -> None:
    """Raise ``NotEnough`` unless the checkpoint and the model have room on the disk, and the model in memory."""
    size = remote.bytes or 0
    here = path.stat().st_size if path.is_file() else bytes_here(path, remote.digest)
    model = _model_bytes(lookup, size)
    what = f"{lookup.entry.name} ({size / 1e6:.0f} MB to download, {model / 1e6:.0f} MB for the model made of it)"
    require_disk(folder, max(0, size - here) + model, what)
    require_memory(model, lookup.entry.name)


def _model_bytes(lookup: Lookup, checkpoint: int) -> int:
    """Return the bytes of the model that is made of a checkpoint of so many: the catalog's figure, else the most."""
    known = lookup.entry.checkpoint.bytes if lookup.entry.checkpoint is not None else None
    return known or checkpoint * _LARGEST_MODEL


def _convert(path: Path, repo: str, lookup: Lookup, work: Destination) -> Manifest:
    """Write the model to ``<work>/model`` with a record of its digests, which is returned."""
    model = work.folder / "model"
    clear_path(model)
    vocabulary = _vocabulary(path.parent, lookup, work)
    log.info("Converting %s to %s (%s).", path.name, lookup.entry.name, lookup.entry.task.value)
    cosines = run_conversion(path, model, vocabulary, lookup.entry, work.reporter.converts)
    log.info("%s is converted; least cosine to its checkpoint: pictures %.7f, texts %.7f.", lookup.entry.name, *cosines)
    digests = digest_cache(work.folder, lookup.entry, lookup.settings)
    files = {file.relative_to(model).as_posix(): file for file in sorted(model.rglob("*")) if file.is_file()}
    made = {name: (digest_of(file, "sha256"), file.stat().st_size) for name, file in files.items()}
    manifest = Manifest(repo, digests.digest(path, "sha256").value, made)
    write_manifest(model, manifest)
    return manifest


def _vocabulary(beside: Path, lookup: Lookup, work: Destination) -> Path:
    file = lookup.entry.vocabulary
    if file is None:
        raise ValueError(f"{lookup.entry.name} is of a family that is not converted.")
    here = [folder for folder in (work.folder, beside) if (folder / file.name).is_file()]
    found = take_file(file, here, lookup)
    if found is not None:
        return found
    lookup.require_network()
    return fetch_file(file, lookup, work)


def _made_before(model: Path, folder: Path) -> Manifest | None:
    """Return the record in ``model`` if every file that it names is there, or in ``folder`` already, with its bytes.

    A power cut may have left less of a file than its name promises, so all are read.
    """
    manifest = usable_manifest(model)
    return manifest if manifest is not None and manifest.files and not _lacking(manifest, folder, model) else None


def _lacking(manifest: Manifest, *folders: Path) -> list[str]:
    """Return the names of the files in ``manifest`` that none of ``folders`` has with the right bytes."""

    def is_right(path: Path, digest: Digest) -> bool:
        return path.is_file() and digest_of(path, digest.algorithm) == digest

    files = manifest.files.items()
    return [name for name, (digest, _) in files if not any(is_right(folder / name, digest) for folder in folders)]


def _finish(made: Manifest, model: Path, folder: Path) -> None:
    """Move from ``model`` to ``folder`` what that lacks of ``made``: files whose bytes in ``model`` were checked."""
    moved = _lacking(made, folder)
    write_manifest(folder, made)
    digests = DigestCache.in_folder(folder)
    for name in moved:
        target = path_below(folder, name)
        make_folder(target.parent)
        give_name(model / name, target)
        digests.remember(target, made.files[name][0])
    sync_path(folder)
    shutil.rmtree(model)


def _pinned(folder: Path) -> str | None:
    """Return the sha256 of the checkpoint that the model in ``folder`` was made of before; None where there was
    none.
    """
    manifest = usable_manifest(folder)
    return manifest.commit if manifest is not None else None
