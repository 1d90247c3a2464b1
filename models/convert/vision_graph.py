"""The image half of a CN-CLIP as a graph: uint8 pixels (n, s, s, 3) RGB to unit vectors float32 (n, d)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.convert.architecture import Architecture, ResNet, VisionTransformer
from models.convert.configuration import MEAN, STD
from models.convert.graph import GraphWriter
from models.convert.operations import attention, first_token, layer_norm, linear, unit_vectors
from models.convert.tensor import Tensors

INPUT = "image"
_EPSILON = 1e-5
"""Of layer norms and batch norms, PyTorch's default."""


def write_vision(writer: GraphWriter, architecture: Architecture, tensors: Tensors) -> Any:
    """Add the whole half, and return its input. Raises as ``GraphWriter.weight`` does."""
    vision = architecture.vision
    planes = _normalised(writer)
    if isinstance(vision, VisionTransformer):
        features = _transformer(writer, vision, tensors, planes)
        projection = writer.weight("visual.proj", tensors["visual.proj"].read())
        features = writer.node("MatMul", features, projection, name="projected")
    else:
        features = _resnet(writer, vision, tensors, planes)
    unit_vectors(writer, features)
    return helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", vision.image_size, vision.image_size, 3])


def _normalised(writer: GraphWriter) -> str:
    """Add the picture as float planes (n, 3, s, s). cn_clip divides by 255 first (ToTensor), then normalises."""
    mean, std = (writer.constant([255 * part for part in parts], np.float32) for parts in (MEAN, STD))
    numbers = writer.node("Cast", INPUT, name="image.float", to=TensorProto.FLOAT)
    centred = writer.node("Sub", numbers, mean, name="image.centred")
    scaled = writer.node("Div", centred, std, name="image.scaled")
    return writer.node("Transpose", scaled, name="image.planes", perm=[0, 3, 1, 2])


def _transformer(writer: GraphWriter, vision: VisionTransformer, tensors: Tensors, planes: str) -> str:
    """Add the class token after all layers, (n, 1, width)."""
    kernel = writer.weight("visual.conv1.weight", tensors["visual.conv1.weight"].read())
    side = [vision.patch_size] * 2
    patches = writer.node("Conv", planes, kernel, name="visual.conv1", kernel_shape=side, strides=side)
    rows = writer.node("Reshape", patches, writer.constant([0, vision.width, -1]), name="visual.columns")
    rows = writer.node("Transpose", rows, name="visual.patches", perm=[0, 2, 1])
    # The class token is the same for all pictures: a row of zeros here, which gets its numbers with its position.
    rows = writer.node("Pad", rows, writer.constant([0, 1, 0, 0, 0, 0]), name="visual.padded")
    positions = tensors["visual.positional_embedding"].read().astype(np.float32)
    positions[0] += tensors["visual.class_embedding"].read()
    placed = writer.node("Add", rows, writer.weight("visual.positional_embedding", positions), name="visual.placed")
    value = layer_norm(writer, tensors, "visual.ln_pre", placed, _EPSILON)
    for layer in range(vision.layers):
        value = _block(writer, vision, tensors, layer, value)
    return layer_norm(writer, tensors, "visual.ln_post", value, _EPSILON)


def _block(writer: GraphWriter, vision: VisionTransformer, tensors: Tensors, layer: int, value: str) -> str:
    """Add one layer. Of the last one only the class token is of use: the others are asked, but do not ask."""
    source = f"visual.transformer.resblocks.{layer}"
    asked = layer_norm(writer, tensors, f"{source}.ln_1", value, _EPSILON)
    asking = asked
    if layer == vision.layers - 1:
        value, asking = first_token(writer, value), first_token(writer, asked)
    weights, biases = (tensors[f"{source}.attn.in_proj_{kind}"].read() for kind in ("weight", "bias"))
    parts = []
    for number, (part, given) in enumerate((("query", asking), ("key", asked), ("value", asked))):
        of_part = slice(number * vision.width, (number + 1) * vision.width)
        name = f"{source}.attn.{part}"
        product = writer.node(
            "MatMul", given, writer.weight(f"{name}.weight", weights[of_part].T), name=f"{name}.product"
        )
        parts.append(writer.node("Add", product, writer.weight(f"{name}.bias", biases[of_part]), name=name))
    mixed = attention(writer, *parts, heads=vision.heads, width=vision.width, name=f"{source}.attn")
    value = writer.node(
        "Add", value, linear(writer, tensors, f"{source}.attn.out_proj", mixed), name=f"{source}.attended"
    )
    inner = layer_norm(writer, tensors, f"{source}.ln_2", value, _EPSILON)
    inner = linear(writer, tensors, f"{source}.mlp.c_fc", inner)
    gate = writer.node("Mul", inner, writer.constant(1.702, np.float32), name=f"{source}.mlp.scaled")
    gate = writer.node("Sigmoid", gate, name=f"{source}.mlp.gate")
    inner = writer.node("Mul", inner, gate, name=f"{source}.mlp.quick_gelu")
    return writer.node("Add", value, linear(writer, tensors, f"{source}.mlp.c_proj", inner), name=source)


def _resnet(writer: GraphWriter, vision: ResNet, tensors: Tensors, planes: str) -> str:
    """Add the features, (n, 1, d)."""
    value = planes
    for number in (1, 2, 3):
        stride = 2 if number == 1 else 1
        value = _convolution(writer, tensors, f"visual.conv{number}", f"visual.bn{number}", value, stride=stride)
        value = writer.node("Relu", value, name=f"visual.relu{number}")
    value = _halved(writer, value, "visual.stem")
    for stage, count in enumerate(vision.blocks, 1):
        for number in range(count):
            value = _bottleneck(
                writer, tensors, f"visual.layer{stage}.{number}", value, halves=stage > 1 and number == 0
            )
    return _attention_pool(writer, vision, tensors, value)


def _bottleneck(writer: GraphWriter, tensors: Tensors, source: str, value: str, *, halves: bool) -> str:
    inner = value
    for number in (1, 2):
        inner = _convolution(writer, tensors, f"{source}.conv{number}", f"{source}.bn{number}", inner)
        inner = writer.node("Relu", inner, name=f"{source}.relu{number}")
    if halves:
        inner = _halved(writer, inner, f"{source}.halved")
    inner = _convolution(writer, tensors, f"{source}.conv3", f"{source}.bn3", inner)
    if f"{source}.downsample.0.weight" in tensors:
        shortcut = _halved(writer, value, f"{source}.downsample") if halves else value
        value = _convolution(writer, tensors, f"{source}.downsample.0", f"{source}.downsample.1", shortcut)
    return writer.node("Relu", writer.node("Add", inner, value, name=f"{source}.sum"), name=source)


def _halved(writer: GraphWriter, value: str, name: str) -> str:
    return writer.node("AveragePool", value, name=name, kernel_shape=[2, 2], strides=[2, 2])


def _convolution(writer: GraphWriter, tensors: Tensors, source: str, norm: str, value: str, *, stride: int = 1) -> str:
    """Add a convolution and the batch norm behind it, as one convolution with a bias."""
    scale, shift, mean, variance = (
        _float64(tensors, f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
    )
    with np.errstate(all="ignore"):  # a variance below zero comes to NaN, which is refused
        factor = scale / np.sqrt(variance + _EPSILON)
        kernel = _float64(tensors, f"{source}.weight") * factor[:, None, None, None]
    weight = writer.weight(f"{source}.weight", kernel)
    bias = writer.weight(f"{source}.bias", shift - mean * factor)
    side = kernel.shape[-1]
    layout = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [side // 2] * 4}
    return writer.node("Conv", value, weight, bias, name=source, **layout)


def _float64(tensors: Tensors, name: str) -> NDArray[np.float64]:
    return tensors[name].read().astype(np.float64)


def _attention_pool(writer: GraphWriter, vision: ResNet, tensors: Tensors, value: str) -> str:
    """Add attention of the mean over all pixels and itself, (n, 1, d)."""
    source, width = "visual.attnpool", vision.width * 32
    columns = writer.node("Reshape", value, writer.constant([0, width, -1]), name=f"{source}.columns")
    rows = writer.node("Transpose", columns, name=f"{source}.pixels", perm=[0, 2, 1])
    mean = writer.node("ReduceMean", rows, name=f"{source}.mean", axes=[1], keepdims=1)
    rows = writer.node("Concat", mean, rows, name=f"{source}.all", axis=1)
    positions = writer.weight(f"{source}.positional_embedding", tensors[f"{source}.positional_embedding"].read())
    rows = writer.node("Add", rows, positions, name=f"{source}.placed")
    query = linear(writer, tensors, f"{source}.q_proj", first_token(writer, rows))
    key, content = (linear(writer, tensors, f"{source}.{part}", rows) for part in ("k_proj", "v_proj"))
    mixed = attention(writer, query, key, content, heads=vision.heads, width=width, name=source)
    return linear(writer, tensors, f"{source}.c_proj", mixed)
