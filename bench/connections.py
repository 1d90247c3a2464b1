"""Two runners that do nothing, behind one gateway: what a connection per request costs. For ``bench/transport.py``.

``POST /keep`` and ``POST /close`` hand the body, as an ``ImageJob``, to a runner in a process of its own and return the length of the
vector that comes back. The runners differ in nothing but ``CloseEachConnection``. Served by ``bentoml serve bench.connections:Gateway``.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runners.contract import Embedding, ImageJob
from runners.services import ClipImageApi
from runners.transport import CloseEachConnection, Parcel

_VECTOR = np.ones(512, np.float32)


class _NoWork:
    async def submit(self, job: ImageJob) -> Embedding:
        return Embedding(_VECTOR)


def _runner(name: str, *, close: bool) -> Any:
    inner = type(name, (ClipImageApi,), {"runners": {"clip_image": _NoWork()}, "__module__": __name__})
    # The same settings as in runners/services.py.
    never = 2**31
    connection = {"max_requests": never, "max_age": float(never)}
    service = bentoml.service(name=name, workers=1, runner_connection=connection, logging={"access": {"enabled": False}})(inner)
    if close:
        service.add_asgi_middleware(CloseEachConnection)
    return service


KeepRunner = _runner("KeepRunner", close=False)
CloseRunner = _runner("CloseRunner", close=True)
_proxies: dict[str, Any] = {}


async def _ask(request: Request) -> Response:
    job = ImageJob(await request.body(), "none")
    parcel = await _proxies[request.url.path].clip_image(Parcel(job))
    return PlainTextResponse(str(len(parcel.content.vector)))


class _Gateway:
    _keep = bentoml.depends(KeepRunner)
    _close = bentoml.depends(CloseRunner)

    def __init__(self) -> None:
        _proxies.update({"/keep": self._keep, "/close": self._close})


_port = int(os.environ.get("IMMICH_PORT", "3003"))
_app = Starlette(routes=[Route(path, _ask, methods=["POST"]) for path in ("/keep", "/close")])
_http = {"host": "127.0.0.1", "port": _port}
Gateway = bentoml.service(name="bench_gateway", workers=1, http=_http, logging={"access": {"enabled": False}})(
    bentoml.asgi_app(_app, path="/")(_Gateway)
)
