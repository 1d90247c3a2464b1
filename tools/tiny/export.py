"""Make the folder of cn-clip-tiny from the training checkpoint, and check it: ``python -m tools.tiny.export``.

The graphs are those of any CN-CLIP (``models.convert``), weights in half precision; the vocabulary is the pruned one of
the training.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from models.convert.architecture import read_architecture
from models.convert.check import LEAST_COSINE
from models.convert.conversion import write_model
from models.convert.tensor import ArrayTensor
from models.digest import digest_of
from tools.tiny.model import TEXT_HEADS, architecture
from tools.tiny.train import DEFAULT_CACHE

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[2] / "models/tiny/weights"
MOST_BYTES = 12_000_000


def main() -> None:
    """Write the folder, check it, and print the catalog's table of its files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help=f"where checkpoint.pt is ({DEFAULT_CACHE})")
    parser.add_argument("--to", type=Path, default=WEIGHTS, help=f"folder to write ({WEIGHTS})")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checkpoint = torch.load(options.cache / "checkpoint.pt", weights_only=True)
    log.info("A checkpoint of %d steps in %.0f minutes.", checkpoint["step"], checkpoint["spent"] / 60)
    export(averaged_clip(checkpoint), Tokenizer.from_str(checkpoint["tokenizer"]), options.to)
    print(catalog_files(options.to))  # noqa: T201


def averaged_clip(checkpoint: Mapping[str, Any]) -> Any:
    """Return the model of a training checkpoint, with the running average of its weights."""
    prefix = "module.clip."
    weights = {
        name.removeprefix(prefix): value for name, value in checkpoint["averaged"].items() if name.startswith(prefix)
    }
    clip = architecture(len(weights["bert.embeddings.word_embeddings.weight"])).build()
    clip.load_state_dict(weights)
    return clip


def export(clip: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write all files to ``folder``.

    Raise ``ValueError`` if a graph differs from its weights, or the folder is too large.
    """
    tensors = {name: ArrayTensor(tensor.numpy()) for name, tensor in clip.state_dict().items()}
    shape = read_architecture({name: tensor.shape for name, tensor in tensors.items()}).with_heads(text=TEXT_HEADS)
    cosines = write_model(shape, tensors, tokenizer, folder, "fp16", lambda what, _: log.info("%s.", what))
    log.info("%s: least cosines to a second forward pass: pictures %.6f, texts %.6f", folder, *cosines)
    if not min(cosines) > LEAST_COSINE:  # NaN, too
        raise ValueError(f"{folder} differs from its weights: least cosine {min(cosines):.6f}, {LEAST_COSINE} is due.")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    log.info("%s: %.1f MB", folder, size / 1e6)
    if size > MOST_BYTES:
        raise ValueError(f"{folder} holds {size:,} bytes, more than {MOST_BYTES:,}.")


def catalog_files(folder: Path) -> str:
    """Return the lines of ``models/catalog.toml`` that name the files of ``folder``."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, digest, size = path.relative_to(folder).as_posix(), digest_of(path, "sha256").value, path.stat().st_size
        source = f'package = "models", path = "tiny/weights/{name}", sha256 = "{digest}", bytes = {size}'
        lines.append(f'"{name}" = [{{ {source} }}]')
    return "\n".join(lines)


if __name__ == "__main__":
    main()
