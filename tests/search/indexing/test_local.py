"""Models in this process give what the service's ``/predict`` would, and tell errors apart as it does."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from errors import ErrorCode
from search.indexing.local import LocalPredictor
from search.indexing.predictor import CannotGoOn, Computed
from settings import Settings

CLIP, OCR = "cn-clip-tiny", "PP-OCRv6_small"


def page(text: str) -> bytes:
    image = Image.new("RGB", (400, 120), "white")
    ImageDraw.Draw(image).text((20, 40), text, fill="black", font_size=40)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def ask(picture: bytes, models: dict[str, str], config: Settings | None = None) -> Computed:
    async def inside() -> Computed:
        return await LocalPredictor(config or Settings()).ask(picture, models)

    return asyncio.run(inside())


def test_both_tasks_of_one_picture() -> None:
    computed = ask(page("INVOICE 2048"), {"clip": CLIP, "ocr": OCR})
    assert not computed.problems
    assert computed.vector is not None
    assert computed.vector.model == CLIP
    assert computed.vector.numbers.shape == (512,)
    assert np.linalg.norm(computed.vector.numbers) == pytest.approx(1, abs=1e-3)
    assert computed.text is not None
    assert computed.text.model == OCR
    [line] = computed.text.lines
    assert line.text == "INVOICE 2048"
    left, top, *_, bottom = line.box
    assert 0 < left < 0.1
    assert 0.2 < top < bottom < 0.8


def test_one_task_alone() -> None:
    computed = ask(page("A"), {"clip": CLIP})
    assert computed.vector is not None
    assert computed.text is None
    assert not computed.problems


@pytest.mark.parametrize("data", [b"no picture", page("cut off")[:200]])
def test_a_damaged_picture_is_told_once_for_all_tasks(data: bytes) -> None:
    [problem] = ask(data, {"clip": CLIP, "ocr": OCR}).problems
    assert problem.task == "read"
    assert problem.code == ErrorCode.UNREADABLE_PICTURE.value


def test_a_picture_above_the_limit_is_not_decoded() -> None:
    config = Settings(MAX_PICTURE_PIXELS=1000)
    [problem] = ask(page("large"), {"clip": CLIP}, config).problems
    assert problem.task == "read"
    assert problem.code == ErrorCode.PICTURE_TOO_LARGE.value


def test_a_model_that_cannot_be_had_ends_the_run() -> None:
    with pytest.raises(CannotGoOn, match="no-such-model"):
        ask(page("A"), {"clip": "no-such-model"})
