"""Make cn-clip-tiny's folder of the training checkpoint: ``python -m tools.tiny.export``. Ends with a check against
torch.

The graphs are those of any CN-CLIP (``models.convert``), weights in half precision; the vocabulary is the training's
own, pruned one.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tokenizers import Tokenizer

from models.convert.check import LEAST_COSINE, inputs, least_cosine, reference
from models.convert.configuration import write_configuration
from models.convert.graphs import Half, export_half
from models.convert.weights import rewrite
from models.digest import digest_of
from tools.tiny.model import SIDE, architecture
from tools.tiny.train import DEFAULT_CACHE

log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[2] / "models/tiny/weights"
MOST_BYTES = 12_000_000
_TEXTS = ("苹果", "a photo of a red apple", "", "笑脸 2024 ☺", "火車" * 40)


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
    """The model of a training checkpoint, with the running average of its weights."""
    prefix = "module.clip."
    weights = {
        name.removeprefix(prefix): value for name, value in checkpoint["averaged"].items() if name.startswith(prefix)
    }
    clip = architecture(len(weights["bert.embeddings.word_embeddings.weight"])).build()
    clip.load_state_dict(weights)
    return clip


def export(clip: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write all six files to ``folder``. Raises ``ValueError`` where a graph differs from torch, or the folder is too
    large.
    """
    write_configuration(folder, SIDE)
    tokenizer.save(str(folder / "textual/tokenizer.json"), pretty=False)
    tokens = np.array([tokenizer.encode(text).ids for text in _TEXTS], np.int64)
    for half in get_args(Half):
        path = folder / half / "model.onnx"
        with tempfile.TemporaryDirectory() as exported:
            export_half(clip, half, SIDE, Path(exported, "model.onnx"))
            rewrite(Path(exported, "model.onnx"), path, "fp16")
        batch = tokens if half == "textual" else inputs(half, SIDE)
        cosine = least_cosine(path, half, batch, reference(clip, half, batch))
        log.info("%s: least cosine to torch %.6f", path, cosine)
        if not cosine > LEAST_COSINE["fp16"]:  # NaN, too
            raise ValueError(f"{path} differs from torch: least cosine {cosine:.6f}, {LEAST_COSINE['fp16']} is due.")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    log.info("%s: %.1f MB", folder, size / 1e6)
    if size > MOST_BYTES:
        raise ValueError(f"{folder} holds {size:,} bytes, more than {MOST_BYTES:,}.")


def catalog_files(folder: Path) -> str:
    """The lines of ``models/catalog.toml`` that say what the files of ``folder`` are."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, digest, size = path.relative_to(folder).as_posix(), digest_of(path, "sha256").value, path.stat().st_size
        source = f'package = "models", path = "tiny/weights/{name}", sha256 = "{digest}", bytes = {size}'
        lines.append(f'"{name}" = [{{ {source} }}]')
    return "\n".join(lines)


if __name__ == "__main__":
    main()
