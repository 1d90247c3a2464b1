"""Convolutions of a graph in int8, by the range of values that each takes, which was measured before.

PP-OCRv6_small's recogniser takes two thirds of the time of bf16 on AVX512-VNNI (3,283 lines, one thread of an AMD EPYC:
31 and 47 s), and reads nearly as much right (docs/reading-quality.md, "In int8"). Depthwise convolutions and
products of matrices stay as they are: in int8 they take as long, and the products read three characters more of 30,000
wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov
from openvino import opset13 as ops

from runners.contract import Float32
from runners.engine.graph_nodes import Node, constant_of
from runners.engine.openvino_core import cpu_flags

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Least and largest value that each convolution takes, by its name in its file."""

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
"""Flags of CPUs that add the products of four pairs of int8 in 32 bits. Others add them in 16, which overflow."""
_LEVELS, _WEIGHT_LEVELS = 256, 255


def multiplies_int8() -> bool:
    """Return whether this CPU multiplies int8 without overflow, and so faster than anything else."""
    return not _VNNI.isdisjoint(cpu_flags())


def convolutions(model: ov.Model) -> list[Node]:
    """Return the convolutions of ``model`` that can be computed in int8: those in fp32 with constant weights."""
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution"
        and node.get_output_element_type(0) == ov.Type.f32
        and constant_of(node.input_value(1)) is not None
    ]


def quantize(model: ov.Model, ranges: Ranges) -> int:
    """Have the convolutions of ``model`` that ``ranges`` names computed in int8, in place; return how many.

    Values have one scale a convolution, weights one for each output.
    """
    quantized: dict[tuple[str, int], Any] = {}
    named = [node for node in convolutions(model) if node.get_friendly_name() in ranges]
    for node in named:
        value = node.input_value(0)
        source = (value.get_node().get_friendly_name(), value.get_index())
        if source not in quantized:  # convolutions of one input share its int8 values
            quantized[source] = _values(value, *ranges[node.get_friendly_name()])
        node.input(0).replace_source_output(quantized[source])
        node.input(1).replace_source_output(_weights(node.input_value(1)))
    model.validate_nodes_and_infer_types()
    return len(named)


def _values(value: Any, least: float, largest: float) -> Any:
    """Return ``value`` rounded to the levels of int8 between its limits, of which 0 is one."""
    least = min(least, 0.0)
    step = (largest - least) / (_LEVELS - 1)
    below = round(-least / step)
    low, high = (
        ops.constant(np.full((1,) * value.get_partial_shape().rank.get_length(), level * step, np.float32))
        for level in (-below, _LEVELS - 1 - below)
    )
    return ops.fake_quantize(value, low, high, low, high, _LEVELS).output(0)


def _weights(value: Any) -> Any:
    """Return weights, (outputs, ...), rounded to the levels of int8, symmetrical about 0."""
    weights: Float32 = np.asarray(constant_of(value), np.float32)
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    largest = np.maximum(largest, np.float32(1e-8))
    low, high = ops.constant(-largest), ops.constant(largest)
    return ops.fake_quantize(value, low, high, low, high, _WEIGHT_LEVELS).output(0)
