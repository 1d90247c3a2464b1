"""Answers of other servers: whatever they hold, they are taken for what they are or refused, and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.upstream.answers import judge
from compat.upstream.client import Reply
from errors import ErrorCode, ServiceError

GOOD: dict[str, Any] = {
    "clip": "[0.5,-1e-7,1]",
    "facial-recognition": [
        {"boundingBox": {"x1": 1.0, "y1": 2, "x2": 3.0, "y2": 4.0}, "embedding": "[0.6,0.8]", "score": 0.9}
    ],
    "ocr": {"text": ["发票"], "box": [0.1] * 8, "boxScore": [0.9], "textScore": [0.8]},
}
SIZES = {"imageHeight": 5, "imageWidth": 7}


def judged(answer: object, tasks: tuple[str, ...] = ("clip", "facial-recognition", "ocr")) -> dict[str, Any]:
    return judge("gpu-box:3003", Reply(200, json.dumps(answer).encode()), tasks)


def refused(answer: object, *tasks: str) -> None:
    with pytest.raises(ServiceError, match="gpu-box:3003") as caught:
        judged(answer, tasks)
    assert caught.value.code is ErrorCode.UPSTREAM_UNAVAILABLE


def test_what_was_asked_for_is_taken_and_nothing_besides() -> None:
    assert judged({**GOOD, **SIZES, "more": 1}) == GOOD
    assert judged({**GOOD, **SIZES}, ("clip",)) == {"clip": GOOD["clip"]}


def test_pictures_without_faces_or_text_are_fine() -> None:
    empty = {"facial-recognition": [], "ocr": {"text": [], "box": [], "boxScore": [], "textScore": []}}
    assert judged(empty, ("facial-recognition", "ocr")) == empty


def test_the_older_dialect_of_ocr_keeps_its_second_key() -> None:
    old = {"ocr": "发票 A-1", "result": {"texts": ["发票"], "scores": ["0.98"], "boxes": []}}
    assert judged({**old, **SIZES}, ("ocr",)) == old
    assert judged({**GOOD, "result": {}}, ("ocr",)) == {"ocr": GOOD["ocr"]}


@pytest.mark.parametrize(
    "vector", ["", "[]", "[0.1", "0.1", '["a"]', "[NaN]", "[null]", "[[1]]", '{"a":1}', [0.1], None, 5]
)
def test_what_is_no_vector_is_refused(vector: object) -> None:
    refused({"clip": vector}, "clip")
    faces = copy.deepcopy(GOOD["facial-recognition"])
    faces[0]["embedding"] = vector
    refused({"facial-recognition": faces}, "facial-recognition")


@pytest.mark.parametrize(
    "change",
    [
        lambda face: face.pop("boundingBox"),
        lambda face: face.pop("score"),
        lambda face: face["boundingBox"].pop("x2"),
        lambda face: face["boundingBox"].update(y1="2"),
        lambda face: face.update(score=None),
    ],
)
def test_faces_that_lack_something_are_refused(change: Any) -> None:
    faces = copy.deepcopy(GOOD["facial-recognition"])
    change(faces[0])
    refused({"facial-recognition": faces}, "facial-recognition")


@pytest.mark.parametrize(
    "change",
    [
        {"text": ["a", "b"]},
        {"text": [1]},
        {"box": [0.1] * 7},
        {"box": ["0.1"] * 8},
        {"boxScore": []},
        {"textScore": None},
    ],
)
def test_lines_whose_lists_do_not_fit_together_are_refused(change: dict[str, Any]) -> None:
    refused({"ocr": {**GOOD["ocr"], **change}}, "ocr")


@pytest.mark.parametrize("missing", GOOD)
def test_a_task_without_an_answer_is_refused(missing: str) -> None:
    refused({key: value for key, value in GOOD.items() if key != missing}, *GOOD)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (422, {"detail": "nope", "code": "unknown_model"}, ErrorCode.UNKNOWN_MODEL, "nope"),
        (422, {"detail": "nope", "code": "picture_too_large"}, ErrorCode.INVALID_REQUEST, "nope"),
        (422, {"detail": "nope", "code": ["x"]}, ErrorCode.INVALID_REQUEST, "nope"),
        (
            400,
            {"detail": "Either image or text must be provided"},
            ErrorCode.MISSING_INPUT,
            "Either image or text must be provided",
        ),
        (422, {"detail": [{"loc": ["entries"]}]}, ErrorCode.INVALID_REQUEST, '[{"loc":["entries"]}]'),
        (422, {"detail": "two\nlines\x1b[31m"}, ErrorCode.INVALID_REQUEST, "two lines [31m"),
        (413, None, ErrorCode.BODY_TOO_LARGE, "The upstream gpu-box:3003 refused the request with 413."),
        (
            500,
            {"detail": "x" * 5000},
            ErrorCode.UPSTREAM_UNAVAILABLE,
            "The upstream gpu-box:3003 answered 500: " + "x" * 1000,
        ),
    ],
)
def test_errors_keep_their_status_and_words_where_they_are_about_the_request(
    status: int, body: object, code: ErrorCode, message: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        judge("gpu-box:3003", Reply(status, json.dumps(body).encode()), ("clip",))
    assert (caught.value.code, caught.value.message) == (code, message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["[0.1]", *GOOD]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from([*GOOD, "text", "box"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from([200, 400, 422, 500, 302]),
    st.binary(max_size=50) | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_whatever_comes_is_an_answer_or_a_service_error(status: int, body: bytes) -> None:
    for task in GOOD:
        try:
            assert set(judge("x", Reply(status, body), (task,))) >= {task}
        except ServiceError as error:
            assert error.code.status == (status if status in (400, 422) else 502)  # noqa: PT017 - what can be taken is fine too
