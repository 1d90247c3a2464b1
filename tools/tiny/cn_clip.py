"""CN-CLIP's own classes in PyTorch, and the architectures that its authors published.

They are what cn-clip-tiny is trained with, and what the tests compare with. ``cn_clip.clip`` is loaded without its
package module, which would import torchvision for a transform and a downloader: the torchvision on the registry does
not import beside the CPU build of torch 2.13.0.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """A pair of configurations in cn_clip's ``model_configs``."""

    vision: str
    text: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the configuration that differ, to make a small one of the same classes."""

    @property
    def configuration(self) -> dict[str, Any]:
        """Return the arguments of cn_clip's class ``CLIP``."""
        folder = cn_clip_folder() / "model_configs"
        parts = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in (self.vision, self.text)]
        config: dict[str, Any] = parts[0] | parts[1] | dict(self.changes)
        if isinstance(config["vision_layers"], str):  # "[3,4,6,3]"
            config["vision_layers"] = json.loads(config["vision_layers"])
        return config

    @property
    def image_size(self) -> int:
        """Return the side of the square that the image half takes, in pixels."""
        return int(self.configuration["image_resolution"])

    @property
    def embedding_size(self) -> int:
        return int(self.configuration["embed_dim"])

    def build(self) -> Any:
        """Return a ``torch.nn.Module`` of fp32 parameters in evaluation mode."""
        return cn_clip_modules()[0].CLIP(**self.configuration).float().eval()


# The pairs of cn_clip/clip/utils.py, _MODEL_INFO.
ARCHITECTURES = {
    "RN50": Architecture("RN50", "RBT3-chinese"),
    "ViT-B-16": Architecture("ViT-B-16", "RoBERTa-wwm-ext-base-chinese"),
    "ViT-L-14": Architecture("ViT-L-14", "RoBERTa-wwm-ext-base-chinese"),
    "ViT-L-14-336": Architecture("ViT-L-14-336", "RoBERTa-wwm-ext-base-chinese"),
    "ViT-H-14": Architecture("ViT-H-14", "RoBERTa-wwm-ext-large-chinese"),
}


def cn_clip_folder() -> Path:
    """Return the folder ``clip`` of the installed cn_clip, without importing it. Raises ``ModuleNotFoundError``."""
    spec = importlib.util.find_spec("cn_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("cn_clip is not installed: pip install --no-deps cn-clip")
    return Path(spec.origin).parent / "clip"


@lru_cache(maxsize=1)
def cn_clip_modules() -> tuple[Any, Any]:
    """Return the module ``cn_clip.clip.model``, and cn_clip's own tokenizer. Raises ``ModuleNotFoundError``."""
    package = types.ModuleType("cn_clip.clip")
    package.__path__ = [str(cn_clip_folder())]
    sys.modules["cn_clip.clip"] = package
    tokenizer = importlib.import_module("cn_clip.clip.bert_tokenizer").FullTokenizer()
    package._tokenizer = tokenizer  # type: ignore[attr-defined]
    return importlib.import_module("cn_clip.clip.model"), tokenizer
