"""The nodes of an OpenVINO graph, as its rewriting looks at them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import runners.engine.before_openvino  # noqa: F401

# isort: split
from openvino import opset13 as ops

Node: TypeAlias = Any
"""An operation of an ``ov.Model``; what is asked of it is its type's own, which the type ``ov.Node`` does not know."""


def constant_of(value: Any) -> NDArray[Any] | None:
    """Return the numbers of ``value``, an output of a node; None where that is no constant."""
    node = value.get_node()
    return np.asarray(node.get_data()) if node.get_type_name() == "Constant" else None


def integers(values: int | list[int]) -> Node:
    """Return a constant of ``values``, int64: an axis, a shape, the sides of a slice."""
    return ops.constant(np.array(values, np.int64))
