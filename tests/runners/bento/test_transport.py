"""Jobs on their way from process to process: a real server and client, on a Unix socket and on TCP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import ErrorCode
from runners.bento.transport import SECRET_VARIABLE, JobApp, JobClient, RunnerDoor, RunnerFault, make_secret, untraced
from runners.contract import Ask, Embedding, FaceOptions, Failure, LoadedModel, ModelState, PictureJob, TextJob
from runners.tasks import tasks_by_name

TASKS = tasks_by_name("")
PICTURE = PictureJob(bytes(range(256)) * 5000, (Ask("faces", "buffalo_s", FaceOptions(0.25)),))
TEXT = TextJob("一只猫", "ViT-B-16", "zh-CN")
VECTOR = Embedding(np.ones(3, np.float32))
FAILED = Failure(ErrorCode.UNREADABLE_PICTURE, "cut short")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "to be replaced, and undone")
    make_secret()


class Process:
    """A runner's process that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.cancelled = asyncio.Event()

    async def picture(self, job: PictureJob) -> Mapping[str, Any]:
        self.asked.append(job)
        return {ask.task: FAILED for ask in job.asks}

    async def text(self, task: str, job: TextJob) -> Any:
        self.asked.append((task, job))
        return VECTOR

    async def models(self) -> list[ModelState]:
        return [ModelState("ocr", "a", "here", named=True)]

    async def loaded(self) -> Mapping[str, list[str]]:
        return {"ocr": ["a", "b"]}

    async def in_memory(self) -> list[LoadedModel]:
        return [LoadedModel("ocr", "a", "openvino", "bf16", 1000)]

    async def unload(self) -> Mapping[str, list[str]]:
        return {}

    async def device(self) -> str:
        return "cpu"


class Broken(Process):
    async def picture(self, job: PictureJob) -> Mapping[str, Any]:
        raise RuntimeError("a secret detail")


class Slow(Process):
    async def picture(self, job: PictureJob) -> Mapping[str, Any]:
        self.asked.append(job)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, folder: Path, *, tcp: bool = False) -> AsyncIterator[str]:
    """Serve ``app`` by uvicorn, as in a runner's process. Yields the address, as BentoML would tell it."""
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


def jobs(process: Any) -> ASGIApp:
    app = JobApp(TASKS)
    app.process = process
    return RunnerDoor(app)


def by_a_client(
    app: ASGIApp, folder: Path, use: Callable[[JobClient], Awaitable[Any]], *, timeout: float = 10, tcp: bool = False
) -> Any:
    async def run() -> Any:
        async with serving(app, folder, tcp=tcp) as address:
            client = JobClient(address, TASKS, timeout=timeout)
            try:
                return await use(client)
            finally:
                await client.close()

    return asyncio.run(run())


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_jobs_orders_and_their_answers_arrive_as_they_were_sent(tcp: bool, tmp_path: Path) -> None:
    there = Process()

    async def ask(client: JobClient) -> list[Any]:
        return [
            await client.picture(PICTURE),
            await client.text("clip_text", TEXT),
            *[await client.order(name) for name in ("loaded", "unload", "device")],
        ]

    picture, text, *orders = by_a_client(jobs(there), tmp_path, ask, tcp=tcp)
    assert there.asked == [PICTURE, ("clip_text", TEXT)]
    assert picture == {"faces": FAILED}
    np.testing.assert_array_equal(text.vector, VECTOR.vector)
    assert orders == [{"ocr": ["a", "b"]}, {}, "cpu"]


@pytest.mark.parametrize("size", [0, 1, 2**20 + 1, 5 * 2**20])
def test_pictures_of_any_size_arrive(size: int, tmp_path: Path) -> None:
    there = Process()
    job = PictureJob(os.urandom(size), PICTURE.asks)
    by_a_client(jobs(there), tmp_path, lambda client: client.picture(job))
    assert there.asked == [job]


def test_a_fault_in_the_process_is_told_without_its_details(tmp_path: Path) -> None:
    with pytest.raises(RunnerFault) as caught:
        by_a_client(jobs(Broken()), tmp_path, lambda client: client.picture(PICTURE))
    assert "500" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_job_is_a_fault(tmp_path: Path) -> None:
    there = Process()
    with pytest.raises(RunnerFault, match="400"):
        by_a_client(jobs(there), tmp_path, lambda client: client.picture(PictureJob(b"", (Ask("no such task", "m"),))))
    assert there.asked == []


def test_an_answer_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": pickle.dumps(Bomb())})

    with pytest.raises(RunnerFault):
        by_a_client(app, tmp_path, lambda client: client.picture(PICTURE))


def test_a_process_that_is_not_ready_counts_as_one_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        by_a_client(jobs(None), tmp_path, lambda client: client.picture(PICTURE))


def test_a_process_that_bentoml_gave_up_is_late(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 504, "headers": []})
        await send({"type": "http.response.body", "body": b"BentoML's words"})

    with pytest.raises(asyncio.TimeoutError):
        by_a_client(app, tmp_path, lambda client: client.picture(PICTURE))


def test_a_process_that_hangs_is_not_waited_for_longer_than_said(tmp_path: Path) -> None:
    with pytest.raises(asyncio.TimeoutError):
        by_a_client(jobs(Slow()), tmp_path, lambda client: client.picture(PICTURE), timeout=0.2)


def test_a_process_that_is_not_there_is_an_error_of_its_connection(tmp_path: Path) -> None:
    async def run() -> None:
        client = JobClient((tmp_path / "nobody.sock").as_uri(), TASKS, timeout=10)
        try:
            await client.picture(PICTURE)
        finally:
            await client.close()

    with pytest.raises(ConnectionError):
        asyncio.run(run())


def test_a_process_that_dies_before_it_answers_is_an_error_of_its_connection(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    with pytest.raises(ConnectionError):
        by_a_client(app, tmp_path, lambda client: client.picture(PICTURE))


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_caller_who_goes_away_is_not_worked_for(tcp: bool, tmp_path: Path) -> None:
    async def go_away(client: JobClient) -> None:
        asking = asyncio.create_task(client.picture(PICTURE))
        while not there.asked:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait_for(there.cancelled.wait(), 10)

    there = Slow()
    by_a_client(jobs(there), tmp_path, go_away, tcp=tcp)


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("this was unpickled",)


@pytest.mark.parametrize("secret", [None, "", "wrong", "x" * 43], ids=["none", "empty", "wrong", "as long"])
@pytest.mark.parametrize("path", ["/jobs/picture", "/jobs/text/clip_text", "/jobs/unload", "/loaded", "/metrics", "/"])
def test_who_lacks_the_secret_is_refused_and_not_read(path: str, secret: str | None) -> None:
    async def receive() -> Message:
        raise AssertionError("this is not to be read")

    assert _status(path, "POST", secret, receive) == 403


def test_without_a_secret_of_its_own_a_process_answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE)
    assert _status("/jobs/picture", "POST", "", pytest.fail) == 403


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_health_needs_no_secret_but_takes_no_body(path: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": pickle.dumps(Bomb()), "more_body": False}

    assert _status(path, "GET", None, receive) == 204
    assert _status(path, "POST", None, receive) == 403


def _status(path: str, method: str, secret: str | None, receive: Any) -> int:
    """Return the status that is answered by an app behind the door, which itself answers 204."""
    written: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def send(message: Message) -> None:
        written.append(message)

    headers = [] if secret is None else [(b"x-job-secret", secret.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(RunnerDoor(app)(scope, receive, send))
    return int(written[0]["status"])


def test_each_start_has_a_secret_of_its_own() -> None:
    first = os.environ[SECRET_VARIABLE]
    make_secret()
    assert first != os.environ[SECRET_VARIABLE]
    assert len(first) >= 40


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/jobs/loaded", 404), ("PUT", "/jobs/picture", 404), ("POST", "/jobs/no_such_order", 404)],
)
def test_nothing_but_a_post_of_a_known_order_is_answered(method: str, path: str, status: int, tmp_path: Path) -> None:
    there = Process()

    async def run() -> int:
        async with serving(jobs(there), tmp_path, tcp=True) as address, httpx.AsyncClient() as client:
            headers = {"x-job-secret": os.environ[SECRET_VARIABLE]}
            return (await client.request(method, address.replace("tcp", "http") + path, headers=headers)).status_code

    assert asyncio.run(run()) == status
    assert there.asked == []


def test_half_a_job_is_not_done() -> None:
    there = Process()
    messages: list[Message] = [
        {"type": "http.request", "body": b"half a picture", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError("there is nobody to answer")

    app = JobApp(TASKS)
    app.process = there
    with pytest.raises(ConnectionResetError):
        asyncio.run(app({"type": "http", "method": "POST", "path": "/jobs/picture", "headers": []}, receive, send))
    assert there.asked == []


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

    scope = {"type": "http", "method": "GET", "path": "/livez", "headers": []}
    asyncio.run(RunnerDoor(app)(scope, receive, send))
    start, *body = written
    assert start["headers"] == [(b"content-type", b"text/plain"), (b"connection", b"close")]
    assert body == [
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b"},
    ]

    written.clear()
    asyncio.run(RunnerDoor(app)({"type": "lifespan"}, receive, send))
    assert written[0]["headers"] == [(b"content-type", b"text/plain")]


def test_tracing_is_left_to_who_configures_bentoml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTOML_CONFIG", raising=False)
    assert untraced() == {"tracing": {"excluded_urls": ".*"}}
    monkeypatch.setenv("BENTOML_CONFIG", "/etc/bentoml.yaml")
    assert untraced() == {}
