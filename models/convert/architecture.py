"""The architecture of a CN-CLIP, read off the shapes of its tensors, and the shapes that all of them must then have.

No shape tells how many heads attention has: in CN-CLIP a head is 64 numbers wide, and 80 in ViT-H-14's image half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from models.convert.refusal import ConversionRefused, shown
from models.convert.tensor import Shape

CONTEXT_LENGTH = 52
"""Tokens of a text."""
_HEAD_WIDTH = 64
_WIDE_HEADS = {1280: 80}
"""Width of a vision transformer -> width of its heads, where that is not 64."""
_MOST = {"layers": 100, "width": 8192, "pixels": 1024, "patches": 4096, "positions": 4096}
"""Beyond these it is no CN-CLIP, and converting would take more memory than anybody has."""


class Misfit(ValueError):
    """The tensors are not those of a CN-CLIP; the message says how, beginning with "it" or "its"."""


@dataclass(frozen=True, slots=True)
class VisionTransformer:
    """The image half of ViT-B-16 and its like."""

    image_size: int
    """Pixels: side of the square picture."""
    patch_size: int
    """Pixels: side of a patch."""
    width: int
    layers: int
    heads: int

    @property
    def patches(self) -> int:
        return int((self.image_size // self.patch_size) ** 2)

    def shapes(self, embedding_size: int) -> Iterator[tuple[str, Shape]]:
        """Yield the name and shape of every tensor."""
        width = self.width
        yield "visual.conv1.weight", (width, 3, self.patch_size, self.patch_size)
        yield "visual.class_embedding", (width,)
        yield "visual.positional_embedding", (self.patches + 1, width)
        yield from _norm("visual.ln_pre", width)
        for layer in range(self.layers):
            block = f"visual.transformer.resblocks.{layer}"
            yield from _norm(f"{block}.ln_1", width)
            yield f"{block}.attn.in_proj_weight", (3 * width, width)
            yield f"{block}.attn.in_proj_bias", (3 * width,)
            yield from _linear(f"{block}.attn.out_proj", width, width)
            yield from _norm(f"{block}.ln_2", width)
            yield from _linear(f"{block}.mlp.c_fc", width, 4 * width)
            yield from _linear(f"{block}.mlp.c_proj", 4 * width, width)
        yield from _norm("visual.ln_post", width)
        yield "visual.proj", (width, embedding_size)


@dataclass(frozen=True, slots=True)
class ResNet:
    """The image half of RN50: CLIP's own ResNet, which ends in attention."""

    image_size: int
    """Pixels: side of the square picture."""
    width: int
    """Channels after the stem; 32 times as many come out."""
    blocks: tuple[int, ...]
    """In each of the four stages."""
    heads: int

    def shapes(self, embedding_size: int) -> Iterator[tuple[str, Shape]]:
        """Yield the name and shape of every tensor."""
        half, out = self.width // 2, self.width * 32
        for number, (before, after) in enumerate(((3, half), (half, half), (half, self.width)), 1):
            yield from _convolution("visual", number, before, after, 3)
        before = self.width
        for stage, count in enumerate(self.blocks, 1):
            middle = self.width * 2 ** (stage - 1)
            for number in range(count):
                block = f"visual.layer{stage}.{number}"
                yield from _convolution(block, 1, before, middle, 1)
                yield from _convolution(block, 2, middle, middle, 3)
                yield from _convolution(block, 3, middle, 4 * middle, 1)
                if number == 0:
                    yield f"{block}.downsample.0.weight", (4 * middle, before, 1, 1)
                    yield from _batch_norm(f"{block}.downsample.1", 4 * middle)
                before = 4 * middle
        yield "visual.attnpool.positional_embedding", ((self.image_size // 32) ** 2 + 1, out)
        for part in ("k_proj", "q_proj", "v_proj"):
            yield from _linear(f"visual.attnpool.{part}", out, out)
        yield from _linear("visual.attnpool.c_proj", out, embedding_size)


@dataclass(frozen=True, slots=True)
class Bert:
    """The text half."""

    vocabulary: int
    """Word pieces."""
    positions: int
    """Tokens of the longest text."""
    width: int
    inner_width: int
    layers: int
    heads: int

    def shapes(self, embedding_size: int) -> Iterator[tuple[str, Shape]]:
        """Yield the name and shape of every tensor."""
        yield "bert.embeddings.word_embeddings.weight", (self.vocabulary, self.width)
        yield "bert.embeddings.position_embeddings.weight", (self.positions, self.width)
        yield "bert.embeddings.token_type_embeddings.weight", (2, self.width)
        yield from _norm("bert.embeddings.LayerNorm", self.width)
        for number in range(self.layers):
            layer = f"bert.encoder.layer.{number}"
            for part in ("query", "key", "value"):
                yield from _linear(f"{layer}.attention.self.{part}", self.width, self.width)
            yield from _linear(f"{layer}.attention.output.dense", self.width, self.width)
            yield from _norm(f"{layer}.attention.output.LayerNorm", self.width)
            yield from _linear(f"{layer}.intermediate.dense", self.width, self.inner_width)
            yield from _linear(f"{layer}.output.dense", self.inner_width, self.width)
            yield from _norm(f"{layer}.output.LayerNorm", self.width)
        yield "text_projection", (self.width, embedding_size)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A CN-CLIP, but for its numbers."""

    vision: VisionTransformer | ResNet
    text: Bert
    embedding_size: int
    """Numbers in a vector."""

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of every tensor by cn_clip's names."""
        return {
            "logit_scale": (),
            **dict(self.vision.shapes(self.embedding_size)),
            **dict(self.text.shapes(self.embedding_size)),
        }

    def with_heads(self, *, vision: int | None = None, text: int | None = None) -> Architecture:
        """Return the same with other numbers of heads, for a model whose heads are not of CN-CLIP's widths."""
        return replace(
            self,
            vision=replace(self.vision, heads=vision or self.vision.heads),
            text=replace(self.text, heads=text or self.text.heads),
        )


_BASE, _LARGE = Bert(21128, 512, 768, 3072, 12, 12), Bert(21128, 512, 1024, 4096, 24, 16)
KNOWN = {
    "RN50": Architecture(ResNet(224, 64, (3, 4, 6, 3), 32), replace(_BASE, layers=3), 1024),
    "ViT-B-16": Architecture(VisionTransformer(224, 16, 768, 12, 12), _BASE, 512),
    "ViT-L-14": Architecture(VisionTransformer(224, 14, 1024, 24, 16), _BASE, 768),
    "ViT-L-14-336": Architecture(VisionTransformer(336, 14, 1024, 24, 16), _BASE, 768),
    "ViT-H-14": Architecture(VisionTransformer(224, 14, 1280, 32, 16), _LARGE, 1024),
}
"""What CN-CLIP's authors published, by their names."""


def read_architecture(shapes: Mapping[str, Shape]) -> Architecture:
    """Return the architecture whose tensors have ``shapes``. Raises ``Misfit`` where there is none."""
    (embedding_size,) = _sides(shapes, "text_projection", 2)[1:]
    is_transformer = "visual.class_embedding" in shapes or "visual.positional_embedding" in shapes
    vision = _read_transformer(shapes) if is_transformer else _read_resnet(shapes)
    architecture = Architecture(vision, _read_bert(shapes), embedding_size)
    expected = architecture.shapes()
    for name, shape in expected.items():
        if name not in shapes:
            raise Misfit(f"it lacks {name}")
        if shapes[name] != shape:
            raise Misfit(f"its {name} has the shape {list(shapes[name])}, not {list(shape)}")
    unknown = next((name for name in shapes if name not in expected), None)
    if unknown is not None:
        raise Misfit(f"it has {shown(unknown)}, which the model has not")
    return architecture


def check_name(architecture: Architecture, name: str, source: str) -> None:
    """Raise ``ConversionRefused`` if ``name`` is one of CN-CLIP's own and ``source`` is of another architecture."""
    if name in KNOWN and KNOWN[name] != architecture:
        fits = next((other for other, known in KNOWN.items() if known == architecture), None)
        what = (
            f"those of {fits}: convert it with --as {fits}"
            if fits
            else "of no published CN-CLIP: give it a name of its own"
        )
        raise ConversionRefused(f"{source} does not fit {name}: the shapes of its weights are {what}.")


def _read_transformer(shapes: Mapping[str, Shape]) -> VisionTransformer:
    width, _, patch_size, _ = _sides(shapes, "visual.conv1.weight", 4)
    tokens, _ = _sides(shapes, "visual.positional_embedding", 2)
    layers = _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\.")
    grid = math.isqrt(tokens - 1)
    _bound(layers=layers, width=width, pixels=grid * patch_size, patches=tokens - 1)
    head_width = _WIDE_HEADS.get(width, _HEAD_WIDTH)
    return VisionTransformer(grid * patch_size, patch_size, width, layers, _heads(width, head_width))


def _read_resnet(shapes: Mapping[str, Shape]) -> ResNet:
    tokens, out = _sides(shapes, "visual.attnpool.positional_embedding", 2)
    width = out // 32
    blocks = tuple(_count(shapes, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 5))
    for count in blocks:
        _bound(layers=count)
    _bound(width=out, pixels=math.isqrt(tokens - 1) * 32, patches=tokens - 1)
    return ResNet(math.isqrt(tokens - 1) * 32, width, blocks, _heads(out, _HEAD_WIDTH))


def _read_bert(shapes: Mapping[str, Shape]) -> Bert:
    vocabulary, width = _sides(shapes, "bert.embeddings.word_embeddings.weight", 2)
    positions, _ = _sides(shapes, "bert.embeddings.position_embeddings.weight", 2)
    layers = _count(shapes, r"bert\.encoder\.layer\.(\d+)\.")
    inner_width, _ = _sides(shapes, "bert.encoder.layer.0.intermediate.dense.weight", 2)
    _bound(layers=layers, width=max(width, inner_width), positions=positions)
    if positions < CONTEXT_LENGTH:
        raise Misfit(f"its texts have at most {positions} tokens, not {CONTEXT_LENGTH}")
    return Bert(vocabulary, positions, width, inner_width, layers, _heads(width, _HEAD_WIDTH))


def _sides(shapes: Mapping[str, Shape], name: str, axes: int) -> Shape:
    shape = shapes.get(name)
    if shape is None:
        raise Misfit(f"it lacks {name}")
    if len(shape) != axes or 0 in shape:
        raise Misfit(f"its {name} has the shape {list(shape)}, not one of {axes} sides")
    return shape


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """Return one more than the highest number in names that begin with ``pattern``; 0 where there is no such name."""
    numbers = [
        int(match[1]) for match in map(re.compile(pattern, re.ASCII).match, shapes) if match and len(match[1]) < 6
    ]
    return max(numbers, default=-1) + 1


def _bound(**sizes: int) -> None:
    for what, size in sizes.items():
        if not 0 < size <= _MOST[what]:
            raise Misfit(f"its number of {what} is {size:,}; CN-CLIP's are between 1 and {_MOST[what]:,}")


def _heads(width: int, head_width: int) -> int:
    if width % head_width:
        raise Misfit(f"its width of {width} is no multiple of {head_width}, the width of CN-CLIP's heads")
    return width // head_width


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, before: int, after: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (after, before)
    yield f"{name}.bias", (after,)


def _convolution(name: str, number: int, before: int, after: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv{number}.weight", (after, before, side, side)
    yield from _batch_norm(f"{name}.bn{number}", after)


def _batch_norm(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(name, channels)
    yield f"{name}.running_mean", (channels,)
    yield f"{name}.running_var", (channels,)
    yield f"{name}.num_batches_tracked", ()
