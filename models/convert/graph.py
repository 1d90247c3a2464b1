"""Writes an ONNX graph node by node, the weights of all but small ones straight to a file beside it, one at a time.

Engines map such a file: ViT-B-16's image half takes 0.5 GB in ONNX Runtime, and 1.1 GB where the graph itself holds the
weights, which are copied out of it. A graph of more than 2 GB could not be written at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Precision: TypeAlias = Literal["fp32", "fp16"]

DATA_FILE = "model.onnx.data"
OUTPUT = "embedding"
_OPSET, _IR = 17, 8
"""LayerNormalization is of opset 17; later ones have nothing that is needed here, and old engines do not read them."""
_SMALL = 1024
"""Numbers up to which a tensor lies in the graph, in fp32: biases and norms weigh nothing; rounding them would cost."""
_PAGE = 4096
"""Bytes that tensors are aligned to, so that a runtime can map them."""


class NotFinite(ValueError):
    """Weights hold numbers that are infinite or none, or make such; the message says which, beginning with "its"."""


class GraphWriter:
    """A graph that is being written. Every method that adds to it returns the name of what came of it."""

    def __init__(self, data: BinaryIO | None, precision: Precision) -> None:
        """Take the open ``DATA_FILE`` for large weights (None keeps them in the graph) and their ``precision``.

        fp16: the graph casts to fp32. ONNX Runtime does the casts once, when it loads the graph, so that it computes as
        fast as with fp32: on the CPU it has hardly any kernels for fp16.
        """
        self._data = data
        self._precision = precision
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}

    def node(self, operation: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Add a node of one output, called ``name``."""
        self._nodes.append(helper.make_node(operation, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a weight. Raises ``NotFinite``, in the graph's precision, and ``OSError``."""
        stored = self._stored(name, array)
        return self.node("Cast", stored, name=name, to=TensorProto.FLOAT) if stored != name else name

    def table(self, name: str, array: NDArray[Any], rows: str) -> str:
        """Add the ``rows`` of a weight (k, width) that ``rows`` names by number. Raises as ``weight`` does."""
        stored = self._stored(f"{name}.table", array)
        gathered = self.node("Gather", stored, rows, name=f"{name}.rows" if stored.endswith("_fp16") else name)
        return self.node("Cast", gathered, name=name, to=TensorProto.FLOAT) if gathered != name else name

    def constant(self, value: Sequence[int] | Sequence[float] | int | float, dtype: type[np.generic] = np.int64) -> str:
        """Add a small array of numbers, once for each value."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = name = f"constant_{len(self._constants)}"
            self._weights.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def save(self, path: Path, graph_name: str, graph_input: Any, embedding_size: int) -> None:
        """Write the graph to ``path``: one input, and the output ``embedding``, float32 (batch, ``embedding_size``).

        Raises ``OSError``.
        """
        output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", embedding_size])
        graph = helper.make_graph(self._nodes, graph_name, [graph_input], [output], initializer=self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="immich-bento"
        )
        path.write_bytes(model.SerializeToString())

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        """Add an initializer and return its name: ``name``, and ``_fp16`` behind it where it was halved."""
        halved = self._precision == "fp16" and array.size > _SMALL
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(array, np.float16 if halved else np.float32)
        if not np.isfinite(numbers).all():
            raise NotFinite(f"its {name} hold numbers that are not finite{' in fp16: take fp32' if halved else ''}")
        tensor = TensorProto(name=f"{name}_fp16" if halved else name, dims=numbers.shape)
        tensor.data_type = TensorProto.FLOAT16 if halved else TensorProto.FLOAT
        if self._data is not None and numbers.size > _SMALL:
            _write_outside(tensor, numbers, self._data)
        else:
            tensor.raw_data = numbers.tobytes()
        self._weights.append(tensor)
        return str(tensor.name)


def _write_outside(tensor: Any, numbers: NDArray[Any], data: BinaryIO) -> None:
    data.write(b"\0" * (-data.tell() % _PAGE))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", DATA_FILE), ("offset", data.tell()), ("length", numbers.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    data.write(numbers.data)
