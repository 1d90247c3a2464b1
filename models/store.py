"""BentoML's model store: read and written without importing BentoML, one whole version at a time.

The store is ``<BENTOML_HOME>/models/<name>/<version>/`` with a ``model.yaml`` in each version and the current version's
name in the file ``<name>/latest``. A Bento that was packed with models has a store of its own beside its ``src/``.

BentoML itself copies a model into place file by file. Here a version is put together in
``<BENTOML_HOME>/immich-bento`` and gets its place by one rename, so what is in the store is whole; and its
``model.yaml`` holds the digest of every file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import yaml

from models.digest import Digest, digest_of
from models.durable import open_lock, sync_path, sync_tree
from models.entry import ModelEntry
from models.manifest import DamagedRecord, read_record
from models.paths import UnsafeName, checked_name, path_below

log = logging.getLogger(__name__)

_YAML = "model.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONGEST_NAME = 63


class NotStored(Exception):
    """A model cannot be put into the store; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version of a model in the store."""

    folder: Path
    created: str
    """ISO 8601, UTC."""
    digests: Mapping[str, Digest]
    """By file name. Empty where somebody else than this project stored the model."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return tag_of(self.folder)


def tag_of(folder: Path) -> str:
    """Return the tag of the version in ``folder``: ``vit-b-16:2f1c…``."""
    return f"{folder.parent.name}:{folder.name}"


def home() -> Path:
    """Return BentoML's own folder."""
    return Path(os.environ.get("BENTOML_HOME") or "~/bentoml").expanduser()


def staging_folder() -> Path:
    """Return where models are put together, on the store's disk, so that a rename gives them their place in it."""
    return home() / "immich-bento"


def store_name(model_name: str) -> str:
    """Return the name of a model's tag in the store, which knows lower case only."""
    return model_name.lower()


def versions_folder(model_name: str) -> Path:
    """Return the folder of all versions of a model in the user's own store."""
    return home() / "models" / store_name(model_name)


def stored(model_name: str) -> StoredModel | None:
    """Return the version of a model that is served; None where there is none. Nothing is written."""
    for base in _bases():
        versions = {model.folder.name: model for model in _versions(base, model_name)}
        if versions:
            with contextlib.suppress(OSError, KeyError):
                return versions[(base / store_name(model_name) / "latest").read_text(encoding="utf-8").strip()]
            return max(versions.values(), key=lambda model: model.created)
    return None


def all_stored(model_name: str) -> list[StoredModel]:
    """Return every version of a model, the store of a packed Bento first."""
    return [model for base in _bases() for model in _versions(base, model_name)]


def read_stored(folder: Path) -> StoredModel | None:
    """Return the version of a model that lies in ``folder``; None where that holds no ``model.yaml``.

    Raises ``DamagedRecord`` where that cannot be read, or names files outside of ``folder``.
    """
    text = read_record(folder / _YAML)
    if text is None:
        return None
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
        metadata = document.get("metadata") or {}
        digests = {
            checked_name(name): Digest.parse(str(text)) for name, text in (metadata.get("digests") or {}).items()
        }
        return StoredModel(folder, str(document.get("creation_time", "")), digests, metadata)
    except UnsafeName as error:
        raise DamagedRecord(f"{folder / _YAML}: {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise DamagedRecord(f"{folder / _YAML} is damaged ({repr(error)[:100]})") from error


def save(
    entry: ModelEntry,
    files: Mapping[str, Path],
    details: Mapping[str, Any],
    *,
    expected: Mapping[str, Digest] | None = None,
) -> Path:
    """Store ``files``, by their names below the model's folder, as the version of ``entry`` that is served.

    Files are not copied but linked where the disk allows; those in the staging folder may be moved. The version's name
    comes from the files' digests: storing the same again changes nothing but the details. ``details`` go into
    ``model.yaml``'s metadata. Returns the folder. The caller holds the model's lock.

    Raises ``NotStored`` where a file has not the digest that is ``expected`` of it, or the name is too long;
    ``UnsafeName``; ``OSError``.
    """
    name = store_name(entry.name)
    if len(name) > _LONGEST_NAME:
        raise NotStored(
            f"{entry.name}: BentoML's store takes names of at most {_LONGEST_NAME} characters. Give the model a "
            "shorter one."
        )
    staging_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging_folder(), prefix=f"{name}-") as temporary:
        folder = Path(temporary, "model")
        folder.mkdir()
        for file, path in files.items():
            _place(path, path_below(folder, file))
        digests = {file: digest_of(folder / file, "sha256") for file in sorted(files)}
        for file, digest in (expected or {}).items():
            if digests.get(file, digest) != digest:
                raise NotStored(
                    f"{file} of {entry.name} changed while it was stored: it has {digests[file]} instead of {digest}. "
                    "Try again."
                )
        version = _version(digests)
        recorded = {file: str(digest) for file, digest in digests.items()}
        _write_yaml(entry, name, version, {**details, "digests": recorded}, folder)
        target = home() / "models" / name / version
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # the same, or what is left of it
            os.replace(target, Path(temporary, "replaced"))
        sync_tree(folder)
        os.replace(folder, target)
        sync_path(target.parent)
        _point_to(target)
    return target


@contextmanager
def model_lock(entry: ModelEntry) -> Iterator[None]:
    """Keep other processes and threads from storing or removing the model. Raises ``OSError``."""
    staging_folder().mkdir(parents=True, exist_ok=True)
    with open_lock(staging_folder() / f"{store_name(entry.name)}.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Another process is at work on %s; waiting for it.", entry.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bases() -> list[Path]:
    project = Path(__file__).resolve().parents[1]
    bento = [project.parent / "models"] if (project.parent / "bento.yaml").is_file() else []
    return [*bento, home() / "models"]


def _versions(base: Path, model_name: str) -> list[StoredModel]:
    folder = base / store_name(model_name)
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        try:
            model = read_stored(path) if path.is_dir() else None
        except DamagedRecord as error:
            log.warning("%s is not used: %s.", path, error)
            continue
        if model is not None:
            found.append(model)
    return found


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        if source.is_relative_to(staging_folder().resolve()):
            os.replace(source, target)
        else:
            shutil.copyfile(source, target)


def _version(digests: Mapping[str, Digest]) -> str:
    content = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _write_yaml(entry: ModelEntry, name: str, version: str, metadata: Mapping[str, Any], folder: Path) -> None:
    """Write ``model.yaml`` as ``bentoml.models.create`` does in BentoML 1.4, which costs a second to import."""
    about = {"licence": entry.licence, "embedding_size": entry.embedding_size, "input_size": entry.input_size}
    document = {
        "name": name,
        "version": version,
        "module": "",
        "labels": {"project": "immich-bento", "task": entry.task.value, "family": entry.family, "model": entry.name},
        "options": {},
        "metadata": {key: value for key, value in {**about, **metadata}.items() if value is not None},
        "context": {
            "framework_name": "",
            "framework_versions": {},
            "bentoml_version": installed_version("bentoml"),
            "python_version": platform.python_version(),
        },
        "signatures": {},
        "api_version": "v1",
        "creation_time": datetime.now(timezone.utc).isoformat(),
    }
    # A file of that name may be a link to the user's: it is replaced, not written to.
    (folder / _YAML).unlink(missing_ok=True)
    (folder / _YAML).write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _point_to(version: Path) -> None:
    """Write into ``latest`` that ``version`` is the one that is served."""
    handle, name = tempfile.mkstemp(dir=staging_folder())
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(version.name)
    os.chmod(name, 0o644)
    os.replace(name, version.parent / "latest")
