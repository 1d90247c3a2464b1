"""One more token where a transformer has an odd number of them, which two threads then share evenly.

OpenVINO cuts the rows of a fully connected layer into blocks of one size, and a prime number of rows into blocks of 64.
All CN-CLIP's image halves have a prime number of tokens, 197, 257 or 577: of 197 rows one thread takes 128 and the
other 69, of 198 each takes 99. Figures: docs/performance-measurements.md, "Where the time goes".
"""

from __future__ import annotations

from typing import Any

import numpy as np

import runners.engine.before_openvino  # noqa: F401

# isort: split
import openvino as ov
from openvino import opset13 as ops

from runners.engine.graph_nodes import Node, constant_of, integers

_UNSEEN = np.float32(-1e30)
"""Added to the scores of the token more, whose share then is zero."""
_EACH_TOKEN_ALONE = {"Add", "Subtract", "Multiply", "Divide", "Power", "Sqrt", "Sigmoid", "Gelu", "Swish", "MVN"}
"""Operations that compute each token by itself, where their constants are the same for all tokens."""
_MIX_NUMBERS = {"MatMul", "Transpose", "Reshape", "Softmax"}
"""Operations of which attention is made."""


def make_tokens_even(model: ov.Model) -> int:
    """Add a token of zeros to each transformer of ``model`` with an odd number of tokens; return how many there are.

    The token stands last, and gets no share in attention, so that the answers are the same up to rounding. What is
    found is a class token in front of all others, laid there by ``Pad``, as ``models.convert`` writes it; all other
    transformers stay as they are, also those whose answers need more than the first token.
    """
    return sum(_lengthen(model, node) for node in model.get_ordered_ops() if node.get_type_name() == "Pad")


def _lengthen(model: ov.Model, pad: Node) -> bool:
    tokens = _tokens(pad)
    placed = [user.get_node() for user in pad.output(0).get_target_inputs()]
    if tokens is None or tokens % 2 == 0 or len(placed) != 1 or placed[0].get_type_name() != "Add":
        return False
    place = next((side for side in (0, 1) if constant_of(placed[0].input_value(side)) is not None), 0)
    positions = constant_of(placed[0].input_value(place))
    if positions is None or positions.shape[-2:-1] != (tokens,):
        return False
    attentions = _attentions(placed[0], tokens)
    if not attentions:
        return False
    longer = ops.pad(pad.input_value(0), pad.input_value(1), integers([0, 1, 0]), "constant", pad.input_value(3))
    rows = np.concatenate([positions, np.zeros_like(positions[..., :1, :])], axis=-2)
    placed[0].output(0).replace(ops.add(longer, ops.constant(rows)).output(0))
    model.validate_nodes_and_infer_types()
    for softmax in attentions:
        scores = softmax.input_value(0)
        softmax.input(0).replace_source_output(_without_last(scores, tokens + 1))
    return True


def _tokens(pad: Node) -> int | None:
    """Return the number of tokens where ``pad`` lays one in front of those of each picture; else None."""
    before, after = (constant_of(pad.input_value(side)) for side in (1, 2))
    shape = pad.get_output_partial_shape(0)
    if before is None or after is None or before.tolist() != [0, 1, 0] or after.any():
        return None
    # With a fixed batch the mask would become a constant; see _without_last.
    if pad.get_output_element_type(0) != ov.Type.f32 or shape[0].is_static or shape[1].is_dynamic:
        return None
    return int(shape[1].get_length())


def _attentions(start: Node, tokens: int) -> list[Node]:
    """Return the softmaxes over all ``tokens`` after ``start``.

    There are none where something else than attention lets tokens meet, or more than the first of them is asked for.
    """
    found: list[Node] = []
    waiting, seen = [start], {start.get_friendly_name()}
    while waiting:
        for user in waiting.pop().output(0).get_target_inputs():
            node = user.get_node()
            kind, name = node.get_type_name(), node.get_friendly_name()
            if name in seen or (kind == "Slice" and _takes_first(node)):
                continue
            if kind == "Softmax" and _is_over(node, tokens):
                found.append(node)
            elif kind not in _EACH_TOKEN_ALONE | _MIX_NUMBERS or _depends_on_number(node, tokens):
                return []
            seen.add(name)
            if not _has_one_token(node):
                waiting.append(node)
    return found


def _takes_first(node: Node) -> bool:
    how = [constant_of(value) for value in node.input_values()[1:]]
    return [None if one is None else one.tolist() for one in how] == [[0], [1], [1], [1]]


def _has_one_token(node: Node) -> bool:
    shape = node.get_output_partial_shape(0)
    return bool(shape.rank.is_static and shape.rank.get_length() == 3 and shape[1] == 1)


def _is_over(softmax: Node, tokens: int) -> bool:
    shape = softmax.get_output_partial_shape(0)
    rank = shape.rank.get_length() if shape.rank.is_static else 0
    return rank == 4 and softmax.get_attributes()["axis"] in (-1, 3) and shape[3] == tokens


def _depends_on_number(node: Node, tokens: int) -> bool:
    """Return whether ``node`` depends on the number of tokens: by a constant, a new shape, or a mean over them."""
    constants = [one for one in map(constant_of, node.input_values()) if one is not None]
    if node.get_type_name() == "Reshape":
        return (
            not constants or constants[0].size < 2 or constants[0][1] != 0 or not node.get_attributes()["special_zero"]
        )
    if node.get_type_name() == "MVN":
        return not constants or constants[0].tolist() not in ([-1], [2])
    return any(tokens in one.shape for one in constants)


def _without_last(scores: Any, keys: int) -> Any:
    """Return ``scores``, (n, heads, queries, ``keys``), with the last key's so low that its share is zero."""
    mask = np.zeros((1, 1, 1, keys), np.float32)
    mask[..., -1] = _UNSEEN
    # One mask a picture, laid out while the graph runs: OpenVINO 2026.4.1 misreads a constant that is added here
    # in bf16, and answered vectors with a cosine of 0.5.
    pictures = ops.slice(ops.shape_of(scores), integers([0]), integers([1]), integers([1]))
    shape = ops.concat([pictures, integers([1, 1, keys])], 0)
    return ops.add(scores, ops.broadcast(ops.constant(mask), shape)).output(0)
