"""BentoML's model store as this project uses it: reading it without importing BentoML, and writing to it whole versions only.

The store is ``<BENTOML_HOME>/models/<name>/<version>/`` with a ``model.yaml`` in each version and the current version's name in the
file ``<name>/latest``. A Bento that was packed with models has a store of its own beside its ``src/``.

BentoML itself copies a model into place file by file. Here a version is put together in ``<BENTOML_HOME>/immich-bento`` and gets
its place by one rename, so what is in the store is whole; and its ``model.yaml`` holds the digest of every file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from models.digest import Digest, digest_of
from models.entry import ModelEntry

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
        return f"{self.folder.parent.name}:{self.folder.name}"


def home() -> Path:
    """BentoML's own folder."""
    return Path(os.environ.get("BENTOML_HOME") or "~/bentoml").expanduser()


def workshop() -> Path:
    """Where models are put together before they get their place in the store. On the store's disk, so that this is a rename."""
    return home() / "immich-bento"


def store_name(model_name: str) -> str:
    """The name of a model's tag in the store, which knows lower case only."""
    return model_name.lower()


def stored(model_name: str) -> StoredModel | None:
    """The version of a model that is served; None where there is none. Nothing is written."""
    for base in _bases():
        versions = {model.folder.name: model for model in _versions(base, model_name)}
        if versions:
            with contextlib.suppress(OSError, KeyError):
                return versions[(base / store_name(model_name) / "latest").read_text(encoding="utf-8").strip()]
            return max(versions.values(), key=lambda model: model.created)
    return None


def all_stored(model_name: str) -> list[StoredModel]:
    """Every version of a model, the store of a packed Bento first."""
    return [model for base in _bases() for model in _versions(base, model_name)]


def read_stored(folder: Path) -> StoredModel | None:
    """The version of a model that lies in ``folder``; None where that holds no ``model.yaml`` that can be read."""
    try:
        document = yaml.load((folder / _YAML).read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
        metadata = document.get("metadata") or {}
        digests = {str(name): Digest.parse(str(text)) for name, text in (metadata.get("digests") or {}).items()}
        return StoredModel(folder, str(document.get("creation_time", "")), digests, metadata)
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None


def save(entry: ModelEntry, files: Mapping[str, Path], details: Mapping[str, Any], *, expected: Mapping[str, Digest] | None = None) -> Path:
    """Store ``files`` (by their names below the model's folder) as a version of ``entry``, and make it the one that is served.

    Files are not copied but linked where the disk allows; those in the workshop may be moved. The version's name comes from the
    files' digests: storing the same again changes nothing but the details. ``details``: into ``model.yaml``'s metadata.
    Returns the folder. The caller holds the model's lock.

    Raises ``NotStored`` where a file has not the digest that is ``expected`` of it, or the name does not do; ``OSError``.
    """
    name = store_name(entry.name)
    if len(name) > _LONGEST_NAME:
        raise NotStored(f"{entry.name}: BentoML's store takes names of at most {_LONGEST_NAME} characters. Give the model a shorter one.")
    workshop().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workshop(), prefix=f"{name}-") as temporary:
        folder = Path(temporary, "model")
        for file, path in files.items():
            _place(path, folder / file)
        digests = {file: digest_of(folder / file, "sha256") for file in sorted(files)}
        for file, digest in (expected or {}).items():
            if digests.get(file, digest) != digest:
                raise NotStored(
                    f"{file} of {entry.name} changed while it was stored: it has {digests[file]} instead of {digest}. Try again."
                )
        version = _version(digests)
        _write_yaml(entry, f"{name}:{version}", {**details, "digests": {file: str(digest) for file, digest in digests.items()}}, folder)
        target = home() / "models" / name / version
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # the same, or what is left of it
            os.replace(target, Path(temporary, "replaced"))
        os.replace(folder, target)
        _point_to(target)
    return target


def remove(model_name: str) -> list[StoredModel]:
    """Take every version of a model out of the user's own store, at once; returns what was there. Raises ``OSError``."""
    folder = home() / "models" / store_name(model_name)
    found = _versions(home() / "models", model_name)
    if folder.is_dir():
        workshop().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workshop(), prefix="removed-") as temporary:
            os.replace(folder, Path(temporary, "model"))
    return found


def _bases() -> list[Path]:
    project = Path(__file__).resolve().parents[1]
    bento = [project.parent / "models"] if (project.parent / "bento.yaml").is_file() else []
    return [*bento, home() / "models"]


def _versions(base: Path, model_name: str) -> list[StoredModel]:
    folder = base / store_name(model_name)
    if not folder.is_dir():
        return []
    found = (read_stored(path) for path in sorted(folder.iterdir()) if path.is_dir())
    return [model for model in found if model is not None]


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        if source.is_relative_to(workshop().resolve()):
            os.replace(source, target)
        else:
            shutil.copyfile(source, target)


def _version(digests: Mapping[str, Digest]) -> str:
    content = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _write_yaml(entry: ModelEntry, tag: str, metadata: Mapping[str, Any], folder: Path) -> None:
    """Have BentoML write ``model.yaml`` in its own form: of a model of no files, in a store of its own."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml
    from bentoml._internal.models import ModelStore

    labels = {"project": "immich-bento", "task": entry.task.value, "family": entry.family, "model": entry.name}
    about = {"licence": entry.licence, "embedding_size": entry.embedding_size, "input_size": entry.input_size}
    known = {key: value for key, value in {**about, **metadata}.items() if value is not None}
    with tempfile.TemporaryDirectory() as temporary:
        store = ModelStore(temporary)
        with bentoml.models.create(tag, labels=labels, metadata=known, _model_store=store):
            pass
        shutil.copyfile(store.get(tag).path_of(_YAML), folder / _YAML)


def _point_to(version: Path) -> None:
    """Make ``version`` the latest one."""
    handle, name = tempfile.mkstemp(dir=workshop())
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(version.name)
    os.chmod(name, 0o644)
    os.replace(name, version.parent / "latest")
