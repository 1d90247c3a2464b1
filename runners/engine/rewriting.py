"""Rewriting of graphs before OpenVINO compiles them: the same numbers up to rounding, in faster operations.

The patterns come from profiles: PP-OCRv6's detector takes 0.85 of the time afterwards, its recogniser 0.95, face
vectors 0.75, SCRFD 0.86 and a single picture of CLIP 0.88 (docs/performance-measurements.md, "Where the time goes").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov
from openvino import opset13 as ops
from openvino.passes import ConstantFolding, Manager
from openvino.preprocess import PrePostProcessor

from runners.contract import Float32
from runners.engine.best_class import CLASS, LAST, VALUE, no_best_class
from runners.engine.channel_pairs import split_channel_pairs
from runners.engine.even_tokens import make_tokens_even
from runners.engine.graph_nodes import Node, constant_of, integers
from runners.engine.sibling_convolutions import join_siblings

REWRITING = "7"
"""Version of the rewriting, part of the key of compiled models. Increase it whenever the result of ``rewrite``, of
``end_with_best_class``, ``with_picture_size`` or of ``runners.engine.int8.quantize`` changes.
"""
_MOST_CHANNELS = 4
"""Output channels up to which a second transposed convolution is computed at the resolution of the first's input, which
costs the square of its scale.
"""
_MOST_BLOCKS, _MANY_CLASSES = 64, 1000
"""Blocks that classes are cut into at most, and the number of classes from which on it pays."""


def rewrite(model: ov.Model) -> int:
    """Rewrite the fp32 parts of ``model`` in place and return the number of places.

    Inputs and outputs keep names, shapes and order.
    """
    _without_identities(model)
    folding = Manager()
    folding.register_pass(ConstantFolding())  # weights hide behind shape computations of the ONNX importer
    folding.run_passes(model)
    places = sum(_gate(node) for node in model.get_ordered_ops() if node.get_type_name() == "Add" and _is_fp32(node))
    places += join_siblings(model) + split_channel_pairs(model) + make_tokens_even(model)
    done: set[str] = set()
    for node in model.get_ordered_ops():
        if node.get_friendly_name() not in done and _is_upsampling(node):
            done.update(one.get_friendly_name() for one in _upsample(node))
            places += 1
    model.validate_nodes_and_infer_types()
    return places


def with_picture_size(model: ov.Model, size: tuple[int, int]) -> ov.Model:
    """Return ``model``, which takes pictures (n, 3, height, width), for one picture a call, (1, height, width, 3).

    ``size``: width and height, where the graph leaves them open. A graph that takes anything else stays as it is.
    OpenVINO computes convolutions on rows of pixels, and lays planes out anew, twice where their shape is open.
    """
    shape = model.inputs[0].get_partial_shape() if len(model.inputs) == 1 else ov.PartialShape.dynamic()
    if shape.rank.is_dynamic or len(shape) != 4 or shape[1].is_dynamic or shape[1].get_length() != 3:
        return model
    model.reshape([side if side.is_static else open for side, open in zip(shape, (1, 3, *size[::-1]), strict=True)])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    built: ov.Model = steps.build()
    return built


def end_with_best_class(model: ov.Model) -> ov.Model:
    """Return ``model`` with its one output (..., classes) reduced to the outputs of ``BestClassSession``.

    Raises ``ValueError`` where it has several outputs or no axis of classes.
    """
    if (
        len(model.outputs) != 1
        or not model.output(0).get_partial_shape().rank.is_static
        or not len(model.output(0).get_partial_shape())
    ):
        raise no_best_class(len(model.outputs))
    answer = model.get_results()[0].input_value(0)
    outputs = [*_best(answer), ops.gather(answer, ops.constant(np.int64(-1)), ops.constant(np.int64(-1))).output(0)]
    for output, name in zip(outputs, (VALUE, CLASS, LAST), strict=True):
        output.get_tensor().set_names({name})
    return ov.Model(outputs, model.get_parameters())


def _best(answer: Any) -> tuple[Any, Any]:
    """Return the largest value along the last axis of ``answer`` (..., classes), and its class, int32.

    The classes are cut into blocks: first the best block is found, by the blocks' largest values, then the best class
    in it. For 18,710 classes that takes 1 ms, one search through all of them 4.7 ms (160 steps, one thread).
    """
    shape = answer.get_partial_shape()
    blocks = _blocks_of(shape[-1].get_length()) if shape[-1].is_static else 1
    if blocks == 1:
        return _largest(answer)
    size = shape[-1].get_length() // blocks
    axes = shape.rank.get_length()
    cut = ops.reshape(answer, integers([0] * (axes - 1) + [blocks, size]), True)
    value, block = _largest(ops.reduce_max(cut, integers([axes])).output(0))
    inside = ops.gather(cut, ops.unsqueeze(block, integers([-1])), integers(axes - 1), axes - 1)
    _, place = _largest(ops.squeeze(inside, integers([axes - 1])).output(0))
    return value, ops.add(ops.multiply(block, ops.constant(np.int32(size))), place).output(0)


def _largest(values: Any) -> tuple[Any, Any]:
    """Return the largest value along the last axis and its place, int32; both without that axis."""
    best = ops.topk(values, integers(1), -1, "max", "none", index_element_type="i32")
    value, place = (ops.squeeze(best.output(one), integers([-1])).output(0) for one in (0, 1))
    return value, place


def _blocks_of(classes: int) -> int:
    """Return into how many blocks of one size the classes are cut: a divisor; 1 where there is none worth it."""
    if classes < _MANY_CLASSES:
        return 1
    return next(blocks for blocks in range(_MOST_BLOCKS, 0, -1) if classes % blocks == 0)


def _without_identities(model: ov.Model) -> None:
    """Remove identities, which PaddlePaddle's exporter adds everywhere and which would hide patterns."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Identity" and not any(
            user.get_node().get_type_name() == "Result" for user in node.output(0).get_target_inputs()
        ):
            node.output(0).replace(node.input_value(0))


def _gate(node: Node) -> bool:
    """Rewrite ``x + x * s``, with one s a channel, to ``x * (s + 1)``: one pass over the large x instead of two.

    Returns whether ``node``, an addition, was such a gate with a shortcut.
    """
    for place in (0, 1):
        whole, gated = node.input_value(place), node.input_value(1 - place)
        product = gated.get_node()
        if product.get_type_name() != "Multiply" or len(gated.get_target_inputs()) != 1:
            continue
        for side in (0, 1):
            factor = product.input_value(1 - side)
            if product.input_value(side) == whole and _is_per_channel(factor.get_partial_shape()):
                one = ops.constant(np.ones((1, 1, 1, 1), np.float32))
                node.output(0).replace(ops.multiply(whole, ops.add(factor, one)).output(0))
                return True
    return False


def _is_fp32(node: Node) -> bool:
    return bool(node.get_output_element_type(0) == ov.Type.f32)


def _is_per_channel(shape: Any) -> bool:
    return bool(
        shape.rank.is_static
        and shape.rank.get_length() == 4
        and all(side.is_static and side.get_length() == 1 for side in shape[2:])
    )


def _is_upsampling(node: Node) -> bool:
    """Return whether ``node`` is a transposed convolution whose kernel equals its stride.

    Each input pixel then makes a block of output pixels of its own.
    """
    if node.get_type_name() != "ConvolutionBackpropData" or node.get_input_size() != 2 or not _is_fp32(node):
        return False
    weights, attributes = constant_of(node.input_value(1)), node.get_attributes()
    return (
        weights is not None
        and weights.ndim == 4
        and weights.shape[2] == weights.shape[3]
        and list(attributes["strides"]) == list(weights.shape[2:])
        and not _pads(node)
    )


def _pads(node: Node) -> bool:
    attributes = node.get_attributes()
    return (
        any([*attributes["pads_begin"], *attributes["pads_end"], *attributes.get("output_padding", ())])
        or attributes["auto_pad"] not in ("explicit", "valid")
        or any(step != 1 for step in attributes["dilations"])
    )


def _upsample(first: Node) -> list[Node]:
    """Replace ``first`` and the pixelwise operations after it by ones at its input's size; return the replaced nodes.

    Blocks of pixels are laid out at the end. A block of b x b pixels is b * b groups of channels, row by row. A
    convolution over such channels is one of 1 x 1 pixels whose weights are zero between groups.
    """
    replaced: list[Node] = []
    value, block = first.input_value(0), 1
    for node in _pixelwise(first):
        if node.get_type_name() == "ConvolutionBackpropData":
            weights, block = _block_weights(_weights(node), block)
            value = ops.convolution(value, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1]).output(0)
        elif node.get_type_name() == "Add":
            value = ops.add(value, ops.constant(np.tile(_addend(node), block * block).reshape(1, -1, 1, 1))).output(0)
        else:
            value = {"Relu": ops.relu, "Sigmoid": ops.sigmoid}[node.get_type_name()](value).output(0)
        replaced.append(node)
    replaced[-1].output(0).replace(ops.depth_to_space(value, "blocks_first", block).output(0))
    return replaced


def _pixelwise(first: Node) -> Iterator[Node]:
    """Yield ``first`` and the operations after it that can be computed before its pixels are laid out."""
    node = first
    while True:
        yield node
        consumers = list(node.output(0).get_target_inputs())
        if len(consumers) != 1:
            return
        node = consumers[0].get_node()
        kind = node.get_type_name()
        is_bias = kind == "Add" and _is_bias(node)
        is_small_upsampling = _is_upsampling(node) and _weights(node).shape[1] <= _MOST_CHANNELS
        if not (kind in ("Relu", "Sigmoid") or is_bias or is_small_upsampling):
            return


def _is_bias(node: Node) -> bool:
    addend = constant_of(node.input_value(1))
    return (
        addend is not None
        and addend.ndim == 4
        and addend.size == addend.shape[1]
        and not node.input_value(0).get_partial_shape()[1].is_dynamic
    )


def _addend(node: Node) -> Float32:
    """Return the addend of each input channel."""
    channels = node.input_value(0).get_partial_shape()[1].get_length()
    return np.broadcast_to(_as_float(node.input_value(1)).reshape(-1), (channels,))


def _weights(node: Node) -> Float32:
    return _as_float(node.input_value(1))


def _block_weights(weights: Float32, block: int) -> tuple[Float32, int]:
    """Convert weights (c, d, k, k) of a transposed convolution to those for channels that are blocks of pixels.

    ``block``: side of a block, in pixels. Returns (n * n * d, block * block * c, 1, 1) with n = k * block, and n.
    """
    before, after, scale, _ = weights.shape
    sparse = np.zeros((block, scale, block, scale, after, block, block, before), np.float32)
    kernel = weights.transpose(2, 3, 1, 0)  # row and column in the new block, channels after, channels before
    for row in range(block):
        for column in range(block):
            sparse[row, :, column, :, :, row, column] = kernel
    size = block * scale
    return sparse.reshape(size * size * after, block * block * before, 1, 1), size


def _as_float(value: Any) -> Float32:
    return np.asarray(value.get_node().get_data(), np.float32)
