"""One model, as frozen dataclasses that the catalog is read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, TypeAlias

Hub: TypeAlias = Literal["Hugging Face", "ModelScope"]


class ModelKind(str, Enum):
    """The purpose of a model, in Immich's words."""

    CLIP = "clip"
    FACES = "facial-recognition"
    OCR = "ocr"


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file that an installed Python package ships."""

    package: str
    """Import name."""
    path: str
    """Below the package's folder."""
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the Hugging Face hub."""

    repo: str
    path: str
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UrlFile:
    """A plain download."""

    url: str
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RapidOcrFile:
    """A file of the list that the installed ``rapidocr`` ships; see ``models.packages``."""

    key: str


Source: TypeAlias = "PackageFile | HubFile | UrlFile | RapidOcrFile"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of CN-CLIP's form, which becomes the model's files by conversion."""

    file: str
    """Its name in the repositories."""
    huggingface: str | None
    """Repository on the Hugging Face hub, whose own digest of the file is trusted."""
    modelscope: str | None
    """Repository on ModelScope, likewise."""
    bytes: int | None
    """Of the model that is made of it, about. CN-CLIP's own checkpoints, which are in fp32, have as many."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model."""

    name: str
    """Below the model's folder, with forward slashes: ``detection/model.onnx``."""
    required: bool
    sources: tuple[Source, ...] = ()
    """Tried in order. Every source carries the digest of its own bytes; empty where nothing is known of the file."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the catalog."""

    name: str
    task: ModelKind
    family: str
    """``cn-clip``, ``immich-clip``, ``insightface`` or ``pp-ocr``."""
    embedding_size: int | None
    """Numbers in a vector; None for OCR."""
    input_size: int | None
    """Pixels: side of the square that a CLIP image half takes, where the catalog knows it."""
    files: tuple[ModelFile, ...]
    licence: str
    advice: str
    without_download: str
    """The remedy where nothing can be fetched, as an order: "set …"."""
    hub: str | None = None
    """Hugging Face repository whose own list of files and digests is trusted."""
    folder: Path | None = None
    """The user's folder that holds the files."""
    checkpoint: Checkpoint | None = None
    vocabulary: ModelFile | None = None
    """The vocabulary that the conversion of ``checkpoint`` needs besides."""
    aliases: tuple[str, ...] = ()
    milliseconds: int | None = None
    """That a picture takes on two cores, about, where it was measured (CLIP)."""
    download: int | None = None
    """Bytes that are fetched, about, where neither ``files`` nor ``checkpoint`` tells them."""

    @property
    def has_revisions(self) -> bool:
        """Return whether Immich publishes the model, in the revisions of MACHINE_LEARNING_MODEL_REVISION."""
        return self.hub is not None and self.hub.startswith("immich-app/")

    @property
    def hubs(self) -> tuple[Hub, ...]:
        """Return the hubs that its files, or its checkpoint, are fetched from."""
        if self.checkpoint is not None:
            repos: Mapping[Hub, str | None] = {
                "Hugging Face": self.checkpoint.huggingface,
                "ModelScope": self.checkpoint.modelscope,
            }
            return tuple(hub for hub, repo in repos.items() if repo is not None)
        on_hub = any(isinstance(source, HubFile) for file in self.files for source in file.sources)
        return ("Hugging Face",) if self.hub is not None or on_hub else ()

    @property
    def has_digests(self) -> bool:
        """Return whether the catalog itself says what the bytes must be."""
        return any(file.sources for file in self.files)

    def folder_below(self, root: Path) -> Path:
        """Return the folder of the model's files below ``root``, where every model has one:
        ``<root>/<task>/<name>``. A revision other than ``main`` has a folder of its name in it.
        """
        return root / self.task.value / self.name

    def part_files(self, part: str | None) -> tuple[ModelFile, ...]:
        """Return the files of one part (``visual``, ``textual``, ``detection``, ``recognition``), or all (None).

        A file in no folder (``config.json``) belongs to every part. Raises ``ValueError`` if there is no such part.
        """
        if part is not None and part not in self.parts:
            raise ValueError(f"{self.name} has the parts {', '.join(self.parts)}, not {part!r}.")
        return tuple(file for file in self.files if part is None or in_part(file.name, part))

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the folders that the files are in."""
        return tuple(dict.fromkeys(file.name.split("/")[0] for file in self.files if "/" in file.name))


def in_part(name: str, part: str) -> bool:
    """Return whether the file ``name`` belongs to ``part``."""
    return "/" not in name or name.startswith(part + "/")
