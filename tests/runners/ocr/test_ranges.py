"""Ranges of values in the recogniser: they belong to the file at hand, and all is read by them that fp32 reads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runners.engine import EnginePlan, int8, open_session
from runners.engine.int8 import convolutions, quantize
from runners.engine.openvino_core import core
from runners.engine.rewriting import rewrite
from runners.ocr import OcrModel, load_ocr
from runners.ocr.ranges import ranges_of
from tests.runners.ocr.test_model import FILES, read
from tools.harness.rendered import Page, character_accuracy, mixed_pages

GRAPH = FILES["recognition/model.onnx"]


def test_they_are_those_of_all_convolutions_of_the_recogniser() -> None:
    ranges = ranges_of(GRAPH)
    assert ranges is not None
    model = core().read_model(str(GRAPH))
    rewrite(model)
    count = len(convolutions(model))
    assert quantize(model, ranges) == len(ranges) == count > 40
    assert all(least <= 0 < largest for least, largest in ranges.values())


def test_a_graph_of_other_bytes_has_none(tmp_path: Path) -> None:
    content = GRAPH.read_bytes()
    for bytes_of_another in (content + b"\0", content[:-1] + bytes([content[-1] ^ 1])):
        other = tmp_path / "model.onnx"
        other.write_bytes(bytes_of_another)
        assert ranges_of(other) is None


@pytest.fixture(scope="module")
def model() -> Iterator[OcrModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "multiplies_int8", lambda: True)
        plan = EnginePlan("cpu", threads=2, engine="openvino", precision="auto")
        loaded = load_ocr(FILES, partial(open_session, plan=plan), max_pixels=50_000_000, max_boxes=4000)
    yield loaded
    loaded.close()


@pytest.mark.parametrize("rendered", mixed_pages(), ids=lambda rendered: rendered.name)
def test_pages_are_read_in_int8_to_the_last_character(model: OcrModel, rendered: Page) -> None:
    result = read(model, rendered.data)
    assert character_accuracy(result.texts, rendered.lines) == 1.0, result.texts
