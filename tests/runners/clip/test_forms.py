"""Forms of a CLIP image graph: Immich's revisions main and v2 give the same vectors, any other form is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from errors import ModelUnavailable
from runners.clip import ClipImageModel, load_clip_image
from runners.contract import Embedding, Float32, ImageJob
from runners.engine import EnginePlan, open_session
from tools.harness.tiny_clip import clip_files, tiny_clip_folder

SIZE = 32


def as_v2(path: Path) -> None:
    """Rewrite Immich's tiny graph, which takes floats, in v2's form: bytes (n, h, w, 3), normalised within, in fp16."""
    model = onnx.load(str(path))
    graph = model.graph
    weights = [numpy_helper.to_array(weight).astype(np.float16) for weight in graph.initializer]
    names = [weight.name for weight in graph.initializer]
    del graph.initializer[:]
    constants = {"by": np.float16(2 / 255), "less": np.float16(1)}  # mean and standard deviation are one half
    for name, array in [*zip(names, weights, strict=True), *constants.items()]:
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    assert graph.node[0].op_type == "Identity"
    planes = graph.node[0].output[0]
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "by"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "less"], ["normal"]),
        helper.make_node("Transpose", ["normal"], [planes], perm=[0, 3, 1, 2]),
        *graph.node[1:],
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIZE, SIZE, 3]))
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def load(folder: Path, engine: Literal["cpu", "openvino"]) -> ClipImageModel:
    plan = EnginePlan(engine, threads=1)
    return load_clip_image("immich-clip", clip_files(folder), lambda path: open_session(path, plan), max_pixels=10**8)


def vectors(model: ClipImageModel, pictures: Sequence[bytes]) -> Float32:
    results = model.run([ImageJob(data, "ViT-B-32__openai") for data in pictures])
    return np.stack([result.vector for result in results if isinstance(result, Embedding)])


def pictures() -> list[bytes]:
    found = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


@pytest.mark.parametrize("engine", ["cpu", "openvino"])
def test_a_graph_of_v2_gives_the_vectors_of_main(tmp_path: Path, engine: Literal["cpu", "openvino"]) -> None:
    main, v2 = (tiny_clip_folder(tmp_path / name, image_size=SIZE, immich=True) for name in ("main", "v2"))
    as_v2(v2 / "visual/model.onnx")
    expected, ours = vectors(load(main, engine), pictures()), vectors(load(v2, engine), pictures())
    assert ours.dtype == np.float32
    assert np.sum(expected * ours, axis=1).min() > 0.9999


@pytest.mark.parametrize(
    ("dtype", "shape", "said"),
    [
        (TensorProto.UINT8, [1, 3, SIZE, SIZE], "takes uint8 of the shape (1, 3, 32, 32)"),
        (TensorProto.FLOAT, [1, SIZE, SIZE, 3], "takes float32 of the shape (1, 32, 32, 3)"),
        (TensorProto.UINT8, [1, SIZE * SIZE * 3], "takes uint8 of the shape (1, 3072)"),
    ],
)
def test_a_graph_of_another_form_is_refused_in_a_sentence(
    tmp_path: Path, dtype: int, shape: list[int], said: str
) -> None:
    folder = tiny_clip_folder(tmp_path, image_size=SIZE)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", dtype, shape)
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, SIZE * SIZE * 3])
    graph = helper.make_graph(nodes, "odd", [image], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "visual/model.onnx"))
    with pytest.raises(ModelUnavailable) as caught:
        load(folder, "cpu")
    assert said in caught.value.message
    assert "set MACHINE_LEARNING_MODEL_REVISION=main" in caught.value.message
