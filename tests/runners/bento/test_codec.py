"""What travels between processes: it arrives as it was sent, and what was not sent by us is refused, never run."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest

from errors import ErrorCode
from runners.bento.codec import (
    CodecError,
    decode_picture,
    decode_results,
    decode_text,
    encode_picture,
    encode_results,
    encode_text,
)
from runners.contract import Ask, Embedding, FaceOptions, Faces, Failure, OcrOptions, PictureJob, TextJob, TextLines
from runners.task import Task
from runners.tasks import tasks_by_name

TASKS = tasks_by_name("")
JOB = PictureJob(
    bytes(range(256)) * 10,
    (
        Ask("clip_image", "ViT-B-16"),
        Ask("faces", "buffalo_s", FaceOptions(0.25)),
        Ask("ocr", "PP-OCRv6_small", OcrOptions(0.1, 0.2, 736), cost=2.5),
    ),
    upright=True,
)


def arrays_of(result: Any) -> list[np.ndarray[Any, Any]]:
    return [value for name in result.__slots__ if isinstance(value := getattr(result, name), np.ndarray)]


@pytest.mark.parametrize(
    "job", [JOB, PictureJob(b"", ()), PictureJob(b"\xff\xd8", (Ask("ocr", "模型", OcrOptions()),))]
)
def test_a_picture_arrives_as_it_was_sent(job: PictureJob) -> None:
    header, body = encode_picture(job)
    assert body is job.data, "it is not copied"
    assert header.isascii()
    assert decode_picture(header, body, TASKS) == job


@pytest.mark.parametrize("job", [TextJob("一只猫 😀 cat", "ViT-B-16", "zh-CN"), TextJob("", "ViT-B-16")])
def test_a_text_arrives_as_it_was_sent(job: TextJob) -> None:
    header, body = encode_text(job)
    assert header.isascii()
    assert decode_text(header, body) == job


@pytest.mark.parametrize("number", [0, 1, 300])
def test_results_arrive_with_their_arrays(number: int) -> None:
    random = np.random.default_rng(number)

    def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.normal(size=shape).astype(np.float32)

    results = {
        "clip_image": Embedding(floats(512)),
        "faces": Faces(floats(number, 4), floats(number), floats(number, 512)),
        "ocr": TextLines(
            ("行",) * number, floats(number, 4, 2), floats(number), floats(2 * number)[::2]
        ),  # the last is not contiguous
    }
    back: Any = decode_results(encode_results(results), TASKS)
    assert list(back) == list(results)
    for ours, theirs in zip(results.values(), back.values(), strict=True):
        assert type(theirs) is type(ours)
        for sent, received in zip(arrays_of(ours), arrays_of(theirs), strict=True):
            assert received.dtype == np.float32
            assert received.flags.aligned
            np.testing.assert_array_equal(sent, received)
    assert back["ocr"].texts == ("行",) * number


def test_nothing_found_arrives_with_its_shape() -> None:
    nobody = Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 512), np.float32))
    back: Any = decode_results(encode_results({"faces": nobody}), TASKS)["faces"]
    assert (back.boxes.shape, back.scores.shape, back.embeddings.shape) == ((0, 4), (0,), (0, 512))


def test_a_failure_of_one_task_arrives_beside_the_result_of_another() -> None:
    failure = Failure(ErrorCode.MODEL_UNAVAILABLE, "没有网络")
    back: Any = decode_results(encode_results({"ocr": failure, "clip_image": Embedding(np.ones(3, np.float32))}), TASKS)
    assert back["ocr"] == failure
    np.testing.assert_array_equal(back["clip_image"].vector, np.ones(3, np.float32))


@dataclass(frozen=True)
class Everything:
    """A result of a task of one's own."""

    number: float
    flag: bool
    words: tuple[str, ...]
    nothing: None
    pixels: np.ndarray[Any, Any]


def test_a_task_of_one_s_own_sends_its_own_dataclass() -> None:
    tasks: dict[str, Task[Any]] = {
        "own": Task("own", "own", "Own", Everything, lambda name, using: None, lambda catalog, name: name)  # type: ignore[arg-type,return-value]
    }
    sent = Everything(0.1, True, ("a", "b"), None, np.arange(6, dtype=np.uint8).reshape(2, 3))
    got: Any = decode_results(encode_results({"own": sent}), tasks)["own"]
    assert (got.number, got.flag, got.words, got.nothing) == (0.1, True, ("a", "b"), None)
    np.testing.assert_array_equal(got.pixels, sent.pixels)


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("this was unpickled",)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "[]",
        "null",
        '{"asks": [["no such task", "m", null]], "upright": false}',
        '{"asks": [["ocr", 5, null]], "upright": false}',
        '{"asks": [["ocr", "m", {"min_score": 1}]], "upright": false}',
        '{"asks": [["clip_image", "m", {"min_score": 1}]], "upright": false}',
        '{"asks": [["faces", "m", {"min_score": {"dtype": "<f4", "shape": [1]}}]], "upright": false}',
        '{"asks": 1, "upright": false}',
        "[" * 100_000,
    ],
)
def test_what_is_no_job_of_a_picture_is_refused(header: str) -> None:
    with pytest.raises(CodecError):
        decode_picture(header, b"", TASKS)


@pytest.mark.parametrize("header", ["", "{}", '{"model": 5, "language": null}', '{"model": "m", "language": 5}'])
def test_what_is_no_job_of_a_text_is_refused(header: str) -> None:
    with pytest.raises(CodecError):
        decode_text(header, b"")
    with pytest.raises(CodecError):
        decode_text('{"model": "m", "language": null}', b"\xff")


def body_of(told: object, arrays: bytes = b"") -> bytes:
    header = orjson.dumps(told)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + arrays


def embedding(**array: Any) -> bytes:
    return body_of({"clip_image": {"result": {"vector": array}}}, bytes(16))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"short",
        (2**60).to_bytes(8, "little") + b"{}",
        pickle.dumps(Bomb()),
        body_of({"no such task": {"result": {}}}),
        body_of({"clip_image": {"result": {}}}),
        body_of({"clip_image": {"result": {"vector": [], "more": 1}}}),
        body_of({"clip_image": {"failure": ["no such code", ""]}}),
        body_of({"clip_image": {"failure": ["internal", 5]}}),
        body_of({"clip_image": 5}),
        body_of([1]),
        embedding(dtype="|O8", shape=[2]),
        embedding(dtype="|V16", shape=[1]),
        embedding(dtype="<f4", shape=[5]),  # longer than what is there
        embedding(dtype="<f4", shape=[-1]),
        embedding(dtype="<f4", shape=[2**40, 2**40]),
        embedding(dtype="<f4", shape=[60] * 8),
        embedding(dtype="<f4", shape=[True]),
        embedding(dtype="<f4", shape=[1.0]),
        embedding(dtype="<f4", shape=[1] * 9),
        embedding(dtype=5, shape=[1]),
        embedding(dtype="<f4"),
    ],
)
def test_what_are_no_results_is_refused(body: bytes) -> None:
    with pytest.raises(CodecError):
        decode_results(body, TASKS)
