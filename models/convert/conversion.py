"""A CN-CLIP checkpoint to a model in BentoML's store, held to CN-CLIP's own forward before it is stored."""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from models import store
from models.convert.refusal import ConversionRefused
from models.convert.weights import Precision
from models.entry import ModelEntry
from models.pull import model_lock

log = logging.getLogger(__name__)

_FAMILY = "cn-clip"
_NEEDED = {"torch": "torch==2.13.0", "onnx": "onnx", "cn_clip": "cn-clip==1.6.0"}


@dataclass(frozen=True, slots=True)
class Converted:
    """A model that was stored."""

    folder: Path
    image_cosine: float
    """Least cosine to torch's vectors."""
    text_cosine: float

    @property
    def tag(self) -> str:
        return f"{self.folder.parent.name}:{self.folder.name}"


def convert(checkpoint: Path, entry: ModelEntry, *, precision: Precision = "fp32") -> Converted:
    """Convert ``checkpoint`` and store it as ``entry``, so that the service finds it under that name.

    Raises ``ConversionRefused``: torch or cn-clip is not installed, the file is no checkpoint, it does not fit the entry, or the graphs
    do not answer as torch does. Raises ``OSError``.
    """
    if entry.family != _FAMILY:
        raise ConversionRefused(
            f"{entry.name} is of the family {entry.family}; only CN-CLIP is converted. Others: `python -m models pull`."
        )
    if entry.folder is not None:
        raise ConversionRefused(f"{entry.name} is served from {entry.folder}, as MODEL_CATALOG says. Take `folder` out of its entry.")
    _require_packages()
    from models.convert.checkpoint import load_weights, read_checkpoint

    log.info("Reading %s.", checkpoint)
    architecture, model = load_weights(read_checkpoint(checkpoint), entry.name, checkpoint)
    sizes = (architecture.embedding_size, architecture.image_size)
    if sizes[0] != entry.embedding_size or entry.input_size not in (None, sizes[1]):
        raise ConversionRefused(
            f"{checkpoint} makes {sizes[0]} numbers of pictures of {sizes[1]} pixels; the catalog says {entry.embedding_size} "
            f"and {entry.input_size} of {entry.name}. Correct its entry, or choose another name."
        )
    with model_lock(entry):
        store.workshop().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store.workshop(), prefix="convert-") as temporary:
            folder = Path(temporary, "model")
            cosines = _write_folder(model, architecture.image_size, folder, precision, checkpoint)
            files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
            details = {
                "source": str(checkpoint.resolve()),
                "precision": precision,
                "cosine_to_torch": {"pictures": cosines["visual"], "texts": cosines["textual"]},
            }
            stored = store.save(entry, files, details)
    return Converted(stored, cosines["visual"], cosines["textual"])


def _write_folder(model: Any, image_size: int, folder: Path, precision: Precision, checkpoint: Path) -> dict[str, float]:
    """Write a CLIP folder and check it; the least cosine of each half."""
    from models.convert.check import LEAST_COSINE, inputs, least_cosine, reference
    from models.convert.configuration import write_configuration
    from models.convert.graphs import Half, export_half
    from models.convert.weights import rewrite

    write_configuration(folder, image_size)
    cosines: dict[str, float] = {}
    for half in get_args(Half):
        batch = inputs(half, image_size)
        expected = reference(model, half, batch)
        log.info("Converting the %s half to ONNX, %s.", half, precision)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="export-") as exported:
            path = Path(exported, "model.onnx")
            export_half(model, half, image_size, path)
            rewrite(path, folder / half / "model.onnx", precision)
        cosines[half] = least_cosine(folder / half / "model.onnx", half, batch, expected)
        if not cosines[half] > LEAST_COSINE[precision]:  # NaN, too
            raise ConversionRefused(
                f"The {half} half of {checkpoint} does not answer as PyTorch does after conversion: least cosine {cosines[half]:.6f}, "
                f"{LEAST_COSINE[precision]} is due. Nothing was stored. Are its weights damaged?"
            )
    return cosines


def _require_packages() -> None:
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        pip = f"{sys.executable} -m pip install"
        commands = [f"{pip} --no-deps {package}" if package.startswith("cn-clip") else f"{pip} {package}" for package in missing]
        raise ConversionRefused(f"Converting needs {', '.join(missing)}, which serving does not. Install: {' && '.join(commands)}")
