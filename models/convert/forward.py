"""CN-CLIP's forward pass in plain numpy, of one picture or one text, straight from a checkpoint's tensors.

It is what converted graphs are held to, and shares nothing with the code that writes them: it follows cn_clip's
``model.py`` and ``modeling_bert.py`` line by line, computes every token of every layer, and leaves batch norms and
projections as the checkpoint has them. One layer's weights are in memory at a time.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.convert.architecture import Architecture, ResNet, VisionTransformer
from models.convert.configuration import MEAN, STD
from models.convert.tensor import Tensors

Array: TypeAlias = NDArray[np.float32]


def image_vector(architecture: Architecture, tensors: Tensors, pixels: NDArray[np.uint8]) -> Array:
    """Return the vector, float32 (d,) of L2 norm 1, of a picture, uint8 (s, s, 3) RGB.

    Raises ``ConversionRefused``, ``OSError``.
    """
    picture = ((pixels / 255 - MEAN) / STD).astype(np.float32)
    if isinstance(architecture.vision, ResNet):
        features = _resnet(_Weights(tensors, "visual."), architecture.vision, picture.transpose(2, 0, 1))
    else:
        features = _vision_transformer(_Weights(tensors, "visual."), architecture.vision, picture)
    return _unit(features)


def text_vector(architecture: Architecture, tensors: Tensors, ids: list[int]) -> Array:
    """Return the vector, float32 (d,) of L2 norm 1, of token ids without padding.

    Raises ``ConversionRefused``, ``OSError``.
    """
    weights = _Weights(tensors, "bert.")
    embeddings = _Weights(tensors, "bert.embeddings.")
    value = embeddings["word_embeddings.weight"][ids] + embeddings["position_embeddings.weight"][: len(ids)]
    value = _layer_norm(embeddings, "LayerNorm", value + embeddings["token_type_embeddings.weight"][0], 1e-12)
    for number in range(architecture.text.layers):
        layer = weights.below(f"encoder.layer.{number}.")
        parts = [_linear(layer, f"attention.self.{part}", value) for part in ("query", "key", "value")]
        mixed = _linear(layer, "attention.output.dense", _attention(*parts, heads=architecture.text.heads))
        value = _layer_norm(layer, "attention.output.LayerNorm", mixed + value, 1e-12)
        inner = _gelu(_linear(layer, "intermediate.dense", value))
        value = _layer_norm(layer, "output.LayerNorm", _linear(layer, "output.dense", inner) + value, 1e-12)
    return _unit(value[0] @ _Weights(tensors, "")["text_projection"])


class _Weights:
    """Tensors whose names begin alike, in float32, read anew each time."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        self._tensors = tensors
        self._prefix = prefix

    def __getitem__(self, name: str) -> Array:
        return self._tensors[self._prefix + name].read().astype(np.float32)

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def below(self, prefix: str) -> _Weights:
        return _Weights(self._tensors, self._prefix + prefix)


def _vision_transformer(weights: _Weights, vision: VisionTransformer, picture: Array) -> Array:
    """Return the features (d,) of a normalised picture (s, s, 3)."""
    side, grid = vision.patch_size, vision.image_size // vision.patch_size
    picture = picture[: grid * side, : grid * side]
    patches = picture.reshape(grid, side, grid, side, 3).transpose(0, 2, 4, 1, 3).reshape(grid * grid, -1)
    value = np.concatenate(
        [weights["class_embedding"][None], patches @ weights["conv1.weight"].reshape(vision.width, -1).T]
    )
    value = _layer_norm(weights, "ln_pre", value + weights["positional_embedding"], 1e-5)
    for number in range(vision.layers):
        block = weights.below(f"transformer.resblocks.{number}.")
        projected = (
            _layer_norm(block, "ln_1", value, 1e-5) @ block["attn.in_proj_weight"].T + block["attn.in_proj_bias"]
        )
        value = value + _linear(block, "attn.out_proj", _attention(*np.split(projected, 3, axis=1), heads=vision.heads))
        inner = _linear(block, "mlp.c_fc", _layer_norm(block, "ln_2", value, 1e-5))
        with np.errstate(
            over="ignore"
        ):  # exp of a large number is infinite, and one divided by it is zero, as it should be
            inner = inner / (1 + np.exp(-1.702 * inner))
        value = value + _linear(block, "mlp.c_proj", inner)
    features: Array = _layer_norm(weights, "ln_post", value[0], 1e-5) @ weights["proj"]
    return features


def _resnet(weights: _Weights, vision: ResNet, planes: Array) -> Array:
    """Return the features (d,) of a normalised picture (3, s, s)."""
    for number in (1, 2, 3):
        planes = _convolution(planes, weights[f"conv{number}.weight"], stride=2 if number == 1 else 1)
        planes = np.maximum(_batch_norm(weights, f"bn{number}", planes), 0)
    planes = _average_pool(planes)
    for stage, count in enumerate(vision.blocks, 1):
        for number in range(count):
            planes = _bottleneck(
                weights.below(f"layer{stage}.{number}."), planes, stride=2 if stage > 1 and number == 0 else 1
            )
    pool = weights.below("attnpool.")
    pixels = planes.reshape(len(planes), -1).T
    tokens = np.concatenate([pixels.mean(axis=0, keepdims=True), pixels]) + pool["positional_embedding"]
    parts = [_linear(pool, f"{part}_proj", tokens) for part in "qkv"]
    features: Array = _linear(pool, "c_proj", _attention(*parts, heads=vision.heads))[0]
    return features


def _bottleneck(weights: _Weights, planes: Array, stride: int) -> Array:
    inner = np.maximum(_batch_norm(weights, "bn1", _convolution(planes, weights["conv1.weight"])), 0)
    inner = np.maximum(_batch_norm(weights, "bn2", _convolution(inner, weights["conv2.weight"])), 0)
    if stride == 2:
        inner = _average_pool(inner)
    inner = _batch_norm(weights, "bn3", _convolution(inner, weights["conv3.weight"]))
    if "downsample.0.weight" in weights:
        planes = _average_pool(planes) if stride == 2 else planes
        planes = _batch_norm(weights, "downsample.1", _convolution(planes, weights["downsample.0.weight"]))
    return np.asarray(np.maximum(inner + planes, 0))


def _convolution(planes: Array, kernel: Array, stride: int = 1) -> Array:
    """Return (b, h, w) of ``planes`` (a, h, w) and ``kernel`` (b, a, k, k), padded with zeros by half a kernel."""
    edge = kernel.shape[2] // 2
    padded = np.pad(planes, ((0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.asarray(np.tensordot(kernel, windows, axes=((1, 2, 3), (0, 3, 4))))


def _batch_norm(weights: _Weights, name: str, planes: Array) -> Array:
    scale, shift, mean, variance = (
        weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return np.asarray((planes - mean) / np.sqrt(variance + np.float32(1e-5)) * scale + shift)


def _average_pool(planes: Array) -> Array:
    channels, height, width = planes.shape
    whole = planes[:, : height // 2 * 2, : width // 2 * 2]
    return np.asarray(whole.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4)))


def _linear(weights: _Weights, name: str, value: Array) -> Array:
    return np.asarray(value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def _layer_norm(weights: _Weights, name: str, value: Array, epsilon: float) -> Array:
    centred = value - value.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    return np.asarray(centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def _attention(query: Array, key: Array, value: Array, *, heads: int) -> Array:
    """Return attention of each of ``query`` (t, w) over ``key`` and ``value`` (t, w): (t, w)."""
    width = query.shape[1] // heads
    mixed = []
    for head in range(heads):
        here = slice(head * width, (head + 1) * width)
        scores = query[:, here] @ key[:, here].T / np.float32(math.sqrt(width))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, here])
    return np.concatenate(mixed, axis=1)


def _gelu(value: Array) -> Array:
    error = np.fromiter(map(math.erf, (value / math.sqrt(2)).ravel().tolist()), np.float32, value.size)
    return np.asarray(value / 2 * (1 + error.reshape(value.shape)), np.float32)


def _unit(features: Array) -> Array:
    """Return ``features`` divided by their L2 norm; NaN where they have none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(features / np.linalg.norm(features), np.float32)
