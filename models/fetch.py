"""Downloads what a model lacks: files whose digests the catalog knows, or a part of a repository that a hub lists."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.capacity import require_disk, require_memory
from models.digest import Digest, DigestCache
from models.download import RemoteFile, download, partial_of
from models.entry import HubFile, ModelFile, PackageFile, UrlFile
from models.hub import file_url, list_repository
from models.lookup import Lookup
from models.manifest import Manifest, usable_manifest, write_manifest
from models.paths import path_below
from models.places import digest_cache, known_sources, names_of
from models.progress import Reporter
from models.transfer import Limits, TransferFailed, WrongFile, host_of
from settings.addresses import shown_url

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Destination:
    """The folder that downloads of a model go to, their limits, and who is told how far they are."""

    folder: Path
    """The caller holds its lock."""
    limits: Limits
    reporter: Reporter


def fetch_file(file: ModelFile, lookup: Lookup, destination: Destination) -> Path:
    """Download ``file``, whose digests the catalog knows, from the first of its sources that has it.

    Raises ``ModelUnavailable``, ``OSError``.
    """
    sources = [source for source in known_sources(file) if not isinstance(source, PackageFile)]
    for index, source in enumerate(sources):
        remote = _remote(source, lookup.settings.hf_endpoint)
        if remote.bytes is not None:
            have = bytes_here(destination.folder / file.name, remote.digest)
            require_disk(destination.folder, remote.bytes - have, f"{file.name} of {lookup.entry.name}")
        try:
            return download_file(file.name, remote, lookup, destination)
        except TransferFailed as error:
            lookup.note_cause(shown_url(remote.url), str(error), str(error))
            others = [_remote(other, lookup.settings.hf_endpoint).url for other in sources[index + 1 :]]
            warn_of_wrong_file(file.name, lookup, error, others)
    return lookup.give_up()


def warn_of_wrong_file(name: str, lookup: Lookup, error: TransferFailed, others: Sequence[str]) -> None:
    """Warn if ``error`` says that a hub sent a wrong file, and the first of the addresses ``others`` is asked next."""
    if isinstance(error, WrongFile) and others:
        told = "%s of %s: %s. What came is thrown away, and %s is asked."
        log.warning(told, name, lookup.entry.name, error, host_of(others[0]))


def fetch_repository(part: str | None, repo: str, lookup: Lookup, destination: Destination) -> dict[str, Path]:
    """Download a part of a repository, keep the hub's own digests beside the files, and return these by name.

    Raises ``ModelUnavailable``, ``NotEnough``, ``OSError``.
    """
    files = lookup.entry.part_files(part)
    endpoint = lookup.settings.hf_endpoint
    try:
        manifest = _manifest(repo, lookup, destination)
        missing = [file.name for file in files if file.required and file.name not in manifest.files]
        if missing:
            raise TransferFailed(f"the repository has no {', '.join(missing)}")
        # Before the files: whatever is found beside it later must be what it says.
        write_manifest(destination.folder, manifest)
        names = names_of(manifest.files, files, part)
        wanted = [name for name in names if not _is_right(name, manifest, lookup, destination.folder)]
        _require_room({name: manifest.files[name] for name in wanted}, lookup, destination)
        for name in wanted:
            digest, size = manifest.files[name]
            remote = RemoteFile(file_url(endpoint, repo, name, manifest.commit), digest, size)
            download_file(name, remote, lookup, destination)
        return {name: destination.folder / name for name in names}
    except TransferFailed as error:
        at = f" ({lookup.settings.model_revision})" if lookup.entry.has_revisions else ""
        lookup.note_cause(shown_url(f"{endpoint.rstrip('/')}/{repo}") + at, str(error), str(error))
        return lookup.give_up()


def download_file(name: str, remote: RemoteFile, lookup: Lookup, destination: Destination) -> Path:
    """Download one file to its name below the folder, and remember that its bytes are right.

    Raises ``TransferFailed``, ``UnsafeName``, ``OSError``.
    """
    entry = lookup.entry
    target = path_below(destination.folder, name)
    title = f"{name} of {entry.name} ({entry.task.value}) to {destination.folder}"
    download(remote, target, title=title, limits=destination.limits, progress=destination.reporter.received)
    DigestCache.in_folder(destination.folder).remember(target, remote.digest)
    log.info("%s of %s is here and its digest is right.", name, entry.name)
    return target


def bytes_here(target: Path, digest: Digest) -> int:
    """Return how many bytes an earlier, broken download of ``target`` left."""
    partial = partial_of(target, digest)
    return partial.stat().st_size if partial.is_file() else 0


def _require_room(files: Mapping[str, tuple[Digest, int]], lookup: Lookup, destination: Destination) -> None:
    """Raise ``NotEnough`` unless ``files``, digest and bytes by name, have room on the disk, and in memory."""
    total = sum(size for _, size in files.values())
    have = sum(bytes_here(destination.folder / name, digest) for name, (digest, _) in files.items())
    what = f"{lookup.entry.name} ({lookup.entry.task.value})"
    require_disk(destination.folder, total - have, what)
    require_memory(total, what)
    destination.reporter.expect(total)


def _manifest(repo: str, lookup: Lookup, destination: Destination) -> Manifest:
    """Return the list of the commit that the other part came from, so that both fit; else of the newest one."""
    endpoint = lookup.settings.hf_endpoint
    known = usable_manifest(destination.folder)
    if known is not None and known.repo == repo:
        try:
            return list_repository(endpoint, repo, known.commit, limits=destination.limits)
        except TransferFailed as error:
            if error.status != 404:  # the hub has that revision no more
                raise
    revision = lookup.settings.model_revision if lookup.entry.has_revisions else "main"
    return list_repository(endpoint, repo, revision, limits=destination.limits)


def _is_right(name: str, manifest: Manifest, lookup: Lookup, folder: Path) -> bool:
    expected, _ = manifest.files[name]
    digests = digest_cache(folder, lookup.entry, lookup.settings)
    return (folder / name).is_file() and digests.digest(folder / name, expected.algorithm) == expected


def _remote(source: HubFile | UrlFile, endpoint: str) -> RemoteFile:
    url = file_url(endpoint, source.repo, source.path) if isinstance(source, HubFile) else source.url
    return RemoteFile(url, Digest("sha256", source.sha256), source.bytes)
