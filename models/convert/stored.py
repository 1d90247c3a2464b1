"""A CN-CLIP checkpoint to a version of a model in BentoML's store."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from models import store
from models.convert.conversion import convert
from models.convert.graph import Precision
from models.convert.refusal import ConversionRefused
from models.entry import ModelEntry
from models.store import model_lock

log = logging.getLogger(__name__)

_FAMILY = "cn-clip"


@dataclass(frozen=True, slots=True)
class StoredConversion:
    """A model that was stored."""

    folder: Path
    image_cosine: float
    """Least cosine of the image graph to a second forward pass."""
    text_cosine: float

    @property
    def tag(self) -> str:
        return f"{self.folder.parent.name}:{self.folder.name}"


def convert_and_store(
    checkpoint: Path, entry: ModelEntry, *, vocabulary: Path, precision: Precision = "fp32"
) -> StoredConversion:
    """Convert ``checkpoint`` and store it as ``entry``, so that the service finds it under that name.

    ``vocabulary``: ``vocab.txt`` of cn-clip, or its wheel. Raises ``ConversionRefused``: the entry is none that is
    converted, or as ``convert`` does. Raises ``NotStored``, ``OSError``.
    """
    if entry.family != _FAMILY:
        raise ConversionRefused(
            f"{entry.name} is of the family {entry.family}; only CN-CLIP is converted. Others: `python -m models pull`."
        )
    if entry.folder is not None:
        raise ConversionRefused(
            f"{entry.name} is served from {entry.folder}, as MODEL_CATALOG says. Take `folder` out of its entry."
        )
    with model_lock(entry):
        folder = store.staging_folder() / f"{store.store_name(entry.name)}.converted"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            done = convert(
                checkpoint,
                folder,
                vocabulary=vocabulary,
                precision=precision,
                entry=entry,
                report=lambda what, _: log.info("%s.", what),
            )
            files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
            details = {
                "source": str(checkpoint.resolve()),
                "precision": precision,
                "cosine": {"pictures": done.image_cosine, "texts": done.text_cosine},
            }
            return StoredConversion(store.save(entry, files, details), done.image_cosine, done.text_cosine)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
