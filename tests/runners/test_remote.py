"""What callers are told when a runner's process answers, refuses, is slow, or is gone."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import aiohttp
import numpy as np
import pytest
from bentoml.exceptions import BentoMLException, InternalServerError, ServiceUnavailable

from errors import ErrorCode, ServiceError
from runners.contract import Embedding, Failure, ImageJob, TextJob
from runners.remote import RemoteRunners
from runners.transport import Parcel

PICTURE, TEXT = ImageJob(b"picture", "m"), TextJob("text", "m")
ANSWER = Embedding(np.ones(3, np.float32))
CALLS = [("clip_image", PICTURE), ("clip_text", TEXT), ("faces", PICTURE), ("ocr", PICTURE)]


class Proxy:
    """Answers every call of every runner alike, as BentoML's proxy would."""

    def __init__(self, outcome: object, loaded: dict[str, list[str]] | None = None) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, object]] = []
        self._loaded = loaded or {}
        self.times_loaded = 0

    def __getattr__(self, runner: str) -> Any:
        async def call(parcel: Parcel) -> Parcel:
            self.asked.append((runner, parcel.content))
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return Parcel(self.outcome)

        return call

    async def loaded(self) -> dict[str, list[str]]:
        self.times_loaded += 1
        return self._loaded


def ask(proxy: Proxy, runner: str, job: ImageJob | TextJob) -> object:
    remote = RemoteRunners(dict.fromkeys(("clip_image", "clip_text", "faces", "ocr"), proxy))
    return asyncio.run(getattr(remote, runner)(job))


@pytest.mark.parametrize(("runner", "job"), CALLS)
def test_each_job_goes_to_its_runner_and_its_answer_comes_back(runner: str, job: ImageJob | TextJob) -> None:
    proxy = Proxy(ANSWER)
    assert ask(proxy, runner, job) is ANSWER
    assert proxy.asked == [(runner, job)]


@pytest.mark.parametrize(("runner", "job"), CALLS)
def test_a_failed_job_raises_its_own_error(runner: str, job: ImageJob | TextJob) -> None:
    with pytest.raises(ServiceError) as caught:
        ask(Proxy(Failure(ErrorCode.UNREADABLE_PICTURE, "cut short")), runner, job)
    assert (caught.value.code, caught.value.message) == (ErrorCode.UNREADABLE_PICTURE, "cut short")


@pytest.mark.parametrize(
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
def test_an_error_on_the_way_is_told_by_its_code(error: Exception, code: ErrorCode) -> None:
    with pytest.raises(ServiceError) as caught:
        ask(Proxy(error), "ocr", PICTURE)
    assert caught.value.code is code
    assert caught.value.__cause__ is error
    assert "ocr" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_fault_of_ours_on_the_way_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        ask(Proxy(KeyError("ours")), "faces", PICTURE)


def test_a_request_that_is_given_up_stays_given_up() -> None:
    with pytest.raises(asyncio.CancelledError):
        ask(Proxy(asyncio.CancelledError()), "faces", PICTURE)


def test_loaded_models_are_listed_by_task_and_each_process_is_asked_once() -> None:
    pictures = Proxy(ANSWER, {"clip_image": ["ViT-B-16"], "faces": ["buffalo_s", "buffalo_l"], "ocr": []})
    texts = Proxy(ANSWER, {"clip_text": ["ViT-B-16", "RN50"]})
    remote = RemoteRunners({"clip_image": pictures, "faces": pictures, "ocr": pictures, "clip_text": texts})
    assert asyncio.run(remote.loaded_models()) == {
        "clip": ("ViT-B-16", "RN50"),
        "facial-recognition": ("buffalo_s", "buffalo_l"),
        "ocr": (),
    }
    assert (pictures.times_loaded, texts.times_loaded) == (1, 1)
