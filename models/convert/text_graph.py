"""The text half of a CN-CLIP as a graph: int64 token ids (n, up to 52), padded with 0, to (n, d) unit float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from models.convert.architecture import Architecture, Bert
from models.convert.graph import GraphWriter
from models.convert.operations import attention, first_token, layer_norm, linear, unit_vectors
from models.convert.tensor import Tensors

INPUT = "text"
_EPSILON = 1e-12
"""Of BERT's layer norms."""
_MASKED = -10000.0
"""Added to the scores of padding."""


def write_text(writer: GraphWriter, architecture: Architecture, tensors: Tensors) -> Any:
    """Add the whole half, and return its input. Raises as ``GraphWriter.weight`` does."""
    mask = _mask(writer)
    value = _embedded(writer, tensors)
    for layer in range(architecture.text.layers):
        value = _layer(writer, architecture.text, tensors, layer, value, mask)
    projection = writer.weight("text_projection", tensors["text_projection"].read())
    unit_vectors(writer, writer.node("MatMul", value, projection, name="projected"))
    return helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["batch", "tokens"])


def _mask(writer: GraphWriter) -> str:
    """Add what is added to the scores, (n, 1, 1, tokens): 0 for tokens, -10000 for padding."""
    padding = writer.node("Equal", INPUT, writer.constant(0), name="padding")
    padding = writer.node("Cast", padding, name="padding.float", to=TensorProto.FLOAT)
    padding = writer.node("Unsqueeze", padding, writer.constant([1, 2]), name="padding.of_scores")
    return writer.node("Mul", padding, writer.constant(_MASKED, np.float32), name="mask")


def _embedded(writer: GraphWriter, tensors: Tensors) -> str:
    """Add the tokens' vectors, (n, tokens, width)."""
    source = "bert.embeddings"
    words = writer.table(f"{source}.words", tensors[f"{source}.word_embeddings.weight"].read(), INPUT)
    # All tokens are of type 0, so that its vector is added to every position beforehand.
    positions = tensors[f"{source}.position_embeddings.weight"].read().astype(np.float32)
    positions += tensors[f"{source}.token_type_embeddings.weight"].read()[0]
    weight = writer.weight(f"{source}.positions", positions)
    count = writer.node("Shape", INPUT, name="tokens", start=1, end=2)
    here = writer.node("Slice", weight, writer.constant([0]), count, writer.constant([0]), name=f"{source}.here")
    placed = writer.node("Add", words, here, name=f"{source}.placed")
    return layer_norm(writer, tensors, f"{source}.LayerNorm", placed, _EPSILON)


def _layer(writer: GraphWriter, text: Bert, tensors: Tensors, layer: int, value: str, mask: str) -> str:
    """Add one layer. Of the last one only the first token is of use: the others are asked, but do not ask."""
    source = f"bert.encoder.layer.{layer}"
    asked = value
    if layer == text.layers - 1:
        value = first_token(writer, value)
    query = linear(writer, tensors, f"{source}.attention.self.query", value)
    key, content = (linear(writer, tensors, f"{source}.attention.self.{part}", asked) for part in ("key", "value"))
    mixed = attention(
        writer, query, key, content, heads=text.heads, width=text.width, name=f"{source}.attention", mask=mask
    )
    mixed = linear(writer, tensors, f"{source}.attention.output.dense", mixed)
    attended = writer.node("Add", mixed, value, name=f"{source}.attended")
    value = layer_norm(writer, tensors, f"{source}.attention.output.LayerNorm", attended, _EPSILON)
    inner = _gelu(writer, linear(writer, tensors, f"{source}.intermediate.dense", value), source)
    summed = writer.node("Add", linear(writer, tensors, f"{source}.output.dense", inner), value, name=f"{source}.sum")
    return layer_norm(writer, tensors, f"{source}.output.LayerNorm", summed, _EPSILON)


def _gelu(writer: GraphWriter, value: str, source: str) -> str:
    """Add x / 2 * (1 + erf(x / sqrt 2)), in the form in which engines look for it."""
    one, half, root = (writer.constant(number, np.float32) for number in (1.0, 0.5, 2**0.5))
    error = writer.node("Erf", writer.node("Div", value, root, name=f"{source}.gelu.scaled"), name=f"{source}.gelu.erf")
    sides = writer.node(
        "Mul", value, writer.node("Add", error, one, name=f"{source}.gelu.sides"), name=f"{source}.gelu.twice"
    )
    return writer.node("Mul", sides, half, name=f"{source}.gelu")
