"""cn-clip-tiny as it is shipped: small, whole, opened by both engines, and as good as its card says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from runners.clip import ClipImageModel, ClipTextModel, load_clip_image, load_clip_text
from runners.contract import Embedding, Float32, ImageJob, TextJob
from runners.engine import EnginePlan, Session, open_session
from tools.tiny.evaluate import NAME, embed, read_held_out, recall
from tools.tiny.export import MOST_BYTES, WEIGHTS
from tools.tiny.train import DEFAULT_CACHE

FILES = {path.relative_to(WEIGHTS).as_posix(): path for path in WEIGHTS.rglob("*") if path.is_file()}
PUBLISHED = {"zh": (0.34, 0.67), "zh-Hant": (0.33, 0.67), "en": (0.33, 0.66)}
"""R@1 and R@10 of the model card."""


def opener(device: str) -> object:
    def open_here(path: Path) -> Session:
        return open_session(path, EnginePlan(device, threads=2))  # type: ignore[arg-type]

    return open_here


@pytest.fixture(scope="module", params=["cpu", "openvino"])
def model(request: pytest.FixtureRequest) -> tuple[ClipImageModel, ClipTextModel]:
    open_here = opener(request.param)
    image = load_clip_image("cn-clip", FILES, open_here, max_pixels=10**7)  # type: ignore[arg-type]
    return image, load_clip_text(NAME, "cn-clip", FILES, open_here)  # type: ignore[arg-type]


def vectors_of(results: list[object]) -> Float32:
    assert all(isinstance(result, Embedding) for result in results), results
    return np.stack([result.vector for result in results if isinstance(result, Embedding)])


def test_the_folder_holds_the_six_files_of_a_clip_model_in_at_most_12_mb() -> None:
    assert sorted(FILES) == [
        "config.json",
        "textual/model.onnx",
        "textual/tokenizer.json",
        "textual/tokenizer_config.json",
        "visual/model.onnx",
        "visual/preprocess_cfg.json",
    ]
    assert sum(path.stat().st_size for path in FILES.values()) <= MOST_BYTES


def test_no_artwork_lies_beside_the_model() -> None:
    kinds = {path.suffix for path in WEIGHTS.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds <= {".py", ".md", ".json", ".onnx"}


def test_batches_of_any_size_give_unit_vectors_of_512_numbers(model: tuple[ClipImageModel, ClipTextModel]) -> None:
    image, text = model
    for count in (1, 3):
        pictures = vectors_of(list(image.run([ImageJob(shape("circle", "red"), NAME)] * count)))
        words = vectors_of(list(text.run([TextJob("苹果", NAME)] * count)))
        for vectors in (pictures, words):
            assert vectors.shape == (count, 512)
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def shape(kind: str, colour: str) -> bytes:
    """Return a PNG of one flat shape on white with a black outline."""
    image = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(image)
    if kind == "circle":
        draw.ellipse((20, 20, 108, 108), fill=colour, outline="black", width=4)
    elif kind == "square":
        draw.rectangle((20, 20, 108, 108), fill=colour, outline="black", width=4)
    elif kind == "diamond":
        draw.polygon([(64, 14), (114, 64), (64, 114), (14, 64)], fill=colour, outline="black", width=4)
    else:
        draw.ellipse((20, 20, 108, 108), fill=colour, outline="black", width=4)
        draw.ellipse((42, 48, 52, 60), fill="black")
        draw.ellipse((76, 48, 86, 60), fill="black")
        draw.arc((40, 50, 88, 92), 10, 170, fill="black", width=4)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


DRAWN = {
    "蓝色圆": ("circle", "blue"),
    "绿色圆": ("circle", "#3a3"),
    "红色方块": ("square", "red"),
    "蓝色方块": ("square", "blue"),
    "橙色大菱形": ("diamond", "orange"),
    "蓝色大菱形": ("diamond", "blue"),
    "微笑": ("face", "#fcea2b"),
}


def test_a_chinese_query_finds_the_shape_it_names(model: tuple[ClipImageModel, ClipTextModel]) -> None:
    image, text = model
    pictures = vectors_of(list(image.run([ImageJob(shape(*drawn), NAME) for drawn in DRAWN.values()])))
    queries = vectors_of(list(text.run([TextJob(name, NAME) for name in DRAWN])))
    assert (queries @ pictures.T).argmax(1).tolist() == list(range(len(DRAWN)))


def test_chinese_and_english_words_of_one_thing_are_neighbours(model: tuple[ClipImageModel, ClipTextModel]) -> None:
    pairs = {
        "苹果": "red apple",
        "狗": "dog",
        "猫": "cat",
        "香蕉": "banana",
        "火车": "train",
        "书": "book",
        "汽车": "car",
        "钟": "clock",
    }
    _, text = model
    chinese, english = (
        vectors_of(list(text.run([TextJob(word, NAME) for word in words]))) for words in (pairs.keys(), pairs.values())
    )
    assert (chinese @ english.T).argmax(1).tolist() == list(range(len(pairs)))


@pytest.mark.slow
def test_held_out_emoji_are_found_as_often_as_the_card_says() -> None:
    """Fetches OpenMoji and CLDR through npm."""
    held_out = read_held_out(DEFAULT_CACHE)
    pictures, texts = embed(held_out, WEIGHTS, EnginePlan("cpu", threads=2))
    card = (WEIGHTS.parent / "README.md").read_text(encoding="utf-8")
    for language, vectors in texts.items():
        found, published = recall(vectors, pictures), PUBLISHED[language]
        assert (found.at_1, found.at_10) == pytest.approx(published, abs=0.01)
        assert f"{published[0]:.2f} | {published[1]:.2f}" in card


def test_the_tokenizer_reads_chinese_and_english(model: tuple[ClipImageModel, ClipTextModel]) -> None:
    vocabulary = json.loads(FILES["textual/tokenizer.json"].read_text(encoding="utf-8"))["model"]["vocab"]
    assert {"苹", "果", "蘋", "apple", "[UNK]"} <= vocabulary.keys()
