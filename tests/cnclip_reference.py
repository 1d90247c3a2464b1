"""What CN-CLIP's own code answers, and CLIP folders in this project's layout for the tests. Random weights, true classes.

cn_clip is loaded without its ``cn_clip.clip`` package module, which would import torchvision for a transform and a downloader.
``tiny_clip_folder`` needs neither cn_clip nor torch.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.cnclip_tokenizer import CONTEXT_LENGTH, cnclip_tokenizer, package_folder
from tests.tiny_clip import clip_files as clip_files
from tests.tiny_clip import tiny_clip_folder as tiny_clip_folder

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@lru_cache(maxsize=1)
def _cnclip() -> tuple[Any, Any]:
    """The module ``cn_clip.clip.model`` and cn_clip's FullTokenizer."""
    package = types.ModuleType("cn_clip.clip")
    package.__path__ = [str(package_folder())]
    sys.modules["cn_clip.clip"] = package
    tokenizer = importlib.import_module("cn_clip.clip.bert_tokenizer").FullTokenizer()
    package._tokenizer = tokenizer  # type: ignore[attr-defined]
    return importlib.import_module("cn_clip.clip.model"), tokenizer


def reference_tokens(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> NDArray[np.int64]:
    """(n, context) int64: ``cn_clip.clip.tokenize``, with cn_clip's own tokenizer."""
    tokenizer = _cnclip()[1]
    ids = np.zeros((len(texts), context_length), np.int64)
    for row, text in zip(ids, texts, strict=True):
        pieces = tokenizer.convert_tokens_to_ids(["[CLS]", *tokenizer.tokenize(text)[: context_length - 2], "[SEP]"])
        row[: len(pieces)] = pieces
    return ids


def reference_pixels(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8: cn_clip's ``image_transform`` up to ``ToTensor``. torchvision resizes a PIL image with Pillow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's advice on palettes with transparency, which the reference does not follow
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))


def random_model(
    vision: str = "ViT-B-16", text: str = "RoBERTa-wwm-ext-base-chinese", *, seed: int = 0, replace: Mapping[str, Any] | None = None
) -> Any:
    """A CN-CLIP of a true architecture (names of cn_clip's model_configs) with seeded random weights, fp32, eval.

    ``replace``: entries of the configuration to replace, to make it small.
    """
    import torch

    folder = package_folder() / "model_configs"
    parts = [json.loads((folder / f"{name}.json").read_text()) for name in (vision, text)]
    config = parts[0] | parts[1] | dict(replace or {})
    torch.manual_seed(seed)
    return _cnclip()[0].CLIP(**config).float().eval()


def tiny_model(embed_dim: int = 64) -> Any:
    """The same classes as ``random_model``'s, two narrow layers each: quick to build and to export. Pictures of 64 px."""
    vision = {"image_resolution": 64, "vision_layers": 2, "vision_width": 128, "vision_patch_size": 16}
    text = {"text_hidden_size": 64, "text_intermediate_size": 128, "text_num_attention_heads": 2, "text_num_hidden_layers": 2}
    return random_model(replace={"embed_dim": embed_dim} | vision | text)


def image_features(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, d) float32, L2 norm 1, of (n, s, s, 3) uint8: ToTensor, Normalize, encode_image in torch fp32."""
    import torch

    with torch.no_grad():
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
        normalised = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        features = model.encode_image(normalised)
        return np.asarray(features / features.norm(dim=-1, keepdim=True), np.float32)


def text_features(model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, d) float32, L2 norm 1: tokenize, encode_text in torch fp32."""
    import torch

    with torch.no_grad():
        features = model.encode_text(torch.from_numpy(reference_tokens(texts)))
        return np.asarray(features / features.norm(dim=-1, keepdim=True), np.float32)


def export_onnx_folder(model: Any, folder: Path, image_size: int) -> Path:
    """Write ``model`` as a CLIP folder: normalisation and L2 norm inside the graphs, dynamic batch axis. Returns ``folder``."""
    import torch

    class Visual(torch.nn.Module):  # type: ignore[misc]
        def forward(self, image: Any) -> Any:
            mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
            features = model.encode_image(((image.float() - mean) / std).permute(0, 3, 1, 2))
            return features / features.norm(dim=-1, keepdim=True)

    class Textual(torch.nn.Module):  # type: ignore[misc]
        def forward(self, text: Any) -> Any:
            features = model.encode_text(text)
            return features / features.norm(dim=-1, keepdim=True)

    write_configs(folder, image_size)
    _export(model, Visual(), "image", torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8), folder / "visual/model.onnx")
    _export(model, Textual(), "text", torch.ones(2, CONTEXT_LENGTH, dtype=torch.int64), folder / "textual/model.onnx")
    return folder


def _export(model: Any, half: Any, name: str, example: Any, path: Path) -> None:
    import torch

    half.model = model  # a submodule, so that its weights are the graph's own
    axes = {name: {0: "batch"}, "embedding": {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no onnxscript says on every call that it is the old one
        torch.onnx.export(
            half.eval(), (example,), str(path), dynamo=False, opset_version=17,
            input_names=[name], output_names=["embedding"], dynamic_axes=axes,
        )  # fmt: skip


def write_configs(folder: Path, image_size: int) -> None:
    """The small files of a CN-CLIP folder: preprocess_cfg.json, tokenizer.json, tokenizer_config.json, config.json."""
    for half in ("visual", "textual"):
        (folder / half).mkdir(parents=True, exist_ok=True)
    preprocessing = {"size": [image_size] * 2, "mode": "RGB", "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "visual/preprocess_cfg.json").write_text(json.dumps(preprocessing))
    (folder / "textual/tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    (folder / "config.json").write_text(json.dumps({"text_cfg": {"context_length": CONTEXT_LENGTH}}))
    cnclip_tokenizer().save(str(folder / "textual/tokenizer.json"))
