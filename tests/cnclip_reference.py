"""What CN-CLIP's own code answers, and CLIP folders in this project's layout, of random weights.

Classes and cn_clip's own tokenizer are loaded by ``tools.tiny.cn_clip``; what is computed with them is spelled out
here anew.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.convert import convert, installed_vocabulary
from tools.tiny.cn_clip import ARCHITECTURES, Architecture, cn_clip_modules

CONTEXT_LENGTH = 52

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def reference_tokens(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> NDArray[np.int64]:
    """Return (n, context) int64: ``cn_clip.clip.tokenize``, with cn_clip's own tokenizer."""
    tokenizer = cn_clip_modules()[1]
    ids = np.zeros((len(texts), context_length), np.int64)
    for row, text in zip(ids, texts, strict=True):
        pieces = tokenizer.convert_tokens_to_ids(["[CLS]", *tokenizer.tokenize(text)[: context_length - 2], "[SEP]"])
        row[: len(pieces)] = pieces
    return ids


def reference_pixels(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return (size, size, 3) uint8: cn_clip's ``image_transform`` up to ``ToTensor``. torchvision resizes a PIL image
    with Pillow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's advice on palettes with transparency, which the reference does not follow
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))


TINY = Architecture(
    "ViT-B-16",
    "RoBERTa-wwm-ext-base-chinese",
    {"embed_dim": 64, "image_resolution": 64, "vision_layers": 2, "vision_width": 128, "vision_patch_size": 16}
    | {
        "text_hidden_size": 128,
        "text_intermediate_size": 256,
        "text_num_attention_heads": 2,
        "text_num_hidden_layers": 2,
    },
)
"""ViT-B-16's classes, two narrow layers each: quick to convert. Pictures of 64 px, vectors of 64 numbers."""

TINY_RESNET = Architecture(
    "RN50",
    "RBT3-chinese",
    {"vision_width": 16, "image_resolution": 64, "vision_layers": (1, 1, 1, 1), "embed_dim": 64},
)
"""RN50's classes, narrow."""


def random_model(architecture: Architecture = ARCHITECTURES["ViT-B-16"], *, seed: int = 0) -> Any:
    """Return a CN-CLIP with seeded random weights, fp32, eval.

    Some weights start at 0 in every new model (the last norm of a ResNet block) or are the same for every channel,
    which would hide mistakes: all of them are moved a little.
    """
    import torch

    torch.manual_seed(seed)
    model = architecture.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
        _settle_norms(model.visual)
    return model


def _settle_norms(visual: Any) -> None:
    """Give a ResNet's batch norms the statistics of some noise; with those of a new model all pictures have the same
    vector.
    """
    import torch

    norms = [module for module in visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the plain mean of all batches
        visual.train()
        visual(torch.randn(4, 3, visual.input_resolution, visual.input_resolution))
        visual.eval()


def official_checkpoint(model: Any, path: Path, *, half: bool = False) -> Path:
    """Write ``model`` as CN-CLIP's authors publish theirs (``clip_cn_*.pt``), in fp32. ``half``: in fp16."""
    import torch

    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save({"epoch": 15, "step": 1, "name": "random", "state_dict": state}, path)
    return path


def image_features(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (n, d) float32, L2 norm 1, of (n, s, s, 3) uint8: ToTensor, Normalize, encode_image in torch fp32."""
    import torch

    with torch.no_grad():
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
        normalised = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        features = model.encode_image(normalised)
        return np.asarray(features / features.norm(dim=-1, keepdim=True), np.float32)


def text_features(model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, d) float32, L2 norm 1: tokenize, encode_text in torch fp32."""
    import torch

    with torch.no_grad():
        features = model.encode_text(torch.from_numpy(reference_tokens(texts)))
        return np.asarray(features / features.norm(dim=-1, keepdim=True), np.float32)


def converted_folder(model: Any, folder: Path) -> Path:
    """Write ``model`` as a CLIP folder in fp32. Returns ``folder``, which must not be there yet."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        checkpoint = official_checkpoint(model, Path(temporary, "clip_cn.pt"))
        return convert(checkpoint, folder, vocabulary=installed_vocabulary()).folder
