"""The weights that are laid out for Immich's own server answer there as they do here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.catalog import ModelKind, load_catalog
from models.resolve import resolve
from settings import Settings
from tools.bench import immich_weights
from tools.bench.weights import TINY, Weights

ENVIRONMENT = {"CLIP_MODEL": TINY, "RECOGNITION_MODEL": "buffalo_s", "OCR_MODEL": "PP-OCRv6_small"}


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("immich")
    immich_weights.lay_out(folder, Settings(**ENVIRONMENT))  # type: ignore[arg-type]
    return folder


def files(kind: ModelKind, name: str) -> dict[str, Path]:
    return resolve(load_catalog().find(kind, name), Settings(**ENVIRONMENT))  # type: ignore[arg-type]


def session(model: Path | bytes) -> ort.InferenceSession:
    graph, options = model if isinstance(model, bytes) else str(model), ort.SessionOptions()
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except RuntimeError:  # a test before this one has given all sessions of this process one pool of threads
        options.use_per_session_threads = False
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def test_the_detector_answers_with_rows_of_anchors_and_the_same_numbers(laid_out: Path) -> None:
    theirs = session(laid_out / "facial-recognition/buffalo_s/detection/model.onnx")
    ours = session(files(ModelKind.FACES, "buffalo_s")["detection/model.onnx"])
    picture = np.random.default_rng(0).standard_normal((1, 3, 640, 640), np.float32)
    name = theirs.get_inputs()[0].name
    answers = theirs.run([output.name for output in theirs.get_outputs()], {name: picture})
    assert [answer.shape for answer in answers] == [
        (anchors, numbers) for numbers in (1, 4, 10) for anchors in (12800, 3200, 800)
    ]
    for answer, expected in zip(answers, ours.run(None, {name: picture}), strict=True):
        np.testing.assert_array_equal(answer, expected.reshape(answer.shape))


def test_insightface_finds_the_faces_with_the_detector_that_immich_gets(laid_out: Path) -> None:
    retinaface = pytest.importorskip("insightface.model_zoo.retinaface")
    import cv2

    from tools.bench.pictures import group_photo

    detector = retinaface.RetinaFace(session=session(laid_out / "facial-recognition/buffalo_s/detection/model.onnx"))
    detector.prepare(ctx_id=0, det_thresh=0.7, input_size=(640, 640))
    boxes, landmarks = detector.detect(cv2.imdecode(np.frombuffer(group_photo(), np.uint8), cv2.IMREAD_COLOR))
    assert boxes.shape == (6, 5)
    assert landmarks.shape == (6, 5, 2)


def test_a_picture_as_immich_normalises_it_gets_the_same_vector(laid_out: Path) -> None:
    found = files(ModelKind.CLIP, TINY)
    ours = session(found["visual/model.onnx"])
    theirs = session(laid_out / "clip/ViT-B-32__openai/visual/model.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (1, *ours.get_inputs()[0].shape[1:]), np.uint8)
    given = theirs.get_inputs()[0]
    assert (given.name, given.type, given.shape[1]) == ("image", "tensor(float)", 3)
    (vector,) = theirs.run(None, {"image": normalised(pixels, laid_out)})[0]
    (expected,) = ours.run(None, {ours.get_inputs()[0].name: pixels})[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def normalised(pixels: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Return pixels (n, h, w, 3) as Immich's server feeds them to a graph."""
    import json

    config = json.loads((folder / "clip/ViT-B-32__openai/visual/preprocess_cfg.json").read_text())
    assert config["interpolation"] == "bicubic"
    floats = (pixels.astype(np.float32) / 255 - np.array(config["mean"], np.float32)) / np.array(
        config["std"], np.float32
    )
    return np.ascontiguousarray(floats.transpose(0, 3, 1, 2), np.float32)


def test_tokens_are_taken_as_int32_under_the_name_text(laid_out: Path) -> None:
    ours = session(files(ModelKind.CLIP, TINY)["textual/model.onnx"])
    theirs = session(laid_out / "clip/ViT-B-32__openai/textual/model.onnx")
    (given,) = theirs.get_inputs()
    assert (given.name, given.type) == ("text", "tensor(int32)")
    tokens = np.zeros((1, 52), np.int64)
    tokens[0, :3] = (101, 2769, 102)
    name, kind = ours.get_inputs()[0].name, ours.get_inputs()[0].type
    expected = ours.run(None, {name: tokens.astype(np.int32 if kind == "tensor(int32)" else np.int64)})[0]
    np.testing.assert_allclose(theirs.run(None, {"text": tokens.astype(np.int32)})[0], expected, atol=1e-6)


def test_a_graph_of_int64_tokens_named_text_is_cast_behind_its_name() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["text", "text"], ["twice"])],
        "graph",
        [helper.make_tensor_value_info("text", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("twice", TensorProto.INT64, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    immich_weights.int32_tokens(model)
    onnx.checker.check_model(model)
    running = session(model.SerializeToString())
    assert running.run(None, {"text": np.full((1, 4), 3, np.int32)})[0].tolist() == [[6] * 4]


def test_the_settings_of_both_servers_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(immich_weights, "weights", lambda folder: Weights(ENVIRONMENT, "a tiny CLIP"))
    immich_weights.main([str(tmp_path / "cache")])
    printed = capsys.readouterr().out
    assert "CLIP_MODEL=cn-clip-tiny RECOGNITION_MODEL=buffalo_s OCR_MODEL=PP-OCRv6_small" in printed
    assert f"MACHINE_LEARNING_CACHE_FOLDER={tmp_path / 'cache'} MACHINE_LEARNING_MODEL_TTL=0" in printed
    assert sorted(path.parent.name for path in (tmp_path / "cache").rglob("model.onnx")) == [
        "detection", "detection", "recognition", "recognition", "textual", "visual",
    ]  # fmt: skip
