"""CLIP vectors: CN-CLIP against its own torch forward, Immich's layout against its formula, and what happens to bad
jobs.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from errors import ErrorCode, ModelUnavailable
from runners.clip import ClipImageModel, ClipTextModel, load_clip_image, load_clip_text
from runners.clip.vectors import to_results
from runners.contract import Embedding, Failure, Float32, ImageJob, TextJob
from runners.engine import EnginePlan, Session, open_session
from tests.cnclip_reference import (
    TINY,
    TINY_RESNET,
    converted_folder,
    image_features,
    random_model,
    reference_pixels,
    reference_tokens,
    text_features,
)
from tools.harness.tiny_clip import clip_files, tiny_clip_folder
from tools.tiny.cn_clip import ARCHITECTURES

PLAN = EnginePlan("cpu", threads=2)
TEXTS = ["一只在雪地里的猫", "A dog, on the BEACH", "营业执照 2024", "", "长" * 100]


def open_on_cpu(path: Path) -> Session:
    return open_session(path, PLAN)


def open_in_openvino(path: Path) -> Session:
    return open_session(path, EnginePlan("openvino", threads=2))


def image_model(folder: Path, family: str = "cn-clip") -> ClipImageModel:
    return load_clip_image(family, clip_files(folder), open_on_cpu, max_pixels=10**8)


def text_model(folder: Path, family: str = "cn-clip", name: str = "ViT-B-16") -> ClipTextModel:
    return load_clip_text(name, family, clip_files(folder), open_on_cpu)


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def jobs(*data: bytes) -> list[ImageJob]:
    return [ImageJob(one, "ViT-B-16") for one in data]


def vectors(results: Sequence[Embedding | Failure]) -> Float32:
    assert all(isinstance(result, Embedding) for result in results), results
    return np.stack([result.vector for result in results if isinstance(result, Embedding)])


def cosines(ours: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert ours.dtype == np.float32
    return np.asarray(np.sum(ours * expected, axis=1))


@pytest.fixture(scope="session", params=["tiny", "ViT-B-16", "RN50"])
def cn_clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, int]:
    """Return a random CN-CLIP in torch, the same as a folder, and its picture size in pixels."""
    architecture = {"tiny": TINY, "RN50": TINY_RESNET, "ViT-B-16": ARCHITECTURES["ViT-B-16"]}[request.param]
    model, size = random_model(architecture), architecture.image_size
    return model, converted_folder(model, tmp_path_factory.mktemp(request.param) / "model"), size


@pytest.mark.parametrize("count", [1, 5])
def test_picture_vectors_equal_cn_clips_torch_forward(cn_clip: tuple[Any, Path, int], count: int) -> None:
    model, folder, size = cn_clip
    images = [picture(seed) for seed in range(count)]
    expected = image_features(model, np.stack([reference_pixels(image, size) for image in images]))
    ours = vectors(image_model(folder).run(jobs(*map(png, images))))
    assert cosines(ours, expected).min() > 0.9999


@pytest.mark.parametrize("count", [1, 5])
def test_text_vectors_equal_cn_clips_torch_forward(cn_clip: tuple[Any, Path, int], count: int) -> None:
    model, folder, _ = cn_clip
    ours = vectors(text_model(folder).run([TextJob(text, "ViT-B-16") for text in TEXTS[:count]]))
    assert cosines(ours, text_features(model, TEXTS[:count])).min() > 0.9999


def test_openvino_gives_the_same_vectors(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path)
    ours = load_clip_image("cn-clip", clip_files(folder), open_in_openvino, max_pixels=10**8).run(
        jobs(png(picture(0)), png(picture(1)))
    )
    assert (
        cosines(vectors(ours), vectors(image_model(folder).run(jobs(png(picture(0)), png(picture(1)))))).min() > 0.9999
    )


@pytest.mark.parametrize("immich", [False, True], ids=["dynamic batch", "batch of one"])
def test_a_bad_picture_fails_alone_and_the_order_is_kept(tmp_path: Path, immich: bool) -> None:
    model = image_model(tiny_clip_folder(tmp_path, immich=immich))
    first, second = png(picture(0)), png(picture(1))
    results = model.run(jobs(first, b"", second, second[: len(second) // 2]))
    assert [result.code for result in results if isinstance(result, Failure)] == [ErrorCode.UNREADABLE_PICTURE] * 2
    np.testing.assert_allclose(
        vectors([results[0], results[2]]), vectors([*model.run(jobs(first)), *model.run(jobs(second))]), atol=1e-6
    )


def test_a_batch_of_bad_pictures_and_an_empty_batch_run_no_graph(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path)
    model = image_model(folder)
    model.close()  # a closed session raises when it is run
    assert [type(result) for result in model.run(jobs(b"x", b"y"))] == [Failure, Failure]
    assert model.run([]) == []
    assert text_model(folder).run([]) == []


def test_immichs_graph_gets_normalised_planes_of_the_centre(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path, immich=True)
    seen = Recorder(open_on_cpu(folder / "visual/model.onnx"))
    model = load_clip_image("immich-clip", clip_files(folder), lambda _: seen, max_pixels=10**8)
    image = picture(3, (100, 50))
    vectors(model.run(jobs(png(image), png(image))))
    resized = image.resize((64, 32), Image.Resampling.BICUBIC).crop((16, 0, 48, 32))
    expected = (np.asarray(resized).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    assert [feeds["image"].shape for feeds in seen.calls] == [(1, 3, 32, 32)] * 2
    np.testing.assert_allclose(seen.calls[0]["image"][0], expected, atol=1.01 / 255 / 0.5)


def test_a_graph_with_an_attention_mask_gets_one(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path, immich=True, attention_mask=True, context_length=77)
    seen = Recorder(open_on_cpu(folder / "textual/model.onnx"))
    model = load_clip_text("LABSE-Vit-L-14", "immich-clip", clip_files(folder), lambda _: seen)
    assert len(vectors(model.run([TextJob("猫 ab", "LABSE-Vit-L-14"), TextJob("b", "LABSE-Vit-L-14")]))) == 2
    feeds = seen.calls[1]
    assert {name: (array.dtype.name, array.shape) for name, array in feeds.items()} == dict.fromkeys(
        ("input_ids", "attention_mask"), ("int32", (1, 77))
    )
    assert feeds["attention_mask"].sum() == 3  # [CLS] b [SEP]


def test_texts_of_one_batch_keep_their_own_languages(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path, immich=True, languages=("deu_Latn", "zho_Hans", "eng_Latn"))
    model = text_model(folder, "immich-clip", "nllb-clip-base-siglip__v1")
    mixed = [TextJob("Rat", "nllb", language) for language in ("de", "en-US", "zh-CN", None, "de")]
    together = vectors(model.run(mixed))
    alone = np.concatenate([vectors(model.run([job])) for job in mixed])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together.round(6), axis=0)) == 4


def test_cn_clip_tokens_reach_the_graph_as_int64(cn_clip: tuple[Any, Path, int]) -> None:
    seen = Recorder(open_on_cpu(cn_clip[1] / "textual/model.onnx"))
    load_clip_text("ViT-B-16", "cn-clip", clip_files(cn_clip[1]), lambda _: seen).run(
        [TextJob(text, "ViT-B-16") for text in TEXTS]
    )
    np.testing.assert_array_equal(seen.calls[0]["text"], reference_tokens(TEXTS))


def test_a_vector_without_direction_is_a_failure_and_others_get_norm_one() -> None:
    results = to_results(np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [1e-12, 0]], np.float32))
    assert [isinstance(result, Failure) for result in results] == [False, True, True, True, False]
    np.testing.assert_allclose(vectors([results[0], results[4]]), np.array([[0.6, 0.8], [1, 0]]), atol=1e-6)


def test_files_of_different_models_are_refused_when_loaded(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path, preprocessing={"size": 224}, text_config={"context_length": 64})
    with pytest.raises(ModelUnavailable, match="different models"):
        image_model(folder)
    with pytest.raises(ModelUnavailable, match="different models"):
        text_model(folder)


class Recorder:
    """A session that keeps what it is fed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs = session.inputs
        self.outputs = session.outputs
        self.metadata = session.metadata
        self.calls: list[Mapping[str, NDArray[Any]]] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.calls.append(feeds)
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()
