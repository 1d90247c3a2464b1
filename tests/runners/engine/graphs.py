"""Small ONNX graphs, made on the spot, for the tests of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray
from onnx import TensorProto, helper

from runners.engine.openvino_core import core

FEATURES = 64
WEIGHTS: NDArray[np.float32] = np.random.default_rng(5).normal(size=(FEATURES, FEATURES)).astype(np.float32)
METADATA = {"character": "一\n二\nthree", "empty": ""}


def _saved(path: Path, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def linear_graph(path: Path, *, batch: int | None = None) -> Path:
    """Return ``x`` (batch, 64) -> ``y`` = relu(x W), (batch, 64), and ``total``, its sum, a scalar."""
    rows = batch or "n"
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Relu", ["product"], ["y"]),
            helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, FEATURES])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, FEATURES]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor("w", TensorProto.FLOAT, WEIGHTS.shape, WEIGHTS.ravel())],
    )
    return _saved(path, graph)


def convolution_graph(path: Path) -> Path:
    """Return ``x`` (n, 64, h, w) -> ``y`` = relu(x W) along the channels, by a 1 x 1 convolution called ``product``."""
    kernel = WEIGHTS.T[..., np.newaxis, np.newaxis]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["product"]), helper.make_node("Relu", ["product"], ["y"])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", FEATURES, "h", "w"])],
        [helper.make_tensor("w", TensorProto.FLOAT, kernel.shape, kernel.ravel())],
    )
    return _saved(path, graph)


def integer_graph(path: Path) -> Path:
    """Return ``pixels`` uint8 (n, 4), ``ids`` int64 (n,), ``mask`` int32 (n, 4)
    -> ``mixed`` = pixels / 255 * mask + table[ids], (n, 4) float32."""
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["p"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["p", "white"], ["grey"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["grey", "m"], ["masked"]),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["masked", "rows"], ["mixed"]),
    ]
    graph = helper.make_graph(
        nodes,
        "integers",
        [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 4]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["n", 4]),
        ],
        [helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["n", 4])],
        [
            helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
            helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.ravel()),
        ],
    )
    return _saved(path, graph)


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    shape: list[int | str],
    *,
    dtype: int = TensorProto.FLOAT,
) -> ov.Model:
    """Return a graph from ``x`` of ``shape`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    read: ov.Model = core().read_model(model.SerializeToString())
    return read


def run(model: ov.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first answer of ``model`` to ``x``, computed in fp32."""
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([x])[0], np.float32)


def types(model: ov.Model) -> list[str]:
    """Return the types of the operations of ``model``, in their order."""
    return [node.get_type_name() for node in model.get_ordered_ops()]


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
