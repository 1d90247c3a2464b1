"""Jobs on their way from process to process: a real server and client, on a Unix socket and on TCP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import ErrorCode
from runners.bento.transport import CloseEachConnection, JobApp, JobClient, untraced
from runners.contract import Embedding, FaceOptions, Faces, Failure, ImageJob, OcrOptions, TextJob, TextLines

PICTURE = ImageJob(bytes(range(256)) * 5000, "buffalo_s", FaceOptions(0.25))


class Echo:
    """Answers each job with itself, and remembers the last."""

    def __init__(self) -> None:
        self.last: object = None

    async def submit(self, job: object) -> object:
        self.last = job
        return job


class Broken:
    async def submit(self, job: object) -> object:
        raise RuntimeError("a secret detail")


class Slow:
    async def submit(self, job: object) -> object:
        await asyncio.sleep(60)
        return job


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, folder: Path, *, tcp: bool = False) -> AsyncIterator[str]:
    """``app`` served by uvicorn, as in a runner's process. Yields the address, as BentoML would tell it."""
    if tcp:
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    else:
        path = folder / "with space.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(path))
        address = path.as_uri()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield address
    finally:
        server.should_exit = True
        await task
        listener.close()


def by_a_client(
    app: ASGIApp, folder: Path, use: Callable[[JobClient], Awaitable[Any]], *, timeout: float = 10, tcp: bool = False
) -> Any:
    async def run() -> Any:
        async with serving(app, folder, tcp=tcp) as address:
            client = JobClient(address, timeout=timeout)
            try:
                return await use(client)
            finally:
                await client.close()

    return asyncio.run(run())


def jobs(**runners: Any) -> JobApp:
    app = JobApp()
    app.runners = runners
    return app


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize(
    "job",
    [
        PICTURE,
        ImageJob(b"", "PP-OCRv6_small", OcrOptions(0.1, 0.2, 736)),
        ImageJob(b"\xff\xd8", "ViT-B-16"),
        TextJob("一只猫 😀 cat", "ViT-B-16", "zh-CN"),
        Failure(ErrorCode.MODEL_UNAVAILABLE, "没有网络"),
        None,
    ],
    ids=lambda job: type(job).__name__,
)
def test_jobs_and_failures_arrive_as_they_were_sent(job: object, tcp: bool, tmp_path: Path) -> None:
    there = Echo()
    back = by_a_client(
        CloseEachConnection(jobs(ocr=there)), tmp_path, lambda client: client.submit("ocr", job), tcp=tcp
    )
    assert type(back) is type(there.last) is type(job)
    assert back == there.last == job


def arrays_of(result: Any) -> list[np.ndarray[Any, Any]]:
    return [value for name in result.__slots__ if isinstance(value := getattr(result, name), np.ndarray)]


@pytest.mark.parametrize("number", [0, 1, 300])
def test_results_arrive_with_their_arrays(number: int, tmp_path: Path) -> None:
    random = np.random.default_rng(number)

    def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.normal(size=shape).astype(np.float32)

    results = [
        Embedding(floats(512)),
        Faces(floats(number, 4), floats(number), floats(number, 512)),
        TextLines(
            ("行",) * number, floats(number, 4, 2), floats(number), floats(2 * number)[::2]
        ),  # the last is not contiguous
    ]

    async def send_all(client: JobClient) -> list[Any]:
        return await asyncio.gather(*(client.submit("ocr", result) for result in results))

    back = by_a_client(jobs(ocr=Echo()), tmp_path, send_all)
    for ours, theirs in zip(results, back, strict=True):
        assert type(theirs) is type(ours)
        for sent, received in zip(arrays_of(ours), arrays_of(theirs), strict=True):
            assert received.dtype == np.float32
            np.testing.assert_array_equal(sent, received)
    assert back[2].texts == ("行",) * number


def test_each_job_goes_to_the_runner_it_names(tmp_path: Path) -> None:
    faces, texts = Echo(), Echo()
    by_a_client(jobs(faces=faces, clip_text=texts), tmp_path, lambda client: client.submit("clip_text", "a cat"))
    assert (faces.last, texts.last) == (None, "a cat")


@pytest.mark.parametrize("runner", ["broken", "no_such_runner"])
def test_a_fault_in_the_process_is_a_failure_without_its_details(runner: str, tmp_path: Path) -> None:
    failure = by_a_client(jobs(broken=Broken()), tmp_path, lambda client: client.submit(runner, PICTURE))
    assert isinstance(failure, Failure)
    assert failure.code is ErrorCode.INTERNAL
    assert runner in failure.message
    assert "secret" not in failure.message


@pytest.mark.parametrize("status", [503, 504])
def test_a_process_that_is_not_ready_or_not_in_time_counts_as_one_that_went_away(status: int, tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"BentoML's words"})

    with pytest.raises(aiohttp.ServerDisconnectedError):
        by_a_client(app, tmp_path, lambda client: client.submit("ocr", PICTURE))


def test_a_process_that_hangs_is_not_waited_for_longer_than_said(tmp_path: Path) -> None:
    with pytest.raises(asyncio.TimeoutError):
        by_a_client(jobs(ocr=Slow()), tmp_path, lambda client: client.submit("ocr", PICTURE), timeout=0.2)


def test_a_process_that_is_not_there_is_an_error_of_its_connection(tmp_path: Path) -> None:
    async def run() -> None:
        client = JobClient((tmp_path / "nobody.sock").as_uri(), timeout=10)
        try:
            await client.submit("ocr", PICTURE)
        finally:
            await client.close()

    with pytest.raises(aiohttp.ClientConnectionError):
        asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_nothing_but_a_post_is_a_job(method: str) -> None:
    there = Echo()
    written: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": pickle.dumps("a job"), "more_body": False}

    async def send(message: Message) -> None:
        written.append(message)

    asyncio.run(jobs(ocr=there)({"type": "http", "method": method, "path": "/jobs/ocr"}, receive, send))
    assert written[0]["status"] == 404
    assert there.last is None


def test_half_a_job_is_not_done() -> None:
    there = Echo()
    messages: list[Message] = [
        {"type": "http.request", "body": pickle.dumps("a job"), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError("there is nobody to answer")

    with pytest.raises(ConnectionResetError):
        asyncio.run(jobs(ocr=there)({"type": "http", "method": "POST", "path": "/jobs/ocr"}, receive, send))
    assert there.last is None


def test_the_connection_is_closed_after_each_answer_by_one_header() -> None:
    written: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        written.append(message)

    asyncio.run(CloseEachConnection(app)({"type": "http"}, receive, send))
    start, *body = written
    assert start["headers"] == [(b"content-type", b"text/plain"), (b"connection", b"close")]
    assert body == [
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b"},
    ]

    written.clear()
    asyncio.run(CloseEachConnection(app)({"type": "lifespan"}, receive, send))
    assert written[0]["headers"] == [(b"content-type", b"text/plain")]


def test_tracing_is_left_to_who_configures_bentoml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTOML_CONFIG", raising=False)
    assert untraced() == {"tracing": {"excluded_urls": ".*"}}
    monkeypatch.setenv("BENTOML_CONFIG", "/etc/bentoml.yaml")
    assert untraced() == {}
