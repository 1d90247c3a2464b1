"""Graphs reduced to their best class answer alike under both engines, kept or not, and what cannot be reduced is
refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from errors import ModelUnavailable
from runners.engine import EnginePlan, open_session
from tests.runners.engine.graphs import METADATA, linear_graph

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
ENGINES: tuple[Literal["onnxruntime", "openvino"], ...] = ("onnxruntime", "openvino")


def softmax_graph(path: Path, shape: list[int | str]) -> Path:
    """Return ``x`` of ``shape`` -> ``y`` = softmax(x), of the same."""
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
        "softmax",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, METADATA)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "shape",
    [("n", "t", 37), ("n", 37), (2, 5, 1), ("n", "t", "classes"), ("n", "t", 1870), ("n", 2000), ("n", 1009)],
    ids=str,
)
def test_the_best_class_and_the_values_are_those_of_the_whole_answer(
    engine: Literal["onnxruntime", "openvino"], shape: tuple[int | str, ...], tmp_path: Path
) -> None:
    path = softmax_graph(tmp_path / "model.onnx", list(shape))
    x = np.random.default_rng(1).normal(
        size=[size if isinstance(size, int) else 4 + place for place, size in enumerate(shape)]
    )
    x = x.astype(np.float32)
    (expected,) = open_session(path, EnginePlan("cpu", 1, engine=engine)).run({"x": x})
    for _ in range(2):  # the second time as it was kept
        session = open_session(
            path, EnginePlan("cpu", 1, engine=engine, compiled=tmp_path / "compiled"), best_class=True
        )
        assert session.metadata["character"] == METADATA["character"]
        assert session.metadata.get("classes") == (str(shape[-1]) if isinstance(shape[-1], int) else None)
        assert [(spec.name, spec.dtype) for spec in session.outputs] == [
            *(("best value", F32), ("best class", I32), ("last value", F32))
        ]
        assert all(
            spec.shape == tuple(size if isinstance(size, int) else None for size in shape[:-1])
            for spec in session.outputs
        )
        values, classes, last = session.run({"x": x})
        assert (values.dtype, classes.dtype, last.dtype) == (F32, I32, F32)
        np.testing.assert_array_equal(last, expected[..., -1])
        np.testing.assert_array_equal(values, expected.max(axis=-1))
        np.testing.assert_array_equal(classes, expected.argmax(axis=-1))
        session.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_of_two_outputs_has_no_best_class(engine: Literal["onnxruntime", "openvino"], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="2 outputs"):
        open_session(linear_graph(tmp_path / "model.onnx"), EnginePlan("cpu", 1, engine=engine), best_class=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_whole_graph_and_the_reduced_one_are_kept_apart(
    engine: Literal["onnxruntime", "openvino"], tmp_path: Path
) -> None:
    path, plan = (
        softmax_graph(tmp_path / "model.onnx", ["n", 3]),
        EnginePlan("cpu", 1, engine=engine, compiled=tmp_path / "compiled"),
    )
    x = np.eye(3, dtype=np.float32)
    for best_class, outputs in ((True, 3), (False, 1), (True, 3)):
        assert len(open_session(path, plan, best_class=best_class).run({"x": x})) == outputs
