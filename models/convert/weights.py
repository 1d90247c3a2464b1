"""Rewrites a graph that torch exported: its weights in fp32 or fp16, in the graph itself or, from 2 GB on, in one file beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["fp32", "fp16"]

DATA_FILE = "model.onnx.data"
# Protobuf cannot serialise 2 GiB; the rest is room for the graph itself.
_LARGEST_INSIDE = 2**31 - 2**26
_SMALL = 1024
"""Numbers up to which a tensor stays in fp32: biases and norms weigh nothing, and rounding them would cost."""


def rewrite(source: Path, target: Path, precision: Precision) -> None:
    """Read the graph at ``source``, write it to ``target`` and, if need be, ``DATA_FILE`` beside that. One tensor at a time is in memory
    if the weights are outside. Raises ``OSError``.

    fp16: large weights are stored in half precision and cast to fp32 by the graph. ONNX Runtime does the casts once, when it
    loads the graph, so that it computes as fast as with fp32: on the CPU it has hardly any kernels for fp16.
    """
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    graph = model.graph
    arrays = _Weights(source.parent, precision)
    outside = sum(arrays.bytes_of(tensor) for tensor in graph.initializer) > _LARGEST_INSIDE
    casts = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.with_name(DATA_FILE) if outside else Path("/dev/null")).open("wb") as data:
        for tensor in graph.initializer:
            halved = arrays.is_halved(tensor)
            name, array = tensor.name, arrays.read(tensor)
            _fill(tensor, array, data if outside and array.nbytes > _SMALL else None)
            if halved:
                tensor.name = f"{name}_fp16"
                casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
    target.write_bytes(model.SerializeToString())


class _Weights:
    def __init__(self, folder: Path, precision: Precision) -> None:
        self._folder, self._precision = folder, precision

    def is_halved(self, tensor: Any) -> bool:
        import onnx

        return self._precision == "fp16" and tensor.data_type == onnx.TensorProto.FLOAT and _count(tensor) > _SMALL

    def bytes_of(self, tensor: Any) -> int:
        import onnx

        size = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        return _count(tensor) * (2 if self.is_halved(tensor) else size)

    def read(self, tensor: Any) -> NDArray[Any]:
        from onnx import numpy_helper

        array: NDArray[Any] = numpy_helper.to_array(tensor, base_dir=str(self._folder))
        return array.astype(np.float16) if self.is_halved(tensor) else array


def _count(tensor: Any) -> int:
    return int(np.prod(list(tensor.dims), dtype=np.int64))


def _fill(tensor: Any, array: NDArray[Any], data: Any) -> None:
    """Give ``tensor`` the content ``array``: inside, or at the end of the open file ``data``."""
    import onnx

    name, dims = tensor.name, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type = name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(dims)
    if data is None:
        tensor.raw_data = array.tobytes()
        return
    data.write(b"\0" * (-data.tell() % 4096))  # aligned, so that a runtime can map it
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in _external(data.tell(), array.nbytes):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    array.tofile(data)


def _external(offset: int, length: int) -> Iterator[tuple[str, str]]:
    yield "location", DATA_FILE
    yield "offset", str(offset)
    yield "length", str(length)
