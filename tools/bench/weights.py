"""The weights of both servers of a comparison: the user's own CLIP, else CN-CLIP's ViT-B-16 with random weights.

How long a model takes does not depend on its weights, only on their number; whether its answers mean anything does.
Random weights are made once, by the steps of conversion, which need CN-CLIP's vocabulary (`make bench` installs the
package that has it); without it the comparison falls back to cn-clip-tiny, and says so. Faces and OCR are real: two
packages ship buffalo_s and PP-OCRv6_small.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.convert import ConversionRefused, installed_vocabulary
from models.convert.architecture import KNOWN, Architecture
from models.convert.check import LEAST_COSINE
from models.convert.conversion import write_model
from models.convert.tensor import ArrayTensor
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import read_vocabulary
from settings import Settings

CLIP = "ViT-B-16"
TINY = "cn-clip-tiny"


@dataclass(frozen=True, slots=True)
class Weights:
    """The models to serve, as settings in the environment."""

    environment: Mapping[str, str]
    note: str
    """Name of the CLIP, for the report."""


def weights(folder: Path | None = None) -> Weights:
    """Return the weights for both servers, from ``folder``, a cache folder (``clip/<name>/…``).

    None: MACHINE_LEARNING_CACHE_FOLDER or its default. A first call without CLIP there writes 750 MB to
    ``~/.cache/immich-bento-bench``, in about a minute. Raise ``FileNotFoundError`` if a ``folder`` is given and has no
    CLIP model.
    """
    given = (folder or Settings().cache_folder) / "clip"
    if _is_clip(given / CLIP):
        return _with_clip(given.resolve(), CLIP, f"{CLIP} in {given}")
    if folder is not None:
        raise FileNotFoundError(
            f"{given / CLIP} holds no CLIP model: convert one there (python -m models convert), or leave --models out."
        )
    made = Path("~/.cache/immich-bento-bench/clip").expanduser()
    if _is_clip(made / CLIP) or _can_make():
        return _with_clip(_made(made), CLIP, f"{CLIP} with random weights")
    missing = "since cn-clip, which has the vocabulary, is not installed: CLIP's figures say nothing about a real model"
    return _with_clip(None, TINY, f"{TINY}, {missing}")


def _with_clip(root: Path | None, name: str, note: str) -> Weights:
    found = {"CLIP_MODEL": name, "RECOGNITION_MODEL": "buffalo_s", "OCR_MODEL": "PP-OCRv6_small"}
    return Weights(found | ({"CLIP_DOWNLOAD_ROOT": str(root)} if root else {}), note)


def _is_clip(folder: Path) -> bool:
    return all((folder / half / "model.onnx").is_file() for half in ("visual", "textual"))


def _can_make() -> bool:
    try:
        installed_vocabulary()
    except ConversionRefused:
        return False
    return True


def _made(root: Path) -> Path:
    """Return the folder with random weights, after making it if need be; whole or not at all."""
    if _is_clip(root / CLIP):
        return root
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="making-") as temporary:
        tokenizer = cn_clip_tokenizer(read_vocabulary(installed_vocabulary()))
        random_clip(KNOWN[CLIP], tokenizer, Path(temporary, CLIP))
        shutil.move(str(Path(temporary, CLIP)), root / CLIP)
    return root


def random_clip(architecture: Architecture, tokenizer: Tokenizer, folder: Path) -> Path:
    """Write a CLIP folder with seeded random weights and return it.

    Raise ``ValueError`` if the graphs do not answer as the weights do.
    """
    tensors = {name: ArrayTensor(random_weight(name, shape)) for name, shape in architecture.shapes().items()}
    cosines = write_model(architecture, tensors, tokenizer, folder, "fp32", lambda doing, share: None)
    if not min(cosines) > LEAST_COSINE:  # NaN, too
        raise ValueError(f"{folder}: random weights and their graphs differ, least cosine {min(cosines):.6f}.")
    return folder


def random_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return weights that keep activations near unit variance: norms near 1, matrices scaled by their inputs."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return np.asarray(np.abs(1 + 0.02 * noise), np.float32)
    inputs = math.prod(shape[1:]) if name.endswith("weight") and len(shape) > 1 else 0
    return np.asarray(noise * (1 / math.sqrt(inputs) if inputs else 0.02), np.float32)
