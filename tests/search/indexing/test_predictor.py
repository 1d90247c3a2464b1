"""The patient client of ``/predict``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from errors import ErrorCode, ServiceError
from runners.contract import OcrOptions
from search.indexing import predictor
from search.indexing.predictor import CannotGoOn, Computed, Predictor, PredictRecompute
from tests.search.indexing.fake_service import MODELS, FakeService, error


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(predictor, "LONGEST_WAIT", 0.002)


def ask(service: FakeService, picture: bytes = b"12345", *, give_up_after: float = 0.2, **models: str) -> Computed:
    async def inside() -> Computed:
        async with service.client() as client:
            return await Predictor(client, give_up_after=give_up_after).ask(picture, models or MODELS)

    return asyncio.run(inside())


def test_both_tasks_go_in_one_request_in_immichs_own_words() -> None:
    service = FakeService()
    computed = ask(service)
    assert service.entries == [
        {
            "clip": {"visual": {"modelName": "cn-clip-tiny"}},
            "ocr": {"detection": {"modelName": "PP-OCRv6_small"}, "recognition": {"modelName": "PP-OCRv6_small"}},
        }
    ]
    assert computed.vector is not None
    assert computed.text is not None
    assert (computed.vector.model, computed.vector.numbers.tolist()) == ("cn-clip-tiny", [1.0, 5.0])
    (line,) = computed.text.lines
    assert (line.text, line.box, line.box_score, line.text_score) == ("5 bytes", (0, 0, 1, 0, 1, 1, 0, 1), 0.9, 0.8)
    assert computed.problems == ()


@pytest.mark.parametrize(
    ("status", "code"),
    [(415, "unreadable_picture"), (413, "picture_too_large"), (413, "body_too_large")],
)
def test_a_pictures_own_error_is_its_result_and_is_not_asked_twice(status: int, code: str) -> None:
    service = FakeService(lambda picture, tasks: error(status, code))
    computed = ask(service)
    assert [(problem.task, problem.code) for problem in computed.problems] == [("read", code)]
    assert len(service.asked) == 1


def test_a_task_that_fails_leaves_the_other_its_result() -> None:
    service = FakeService(lambda picture, tasks: error(422, "odd_picture") if "ocr" in tasks else None)
    computed = ask(service)
    assert computed.vector is not None
    assert [(problem.task, problem.code) for problem in computed.problems] == [("ocr", "odd_picture")]
    assert [tasks for _, tasks in service.asked] == [{"clip", "ocr"}, {"clip"}, {"ocr"}]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (422, "unknown_model"),
        (422, "size_mismatch"),
        (401, "unauthorized"),
        (403, "key_not_set"),
        (404, "not_found"),
        (422, "invalid_request"),
    ],
)
def test_an_error_that_every_picture_would_meet_ends_the_run(status: int, code: str) -> None:
    with pytest.raises(CannotGoOn, match=code):
        ask(FakeService(lambda picture, tasks: error(status, code)))


def test_while_the_service_is_away_the_picture_is_sent_again() -> None:
    troubles: Iterator[Exception | httpx.Response] = iter(
        [
            httpx.ConnectError("refused"),
            httpx.ReadError("cut"),
            error(503, "queue_full", **{"retry-after": "0"}),
            error(502, "away"),
        ]
    )

    def answer(picture: bytes, tasks: set[str]) -> httpx.Response | None:
        trouble = next(troubles, None)
        if isinstance(trouble, Exception):
            raise trouble
        return trouble

    service = FakeService(answer)
    assert ask(service).problems == ()
    assert len(service.asked) == 5


def test_a_service_that_stays_away_ends_the_run() -> None:
    def answer(picture: bytes, tasks: set[str]) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(CannotGoOn, match=r"has not answered for 0\.05 s"):
        ask(FakeService(answer), give_up_after=0.05)


def test_a_picture_that_always_fails_while_others_do_not_is_given_up() -> None:
    service = FakeService(lambda picture, tasks: error(500, "internal") if picture == b"poison" else None)

    async def both() -> list[Computed]:
        async with service.client() as client:
            asked = Predictor(client, give_up_after=60)

            async def others() -> None:
                for _ in range(40):
                    await asked.ask(b"good", {"clip": MODELS["clip"]})
                    await asyncio.sleep(0.001)

            _, *found = await asyncio.gather(others(), asked.ask(b"poison", {"clip": MODELS["clip"]}))
            return found

    (computed,) = asyncio.run(both())
    assert [(problem.task, problem.code) for problem in computed.problems] == [("clip", "internal")]
    assert len([1 for picture, _ in service.asked if picture == b"poison"]) >= predictor.MOST_ATTEMPTS


@pytest.mark.parametrize("dropped", [False, True])
def test_a_picture_that_always_fails_is_given_up_where_nothing_else_is_asked(dropped: bool) -> None:
    def answer(picture: bytes, tasks: set[str]) -> httpx.Response | None:
        if picture == b"poison" and dropped:
            raise httpx.ReadError("cut")
        return error(503, "runner_unavailable") if picture == b"poison" else None

    service = FakeService(answer)
    computed = ask(service, b"poison", give_up_after=60, clip=MODELS["clip"])
    assert [problem.task for problem in computed.problems] == ["clip"]
    assert "at this picture alone" in computed.problems[0].message
    assert len([1 for picture, _ in service.asked if picture == b"poison"]) == predictor.MOST_ATTEMPTS


def test_a_service_that_fails_at_every_picture_ends_the_run() -> None:
    service = FakeService(lambda picture, tasks: error(503, "runner_unavailable"))
    with pytest.raises(CannotGoOn, match="has not answered"):
        ask(service, give_up_after=0.1)
    assert len([1 for picture, _ in service.asked if picture == b"12345"]) <= predictor.MOST_ATTEMPTS


@pytest.mark.parametrize(
    "body",
    [b"not json", b"{}", b'{"clip": 5, "ocr": 5}',
     b'{"clip": "[NaN]", "ocr": {"text": [], "box": [], "boxScore": [], "textScore": []}}',
     b'{"clip": "[1]", "ocr": {"text": ["a"], "box": [1, 2], "boxScore": [1], "textScore": [1]}}',
     b'{"clip": "[]", "ocr": {}}'],
)  # fmt: skip
def test_an_answer_that_is_not_predicts_ends_the_run(body: bytes) -> None:
    with pytest.raises(CannotGoOn, match="answer is not"):
        ask(FakeService(lambda picture, tasks: httpx.Response(200, content=body)))


def test_a_picture_is_done_again_through_predict_with_its_options() -> None:
    service = FakeService()

    async def inside() -> tuple[object, object]:
        async with service.client() as client:
            redo = PredictRecompute(Predictor(client))
            return await redo.embed(b"123", "m"), await redo.read(b"123", "r", OcrOptions(0.1, 0.2, 300))

    vector, text = asyncio.run(inside())
    assert np.asarray(vector.numbers).tolist() == [1.0, 3.0]  # type: ignore[attr-defined]
    assert text.lines[0].text == "3 bytes"  # type: ignore[attr-defined]
    assert json.loads(json.dumps(service.entries[1])) == {
        "ocr": {
            "detection": {"modelName": "r", "options": {"minScore": 0.1, "maxResolution": 300}},
            "recognition": {"modelName": "r", "options": {"minScore": 0.2}},
        }
    }


def test_a_picture_that_cannot_be_done_again_is_its_own_error() -> None:
    service = FakeService(lambda picture, tasks: error(415, "unreadable_picture"))

    async def inside() -> None:
        async with service.client() as client:
            await PredictRecompute(Predictor(client)).embed(b"123", "m")

    with pytest.raises(ServiceError) as unreadable:
        asyncio.run(inside())
    assert unreadable.value.code is ErrorCode.UNREADABLE_PICTURE
