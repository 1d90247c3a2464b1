"""The small files beside the graphs of a CN-CLIP folder."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from models.convert.architecture import CONTEXT_LENGTH

# Of R, G, B in the range 0 to 1: cn_clip/clip/utils.py, image_transform.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def write_configuration(folder: Path, image_size: int, tokenizer: Tokenizer) -> None:
    """Write preprocess_cfg.json, tokenizer.json, tokenizer_config.json and config.json below ``folder``.

    ``image_size``: pixels, side of the square picture. Raises ``OSError``.
    """
    for half in ("visual", "textual"):
        (folder / half).mkdir(parents=True, exist_ok=True)
    preprocessing = {
        "size": [image_size] * 2,
        "mode": "RGB",
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    _write(folder / "visual/preprocess_cfg.json", preprocessing)
    _write(folder / "textual/tokenizer_config.json", {"pad_token": "[PAD]"})
    _write(folder / "config.json", {"text_cfg": {"context_length": CONTEXT_LENGTH}})
    (folder / "textual/tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
