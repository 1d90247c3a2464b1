"""Two runners that do nothing, behind one gateway, to measure the way to a runner and back (``tools.bench.transport``).

``POST /bentoml`` and ``POST /ours`` hand the body, as a ``PictureJob``, to a runner in a process of its own and return
the length of the vector that comes back: by BentoML's API and client, and by ``JobApp`` and ``JobClient``. Served by
``bentoml serve tools.bench.connections:Gateway``.
"""

from __future__ import annotations

import json
import os
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
import numpy as np
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runners.bento.transport import JOBS, SECRET_VARIABLE, JobApp, JobClient, RunnerDoor, make_secret, untraced
from runners.contract import Ask, Embedding, PictureJob
from runners.tasks import tasks_by_name

if SECRET_VARIABLE not in os.environ:  # in the process that starts the others
    make_secret()
_TASK = "clip_image"
_VECTOR = np.ones(512, np.float32)


class Parcel:
    """A job or a result, opaque to pydantic, which would take a dataclass apart."""

    def __init__(self, content: Any) -> None:
        self.content = content

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "object"}


class _NoWork:
    async def picture(self, job: PictureJob) -> dict[str, Any]:
        return {job.asks[0].task: Embedding(_VECTOR)}


class _BentosRunner:
    @bentoml.api
    async def clip_image(self, job: Parcel) -> Parcel:
        return Parcel((await _NoWork().picture(job.content))[_TASK])


class _OurRunner:
    """A runner that is asked by ``_jobs``, which is mounted into it."""


# BentoML's with its defaults, but for what would close connections that are in use.
_QUIET = {"workers": 1, "logging": {"access": {"enabled": False}}}
_NEVER = {"max_requests": 2**31, "max_age": float(2**31)}
BentosRunner: Any = bentoml.service(name="BentosRunner", runner_connection=_NEVER, **_QUIET)(_BentosRunner)
_tasks = tasks_by_name("")
_jobs = JobApp(_tasks)
_jobs.process = _NoWork()  # type: ignore[assignment] # it is sent pictures alone
OurRunner: Any = bentoml.service(name="OurRunner", metrics={"enabled": False}, **_QUIET, **untraced())(
    bentoml.asgi_app(_jobs, path=JOBS)(_OurRunner)
)
OurRunner.add_asgi_middleware(RunnerDoor)
_ways: dict[str, Any] = {}


async def _ask(request: Request) -> Response:
    result = await _ways[request.url.path](PictureJob(await request.body(), (Ask(_TASK, "none"),)))
    return PlainTextResponse(str(len(result.vector)))


class _Gateway:
    _bentos = bentoml.depends(BentosRunner)
    _ours = bentoml.depends(OurRunner)

    @bentoml.on_startup
    async def begin(self) -> None:
        client = JobClient(json.loads(os.environ["BENTOML_RUNNER_MAP"])["OurRunner"], _tasks, timeout=60)

        async def by_bentoml(job: PictureJob) -> Embedding:
            answer: Embedding = (await self._bentos.clip_image(Parcel(job))).content
            return answer

        async def by_us(job: PictureJob) -> Any:
            return (await client.picture(job))[_TASK]

        _ways.update({"/bentoml": by_bentoml, "/ours": by_us})


_port = int(os.environ.get("IMMICH_PORT", "3003"))
_app = Starlette(routes=[Route(path, _ask, methods=["POST"]) for path in ("/bentoml", "/ours")])
Gateway = bentoml.service(name="bench_gateway", http={"host": "127.0.0.1", "port": _port}, **_QUIET)(
    bentoml.asgi_app(_app, path="/")(_Gateway)
)
