"""``python -m tools.quantize``: what it takes, what it refuses, and what lies beside the graph afterwards. nncf itself
is not run here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.catalog import ModelKind, load_catalog
from models.entry import ModelEntry
from runners.engine import EnginePlan, open_session
from settings import Settings
from tests.runners.engine.graphs import FEATURES, convolution_graph
from tools.harness.tiny_clip import tiny_clip_folder
from tools.quantize import QuantizationRefused, Quantized, quantization, quantize
from tools.quantize.pictures import find_pictures
from tools.quantize.ranges import measure

SIZE = 32


@pytest.fixture
def entry() -> ModelEntry:
    return load_catalog(None).find(ModelKind.CLIP, "ViT-B-16")


@pytest.fixture
def config(tmp_path: Path, entry: ModelEntry) -> Settings:
    tiny_clip_folder(tmp_path / "cache/clip" / entry.name, image_size=SIZE)
    return Settings(_env_file=None, cache_folder=tmp_path / "cache")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "album").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(
            folder / ("album" if number % 2 else "") / f"{number}.JPG", "JPEG"
        )
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


Quantizer = Callable[[Path, list[NDArray[Any]], Path], None]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """Return the samples that a stand-in for nncf was given; it stores the graph as it is."""
    samples: list[NDArray[Any]] = []

    def store(graph: Path, given: list[NDArray[Any]], target: Path) -> None:
        samples.extend(given)
        _save(graph, target)

    monkeypatch.setattr(quantization, "_require_packages", lambda: None)
    monkeypatch.setattr(quantization, "version", lambda package: "1.0")
    monkeypatch.setattr(quantization, "_write_int8", store)
    return samples


def _save(graph: Path, target: Path) -> None:
    import openvino as ov

    ov.save_model(ov.Core().read_model(str(graph)), str(target), compress_to_fp16=False)


def test_the_twin_lies_beside_the_graph_with_what_was_measured(
    entry: ModelEntry, config: Settings, pictures: Path, seen: list[NDArray[Any]]
) -> None:
    twin, made = quantize(entry, pictures, config)
    assert twin.parent == config.cache_folder / "clip/ViT-B-16/visual"
    assert sorted(path.name for path in twin.parent.iterdir()) == [
        "model.int8.bin", "model.int8.json", "model.int8.xml", "model.onnx", "preprocess_cfg.json",
    ]  # fmt: skip
    assert Quantized(**json.loads(twin.with_name("model.int8.json").read_text())) == made
    assert (made.calibrated_on, made.measured_on) == (16, 4)
    assert made.least_cosine > 0.999
    assert {sample.shape for sample in seen} == {(1, SIZE, SIZE, 3)}
    assert len(seen) == 16
    session = open_session(twin.with_name("model.onnx"), EnginePlan("cpu", 2, engine="auto", precision="int8"))
    assert session.run({session.inputs[0].name: seen[0]})[0].shape == (1, 512)


@pytest.mark.usefixtures("seen")
def test_no_more_pictures_than_asked_for_are_used_and_too_few_are_refused(
    entry: ModelEntry, config: Settings, pictures: Path
) -> None:
    _, made = quantize(entry, pictures, config, count=17)
    assert made.calibrated_on + made.measured_on == 17
    with pytest.raises(QuantizationRefused, match="at least 16"):
        quantize(entry, pictures / "album", config)


@pytest.mark.usefixtures("seen")
def test_a_twin_that_answers_otherwise_is_not_stored(
    entry: ModelEntry, config: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "_cosines", lambda graph, twin, batch: np.array([0.99, np.nan]))
    with pytest.raises(QuantizationRefused, match="Nothing was stored"):
        quantize(entry, pictures, config)
    assert not list((config.cache_folder / "clip").rglob("*int8*"))


def test_faces_and_a_missing_nncf_are_refused(
    entry: ModelEntry, config: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(QuantizationRefused, match="only CLIP"):
        quantize(load_catalog(None).find(ModelKind.FACES, "buffalo_s"), pictures, config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QuantizationRefused, match="pip install nncf"):
        quantize(entry, pictures, config)


def test_pictures_come_in_one_order_that_mixes_folders(pictures: Path) -> None:
    found = find_pictures(pictures)
    assert found == find_pictures(pictures)
    assert len(found) == 21
    assert len({path.parent for path in found[:8]}) == 2


def test_ranges_are_of_what_the_convolutions_take(tmp_path: Path) -> None:
    shape = 1, FEATURES, 10, 10
    samples = [np.linspace(*ends, FEATURES * 100, dtype=np.float32).reshape(shape) for ends in ((-3, 1), (0, 5))]
    ranges = measure(convolution_graph(tmp_path / "model.onnx"), samples)
    assert set(ranges) == {"product"}
    np.testing.assert_allclose(ranges["product"], (-3, 5), rtol=1e-3)
