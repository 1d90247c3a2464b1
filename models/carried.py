"""Finds the files of a model in a folder that somebody carried here: in our layout, or under the names that they had elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from models.checked import expected_digests, known_sources
from models.digest import Digest, digest_of
from models.entry import HubFile, ModelEntry, ModelFile, PackageFile, UrlFile
from models.folders import taken_from
from models.search_log import SearchLog
from models.store import store_name
from settings import Settings


def carried_files(entry: ModelEntry, folder: Path, settings: Settings, search: SearchLog, have: Collection[str]) -> dict[str, Path]:
    """All required files of ``entry`` below ``folder``, but for those in ``have``, and optional ones where they are there.

    Files whose digests the catalog knows are found by them, whatever they are called. Of other models the folder, or one below it
    that is called like the model, holds the layout; a hub's own cache (``models--owner--name``) and BentoML's store will do.

    Raises ``ModelUnavailable``, ``OSError``.
    """
    if not folder.is_dir():
        search.tried(folder, "no such folder")
        search.give_up()
    if entry.has_digests:
        return _by_digest(entry, folder, search, have)
    for candidate in _folders(entry, folder):
        found = taken_from(candidate, entry, None, settings, search)
        if found is not None:
            return found
    if entry.family == "cn-clip" and any(folder.rglob("clip_cn_*.pt")):
        search.tried(f"the checkpoints in {folder}", "have to be converted first")
    return search.give_up()


def _folders(entry: ModelEntry, folder: Path) -> Iterator[Path]:
    """Where below ``folder`` the layout may lie; the first is noted as looked at even if there is nothing."""
    yield folder / entry.name
    yield folder / entry.task.value / entry.name
    for base in (folder / store_name(entry.name), folder / "models" / store_name(entry.name)):
        yield from sorted(base.glob("*/"), reverse=True)
    if entry.hub is not None:
        yield from sorted(folder.glob(f"**/models--{entry.hub.replace('/', '--')}/snapshots/*/"))
    yield folder


def _by_digest(entry: ModelEntry, folder: Path, search: SearchLog, have: Collection[str]) -> dict[str, Path]:
    wanted = {name: digests for name, digests in expected_digests(entry, search).items() if name not in have}
    files = {file.name: file for file in entry.files}
    there = list(_walk(folder))
    digests: dict[Path, Digest] = {}
    found: dict[str, Path] = {}
    for name, known in wanted.items():
        for path in _likely(files[name], there, entry, search):
            if path not in digests:
                digests[path] = digest_of(path, "sha256")
            if digests[path] in known:
                found[name] = path
                break
    for name in wanted:
        if name not in found and files[name].required:
            due = " or ".join(sorted(map(str, wanted[name])))
            search.tried(folder, f"no file there is {name}, which has {due}")
            search.give_up()
    return found


def _likely(file: ModelFile, there: list[Path], entry: ModelEntry, search: SearchLog) -> Iterator[Path]:
    """Files that may be ``file``, the likeliest first: of its name in our layout or elsewhere, then of its size or kind."""
    sources = known_sources(file, search)
    names = {file.name.rsplit("/", 1)[-1], *(_original_name(source) for source in sources)}
    sizes = {source.bytes for source in sources if source.bytes is not None}
    ours = [path for path in there if path.as_posix().endswith(f"{entry.name}/{file.name}")]
    named = [path for path in there if path.name in names]
    # The catalog knows the sizes of most files; of the others only those of the same kind are read.
    alike = [path for path in there if path.suffix == Path(file.name).suffix]
    others = [path for path in there if path.stat().st_size in sizes] if sizes else alike
    yield from dict.fromkeys([*ours, *named, *others])


def _original_name(source: PackageFile | HubFile | UrlFile) -> str:
    return (source.url if isinstance(source, UrlFile) else source.path).rsplit("/", 1)[-1]


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for name in sorted(names) if (path := Path(parent, name)).is_file())
