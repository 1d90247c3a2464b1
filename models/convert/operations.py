"""The operations that CN-CLIP's halves have in common, as nodes of a graph.

They are written in the forms that ONNX Runtime and OpenVINO know to fuse: MatMul and Add, LayerNormalization, softmax
between two MatMuls.
"""

from __future__ import annotations

import numpy as np

from models.convert.graph import OUTPUT, GraphWriter
from models.convert.tensor import Tensors


def linear(writer: GraphWriter, tensors: Tensors, source: str, value: str) -> str:
    """Add ``value`` (…, a) through a layer of weight (b, a) and bias (b,): (…, b)."""
    weight = writer.weight(f"{source}.weight", tensors[f"{source}.weight"].read().T)
    bias = writer.weight(f"{source}.bias", tensors[f"{source}.bias"].read())
    return writer.node("Add", writer.node("MatMul", value, weight, name=f"{source}.product"), bias, name=source)


def layer_norm(writer: GraphWriter, tensors: Tensors, source: str, value: str, epsilon: float) -> str:
    """Add ``value`` normalised along its last axis."""
    scale = writer.weight(f"{source}.weight", tensors[f"{source}.weight"].read())
    bias = writer.weight(f"{source}.bias", tensors[f"{source}.bias"].read())
    return writer.node("LayerNormalization", value, scale, bias, name=source, axis=-1, epsilon=epsilon)


def attention(
    writer: GraphWriter, query: str, key: str, value: str, *, heads: int, width: int, name: str, mask: str | None = None
) -> str:
    """Add attention of ``query`` (n, q, width) over ``key`` and ``value`` (n, k, width): (n, q, width).

    ``mask``: float (n, 1, 1, k), added to the scores.
    """
    split = writer.constant([0, 0, heads, width // heads])
    queries, keys, values = (
        writer.node(
            "Transpose",
            writer.node("Reshape", part, split, name=f"{part}.split"),
            name=f"{part}.heads",
            perm=[0, 2, 3, 1] if part == key else [0, 2, 1, 3],
        )
        for part in (query, key, value)
    )
    scores = writer.node("MatMul", queries, keys, name=f"{name}.product")
    scores = writer.node("Div", scores, writer.constant((width / heads) ** 0.5, np.float32), name=f"{name}.scores")
    if mask is not None:
        scores = writer.node("Add", scores, mask, name=f"{name}.masked")
    shares = writer.node("Softmax", scores, name=f"{name}.shares", axis=-1)
    mixed = writer.node("MatMul", shares, values, name=f"{name}.mixed")
    rows = writer.node("Transpose", mixed, name=f"{name}.rows", perm=[0, 2, 1, 3])
    return writer.node("Reshape", rows, writer.constant([0, 0, width]), name=name)


def first_token(writer: GraphWriter, value: str) -> str:
    """Add the first token of ``value`` (n, tokens, width), as (n, 1, width)."""
    ends = writer.constant([0]), writer.constant([1]), writer.constant([1])
    return writer.node("Slice", value, *ends, name=f"{value}.first")


def unit_vectors(writer: GraphWriter, value: str) -> str:
    """Add the graph's output: the one token of ``value`` (n, 1, d) as (n, d), divided by its L2 norm."""
    rows = writer.node("Squeeze", value, writer.constant([1]), name="features")
    return writer.node("Div", rows, writer.node("ReduceL2", rows, name="norm", axes=[-1], keepdims=1), name=OUTPUT)
