"""Convolutions of one input with few outputs each, as one convolution whose outputs are split afterwards.

OpenVINO computes 16 outputs at a time on AVX-512, and as many where fewer are asked for. SCRFD ends each level with
three convolutions of the same input, for 2, 8 and 20 numbers: four times 16 apart, twice 16 as one.
"""

from __future__ import annotations

import math

import numpy as np

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov
from openvino import opset13 as ops

from runners.contract import Float32
from runners.engine.graph_nodes import Node, constant_of

_AT_ONCE = 16
"""Outputs that are computed together: the fp32 numbers of a register of 512 bits."""
_WORTH_IT = 0.75
"""Share of these groups of outputs that is left, at most, where convolutions are joined."""


def join_siblings(model: ov.Model) -> int:
    """Join the convolutions of ``model`` that have input, kernel size and steps in common, with the constant that is
    added to each; return how many there are instead.

    The numbers are the same as before. Those that nearly fill their registers as they are stay apart.
    """
    siblings: dict[object, list[Node]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and node.get_output_element_type(0) == ov.Type.f32:
            weights = constant_of(node.input_value(1))
            if weights is not None:
                siblings.setdefault(_what_they_share(node, weights), []).append(node)
    return sum(_join(nodes) for nodes in siblings.values())


def _what_they_share(node: Node, weights: Float32) -> object:
    source, how = node.input_value(0), node.get_attributes()
    steps = tuple(tuple(how[name]) for name in ("strides", "pads_begin", "pads_end", "dilations"))
    return source.get_node().get_friendly_name(), source.get_index(), weights.shape[1:], steps, how["auto_pad"]


def _join(nodes: list[Node]) -> bool:
    kernels = [constant_of(node.input_value(1)) for node in nodes]
    weights: list[Float32] = [kernel for kernel in kernels if kernel is not None]
    counts = [len(kernel) for kernel in weights]
    apart = sum(math.ceil(count / _AT_ONCE) for count in counts)
    if math.ceil(sum(counts) / _AT_ONCE) > _WORTH_IT * apart:
        return False
    ends, biases = zip(*(_with_bias(node, count) for node, count in zip(nodes, counts, strict=True)), strict=True)
    how = nodes[0].get_attributes()
    joined = ops.convolution(
        nodes[0].input_value(0), ops.constant(np.concatenate(weights)),
        how["strides"], how["pads_begin"], how["pads_end"], how["dilations"], auto_pad=how["auto_pad"],
    )  # fmt: skip
    bias = np.concatenate(biases).reshape(1, -1, *[1] * (weights[0].ndim - 2))
    parts = ops.variadic_split(
        ops.add(joined, ops.constant(bias)), ops.constant(np.int64(1)), ops.constant(np.array(counts, np.int64))
    )
    for place, end in enumerate(ends):
        end.output(0).replace(parts.output(place))
    return True


def _with_bias(node: Node, outputs: int) -> tuple[Node, Float32]:
    """Return the addition of one constant an output that alone follows ``node``, and its numbers; else ``node``, 0."""
    users = [user.get_node() for user in node.output(0).get_target_inputs()]
    if len(users) == 1 and users[0].get_type_name() == "Add":
        for place in (0, 1):
            bias = constant_of(users[0].input_value(place))
            if bias is not None and bias.shape == (1, outputs, *[1] * (bias.ndim - 2)):
                return users[0], bias.reshape(-1)
    return node, np.zeros(outputs, np.float32)
