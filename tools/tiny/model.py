"""The shape of cn-clip-tiny: CN-CLIP's own classes, narrow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.convert.architecture import CONTEXT_LENGTH
from models.convert.configuration import MEAN, STD
from tools.tiny.cn_clip import Architecture

SIDE = 64
"""Pixels of the square that the image half takes."""
EMBEDDING_SIZE = 512
TEXT_HEADS = 4
"""Each is 32 numbers wide, half as wide as CN-CLIP's."""


def architecture(vocabulary: int) -> Architecture:
    """Return RN50 and RBT3, narrow and short, with a vocabulary of this size.

    As in CN-CLIP's own vocabulary, piece 0 is [PAD].
    """
    vision = {"image_resolution": SIDE, "vision_layers": (2, 2, 3, 2), "vision_width": 24}
    text = {
        "vocab_size": vocabulary,
        "text_hidden_size": 128,
        "text_num_hidden_layers": 2,
        "text_num_attention_heads": TEXT_HEADS,
        "text_intermediate_size": 512,
        "text_attention_probs_dropout_prob": 0.0,
        "text_max_position_embeddings": CONTEXT_LENGTH,
    }
    return Architecture("RN50", "RBT3-chinese", {"embed_dim": EMBEDDING_SIZE} | vision | text)


def image_features(clip: Any, images: Tensor) -> Tensor:
    """Return (n, 512), L2 norm 1, of (n, 3, side, side) float RGB, 0 to 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return functional.normalize(clip.encode_image((images - mean) / std), dim=-1)


def text_features(clip: Any, tokens: Tensor) -> Tensor:
    """Return (n, 512), L2 norm 1, of (n, length) token ids, padded with 0."""
    return functional.normalize(clip.encode_text(tokens), dim=-1)
