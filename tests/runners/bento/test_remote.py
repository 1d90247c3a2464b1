"""What callers are told when a runner's process answers, refuses, is slow, or is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from errors import ErrorCode, ModelOnItsWay, ServiceError
from runners.bento import memory_kills, remote
from runners.bento.remote import RemoteRunners
from runners.bento.transport import JobClient, RunnerFault
from runners.contract import Ask, Embedding, Failure, LoadedModel, ModelState, OcrOptions, PictureJob, TextJob
from runners.tasks import CLIP_TEXT, OCR, tasks_by_name

TASKS = tasks_by_name("")
ANSWER = Embedding(np.ones(3, np.float32))
PICTURES = ("clip_image", "faces", "ocr")
JOB = PictureJob(b"picture", tuple(Ask(task, "m") for task in PICTURES))
TEXT = TextJob("text", "m")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_ONCE_MORE_AFTER", 0.0)
    monkeypatch.setattr(remote, "_LOOK_EVERY", 0.02)


class Client(JobClient):
    """Answers every task, and every order, with one outcome after another; the last one for good."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[object] = []
        self.times_closed = 0

    def _next(self, asked: object) -> Any:
        self.asked.append(asked)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def picture(self, job: PictureJob) -> dict[str, Any]:
        outcome = self._next(job)
        return {ask.task: outcome for ask in job.asks}

    async def text(self, task: str, job: TextJob) -> Any:
        return self._next((task, job))

    async def order(self, name: str) -> Any:
        return self._next(name)

    async def close(self) -> None:
        self.times_closed += 1


def runners(pictures: Client, texts: Client | None = None) -> RemoteRunners:
    return RemoteRunners({**dict.fromkeys(PICTURES, pictures), "clip_text": texts or Client(ANSWER)}, TASKS)


ERRORS = pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionError("aiohttp's"), ErrorCode.RUNNER_UNAVAILABLE),
        (ConnectionResetError(104, "reset"), ErrorCode.RUNNER_UNAVAILABLE),
        (BrokenPipeError(32, "broken"), ErrorCode.RUNNER_UNAVAILABLE),
        (asyncio.TimeoutError(), ErrorCode.TIMEOUT),
        (RunnerFault("a secret detail"), ErrorCode.INTERNAL),
    ],
    ids=repr,
)


def test_a_picture_is_sent_once_to_each_process_whatever_is_asked_of_it() -> None:
    client = Client(ANSWER)
    assert asyncio.run(runners(client).picture(JOB)) == dict.fromkeys(PICTURES, ANSWER)
    assert client.asked == [JOB]


def test_each_of_several_processes_gets_the_picture_once_with_its_own_tasks() -> None:
    clip, others = Client(ANSWER), Client(ANSWER)
    split = RemoteRunners({"clip_image": clip, "faces": others, "ocr": others}, TASKS)
    assert asyncio.run(split.picture(JOB)) == dict.fromkeys(PICTURES, ANSWER)
    assert clip.asked == [PictureJob(b"picture", JOB.asks[:1])]
    assert others.asked == [PictureJob(b"picture", JOB.asks[1:])]


def test_a_text_goes_to_its_task() -> None:
    texts = Client(ANSWER)
    assert asyncio.run(runners(Client(ANSWER), texts).text("clip_text", TEXT)) is ANSWER
    assert texts.asked == [("clip_text", TEXT)]


def test_a_task_alone_is_asked_for_by_itself() -> None:
    client, texts = Client(ANSWER), Client(ANSWER)
    remote = runners(client, texts)
    options = OcrOptions(0.1)
    found: object = asyncio.run(OCR.of_picture(remote, b"x", "m", options, upright=True))
    assert found is ANSWER
    assert asyncio.run(CLIP_TEXT.of_text(remote, "猫", "m", "zh")) is ANSWER
    assert client.asked == [PictureJob(b"x", (Ask("ocr", "m", options),), upright=True)]
    assert texts.asked == [("clip_text", TextJob("猫", "m", "zh"))]


def test_a_failed_task_raises_its_own_error() -> None:
    failed = Client(Failure(ErrorCode.UNREADABLE_PICTURE, "cut short"))
    for work in (runners(failed).picture(JOB), runners(failed, failed).text("clip_text", TEXT)):
        with pytest.raises(ServiceError) as caught:
            asyncio.run(work)
        assert (caught.value.code, caught.value.message) == (ErrorCode.UNREADABLE_PICTURE, "cut short")


@ERRORS
def test_an_error_on_the_way_is_told_by_its_code(error: Exception, code: ErrorCode) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(runners(Client(error)).picture(JOB))
    assert caught.value.code is code
    assert caught.value.__cause__ is error
    assert "clip_image, faces, ocr" in caught.value.message
    assert "secret" not in caught.value.message


@ERRORS
def test_an_error_of_a_whole_process_is_told_by_its_code(error: Exception, code: ErrorCode) -> None:
    broken = RemoteRunners({"faces": Client(error)}, TASKS)
    with pytest.raises(ServiceError) as caught:
        asyncio.run(broken.loaded_models())
    assert caught.value.code is code
    assert "faces" in caught.value.message
    assert "secret" not in caught.value.message
    assert asyncio.run(broken.are_ready()) is False


def test_a_job_whose_process_died_is_sent_once_more(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(ConnectionResetError(104, "reset"), ANSWER)
    assert asyncio.run(runners(client).picture(JOB)) == dict.fromkeys(PICTURES, ANSWER)
    assert client.asked == [JOB, JOB]
    assert "once more" in caplog.text


def test_a_job_whose_process_died_twice_is_given_up() -> None:
    client = Client(ConnectionResetError(104, "reset"))
    with pytest.raises(ServiceError):
        asyncio.run(runners(client).picture(JOB))
    assert len(client.asked) == 2


@pytest.mark.parametrize(("counts", "told"), [([0, 1], True), ([1, 1], False), ([None, None], False)])
def test_a_job_whose_process_the_kernel_killed_for_lack_of_memory_is_told_so(
    counts: list[int | None], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_kills, "count_memory_kills", lambda: counts.pop(0))
    with pytest.raises(ServiceError) as caught:
        asyncio.run(runners(Client(ConnectionResetError(104, "reset"))).picture(JOB))
    assert caught.value.code is ErrorCode.RUNNER_UNAVAILABLE
    assert ("lack of memory" in caught.value.message) is told


@pytest.mark.parametrize("error", [asyncio.TimeoutError(), RunnerFault("a fault")], ids=repr)
def test_what_was_late_or_failed_is_not_tried_again(error: Exception) -> None:
    client = Client(error, ANSWER)
    with pytest.raises(ServiceError):
        asyncio.run(runners(client).picture(JOB))
    assert len(client.asked) == 1


def test_a_fault_of_ours_on_the_way_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        asyncio.run(runners(Client(KeyError("ours"))).picture(JOB))


def test_a_request_that_is_given_up_stays_given_up() -> None:
    client = Client(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(runners(client).picture(JOB))
    assert len(client.asked) == 1


def test_loaded_models_are_listed_by_task_and_each_process_is_asked_once() -> None:
    pictures = Client({"clip_image": ["ViT-B-16"], "faces": ["buffalo_s", "buffalo_l"], "ocr": []})
    texts = Client({"clip_text": ["ViT-B-16", "RN50"]})
    found: Mapping[str, tuple[str, ...]] = asyncio.run(runners(pictures, texts).loaded_models())
    assert found == {"clip": ("ViT-B-16", "RN50"), "facial-recognition": ("buffalo_s", "buffalo_l"), "ocr": ()}
    assert pictures.asked == texts.asked == ["loaded"]


def test_what_computes_the_models_in_memory_is_told_by_every_process() -> None:
    held = LoadedModel("ocr", "a", "openvino", "bf16 + fp32", 1000)
    assert asyncio.run(runners(Client([asdict(held)]), Client([])).in_memory()) == [held]


def told(task: str, state: str, *, named: bool = True, model: str = "m") -> dict[str, Any]:
    """Return what a process says of one model."""
    return {"task": task, "model": model, "state": state, "named": named, "detail": "", "percent": None}


@pytest.mark.parametrize(
    ("pictures", "texts", "ready"),
    [
        ([], [], True),
        ([told("clip_image", "here")], [told("clip_text", "here")], True),
        ([told("clip_image", "here")], [told("clip_text", "on its way")], False),
        ([told("clip_image", "unavailable")], [], False),
        ([told("clip_image", "on its way", named=False), told("ocr", "unavailable", named=False)], [], True),
    ],
)
def test_the_service_is_ready_once_all_named_models_are_here(
    pictures: list[dict[str, Any]], texts: list[dict[str, Any]], ready: bool
) -> None:
    assert asyncio.run(runners(Client(pictures), Client(texts)).are_ready()) is ready


@pytest.mark.parametrize(
    "meanwhile", [ConnectionRefusedError(111, "refused"), asyncio.TimeoutError(), [told("ocr", "on its way")]]
)
def test_the_service_stays_ready_while_a_process_takes_another_s_place_but_not_for_ever(
    meanwhile: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: now))
    client = Client([], meanwhile)
    service = runners(client, Client([]))

    async def scenario() -> list[bool]:
        nonlocal now
        seen = []
        for seconds in (0.0, 1.0, 28.0, 2.0, 60.0):
            now += seconds
            seen.append(await service.are_ready())
        client.outcomes = [[]]
        return [*seen, await service.are_ready()]

    assert asyncio.run(scenario()) == [True, True, True, False, False, True]


def test_states_of_all_processes_are_told() -> None:
    pictures, texts = Client([told("clip_image", "here")]), Client([told("clip_text", "on its way")])
    assert asyncio.run(runners(pictures, texts).models()) == [
        ModelState("clip_image", "m", "here", named=True),
        ModelState("clip_text", "m", "on its way", named=True),
    ]


def test_a_model_on_its_way_is_told_by_its_task_and_name() -> None:
    failed = Client(Failure(ErrorCode.MODEL_ON_ITS_WAY, "34 %"))
    for work, task in (
        (runners(failed).picture(JOB), "clip_image"),
        (runners(failed, failed).text("clip_text", TEXT), "clip_text"),
    ):
        with pytest.raises(ModelOnItsWay, match="34 %") as caught:
            asyncio.run(work)
        assert (caught.value.task, caught.value.model) == (task, "m")


def test_all_who_wait_for_a_model_share_one_watch_which_outlasts_the_death_of_its_process() -> None:
    moving, gone = [told("ocr", "on its way"), told("faces", "here")], ConnectionResetError(104, "killed")
    client = Client(moving, gone, asyncio.TimeoutError(), moving, [told("ocr", "here")])

    async def scenario() -> None:
        remote = runners(client)
        await asyncio.gather(*(remote.arrival("ocr", "m") for _ in range(8)))

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert client.asked == ["models"] * 5


def test_nobody_waits_for_a_process_that_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SILENT_AT_MOST", 0.2)
    asyncio.run(asyncio.wait_for(runners(Client(ConnectionRefusedError())).arrival("ocr", "m"), 20))


def test_who_waits_no_more_takes_nobody_along() -> None:
    client = Client([told("ocr", "on its way")])

    async def scenario() -> None:
        remote = runners(client)
        first, second = (asyncio.ensure_future(remote.arrival("ocr", "m")) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert not second.done()
        client.outcomes = [[]]
        await second
        await remote.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_each_client_is_closed_once() -> None:
    pictures, texts = Client(ANSWER), Client(ANSWER)
    asyncio.run(runners(pictures, texts).close())
    assert (pictures.times_closed, texts.times_closed) == (1, 1)
