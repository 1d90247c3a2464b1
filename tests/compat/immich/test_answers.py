"""Answers have the shapes and the words that Immich reads, in its dialects of several years."""

from __future__ import annotations

from typing import Any

import pytest

from runners.contract import FaceOptions, ImageJob, OcrOptions, TextJob
from tests.compat.immich.asking import make_api, picture, post
from tools.harness.immich_client import clip_textual, clip_visual, faces, multipart, ocr


def test_clip_visual_answers_a_string_of_shortest_floats_and_the_picture_s_size() -> None:
    api, runners = make_api()
    image = picture(100, 50)
    response = post(api, multipart(clip_visual(), image=image))
    assert response.status_code == 200
    assert response.json() == {"clip": "[0.1,-0.25,1e-7]", "imageHeight": 50, "imageWidth": 100}
    assert runners.jobs == [ImageJob(image, "ViT-B-32__openai")]


def test_clip_textual_passes_text_and_language_and_has_no_size() -> None:
    api, runners = make_api()
    response = post(api, multipart(clip_textual(language="zh-CN"), text="雪地里的狗"))
    assert response.json() == {"clip": "[0.5,0.5]"}
    assert runners.jobs == [TextJob("雪地里的狗", "ViT-B-32__openai", "zh-CN")]


@pytest.mark.parametrize(
    "textual", [{"modelName": "ViT-B-32__openai"}, {"modelName": "ViT-B-32__openai", "options": {}}]
)
def test_options_may_be_missing_or_empty(textual: dict[str, Any]) -> None:
    api, runners = make_api()
    assert post(api, multipart({"clip": {"textual": textual}}, text="dog")).status_code == 200
    assert runners.jobs == [TextJob("dog", "ViT-B-32__openai", None)]


def test_faces_have_corner_boxes_rounded_but_float() -> None:
    api, runners = make_api()
    response = post(api, multipart(faces("buffalo_l", 0.7), image=picture()))
    found = response.json()["facial-recognition"]
    assert found == [
        {
            "boundingBox": {"x1": 1.0, "y1": 3.0, "x2": 30.0, "y2": 40.0},
            "embedding": "[0.6,0.8]",
            "score": pytest.approx(0.9),
        }
    ]
    assert b'"x1":1.0' in response.content
    assert runners.jobs[0].options == FaceOptions(0.7)  # type: ignore[union-attr]


def test_ocr_boxes_are_fractions_in_one_flat_list() -> None:
    api, runners = make_api()
    answer = post(api, multipart(ocr("PP-OCRv5_mobile", 0.4, 1000, 0.6), image=picture(100, 50))).json()
    assert answer["ocr"]["text"] == ["发票 A-1"]
    assert answer["ocr"]["box"] == pytest.approx([0.1, 0.1, 0.5, 0.1, 0.5, 0.3, 0.1, 0.3])
    assert answer["ocr"]["boxScore"] == [0.75]
    assert answer["ocr"]["textScore"] == pytest.approx([0.98765])
    assert (answer["imageWidth"], answer["imageHeight"]) == (100, 50)
    assert runners.jobs[0].options == OcrOptions(0.4, 0.6, 1000)  # type: ignore[union-attr]
    assert runners.jobs[0].model == "PP-OCRv5_mobile"


def test_the_older_ocr_dialect_is_answered_in_its_own_form() -> None:
    api, runners = make_api()
    answer = post(api, multipart({"ocr": {"recognition": {"modelName": "ocr"}}}, image=picture())).json()
    assert answer["ocr"] == "发票 A-1"
    assert answer["result"] == {
        "texts": ["发票 A-1"],
        "scores": ["0.99"],
        "boxes": [{"x1": 10.0, "y1": 5.0, "x2": 50.0, "y2": 15.0}],
    }
    assert runners.jobs[0].model == "PP-OCRv6_small"


def test_no_tasks_are_answered_with_the_size_alone() -> None:
    api, _ = make_api()
    assert post(api, multipart({}, image=picture(7, 9))).json() == {"imageHeight": 9, "imageWidth": 7}
