"""What callers are told when a runner's process answers, refuses, is slow, or is gone."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import aiohttp
import numpy as np
import pytest
from bentoml.exceptions import BentoMLException, InternalServerError, ServiceUnavailable

from errors import ErrorCode, ServiceError
from runners.bento.remote import RemoteRunners
from runners.bento.transport import JobClient
from runners.contract import Embedding, Failure, ImageJob, TextJob

PICTURE, TEXT = ImageJob(b"picture", "m"), TextJob("text", "m")
ANSWER = Embedding(np.ones(3, np.float32))
CALLS = [("clip_image", PICTURE), ("clip_text", TEXT), ("faces", PICTURE), ("ocr", PICTURE)]


class Client(JobClient):
    """Answers every job alike."""

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, object]] = []
        self.times_closed = 0

    async def submit(self, runner: str, job: object) -> object:
        self.asked.append((runner, job))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        self.times_closed += 1


class Proxy:
    """Answers what concerns a whole process, as BentoML's proxy would."""

    def __init__(self, loaded: dict[str, list[str]] | Exception) -> None:
        self._loaded = loaded
        self.times_loaded = 0

    async def loaded(self) -> dict[str, list[str]]:
        self.times_loaded += 1
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def ask(client: Client, runner: str, job: ImageJob | TextJob) -> object:
    remote = RemoteRunners({}, dict.fromkeys(("clip_image", "clip_text", "faces", "ocr"), client))
    return asyncio.run(getattr(remote, runner)(job))


ERRORS = pytest.mark.parametrize(
    ("error", "code"),
    [
        (aiohttp.ServerDisconnectedError(), ErrorCode.RUNNER_UNAVAILABLE),
        (aiohttp.ClientOSError(104, "reset"), ErrorCode.RUNNER_UNAVAILABLE),
        (aiohttp.ClientPayloadError("half an answer"), ErrorCode.RUNNER_UNAVAILABLE),
        (ConnectionResetError(104, "reset"), ErrorCode.RUNNER_UNAVAILABLE),
        (BrokenPipeError(32, "broken"), ErrorCode.RUNNER_UNAVAILABLE),
        (ServiceUnavailable("busy"), ErrorCode.RUNNER_UNAVAILABLE),
        (asyncio.TimeoutError(), ErrorCode.TIMEOUT),
        (BentoMLException("a secret detail"), ErrorCode.INTERNAL),
        (BentoMLException("gone", error_code=HTTPStatus.NOT_FOUND), ErrorCode.INTERNAL),
        (InternalServerError("a secret detail"), ErrorCode.INTERNAL),
        (aiohttp.SocketTimeoutError(), ErrorCode.TIMEOUT),
    ],
    ids=repr,
)


@pytest.mark.parametrize(("runner", "job"), CALLS)
def test_each_job_goes_to_its_runner_and_its_answer_comes_back(runner: str, job: ImageJob | TextJob) -> None:
    client = Client(ANSWER)
    assert ask(client, runner, job) is ANSWER
    assert client.asked == [(runner, job)]


@pytest.mark.parametrize(("runner", "job"), CALLS)
def test_a_failed_job_raises_its_own_error(runner: str, job: ImageJob | TextJob) -> None:
    with pytest.raises(ServiceError) as caught:
        ask(Client(Failure(ErrorCode.UNREADABLE_PICTURE, "cut short")), runner, job)
    assert (caught.value.code, caught.value.message) == (ErrorCode.UNREADABLE_PICTURE, "cut short")


@ERRORS
def test_an_error_on_the_way_is_told_by_its_code(error: Exception, code: ErrorCode) -> None:
    with pytest.raises(ServiceError) as caught:
        ask(Client(error), "ocr", PICTURE)
    assert caught.value.code is code
    assert caught.value.__cause__ is error
    assert "ocr" in caught.value.message
    assert "secret" not in caught.value.message


@ERRORS
def test_an_error_of_a_whole_process_is_told_by_its_code(error: Exception, code: ErrorCode) -> None:
    remote = RemoteRunners({"faces": Proxy(error)}, {})
    with pytest.raises(ServiceError) as caught:
        asyncio.run(remote.loaded_models())
    assert caught.value.code is code
    assert "faces" in caught.value.message
    assert "secret" not in caught.value.message
    assert asyncio.run(remote.are_ready()) is False


def test_a_fault_of_ours_on_the_way_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        ask(Client(KeyError("ours")), "faces", PICTURE)


def test_a_request_that_is_given_up_stays_given_up() -> None:
    with pytest.raises(asyncio.CancelledError):
        ask(Client(asyncio.CancelledError()), "faces", PICTURE)


def test_loaded_models_are_listed_by_task_and_each_process_is_asked_once() -> None:
    pictures = Proxy({"clip_image": ["ViT-B-16"], "faces": ["buffalo_s", "buffalo_l"], "ocr": []})
    texts = Proxy({"clip_text": ["ViT-B-16", "RN50"]})
    remote = RemoteRunners({"clip_image": pictures, "faces": pictures, "ocr": pictures, "clip_text": texts}, {})
    assert asyncio.run(remote.loaded_models()) == {
        "clip": ("ViT-B-16", "RN50"),
        "facial-recognition": ("buffalo_s", "buffalo_l"),
        "ocr": (),
    }
    assert (pictures.times_loaded, texts.times_loaded) == (1, 1)
    assert asyncio.run(remote.are_ready())


def test_each_client_is_closed_once() -> None:
    pictures, texts = Client(ANSWER), Client(ANSWER)
    asyncio.run(RemoteRunners({}, {"clip_image": pictures, "faces": pictures, "clip_text": texts}).close())
    assert (pictures.times_closed, texts.times_closed) == (1, 1)
