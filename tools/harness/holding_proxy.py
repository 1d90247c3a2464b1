"""A proxy that holds requests while nobody answers behind it: for measurements where Caddy is not installed.

``python -m tools.harness.holding_proxy PORT URL`` listens on ``PORT`` of loopback and passes everything on to ``URL``.
A request whose connection is refused, or breaks before an answer, is sent again for up to a minute, since jobs have no
side effects.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
from aiohttp import web

from tools.harness.server import ROOT, free_port

_HOLD = 60.0
_TRY_EVERY = 0.25
"""Seconds."""
_NOT_PASSED_ON = ("host", "content-length", "transfer-encoding", "connection", "keep-alive")


_CLIENT = web.AppKey("client", aiohttp.ClientSession)


def app(url: str) -> web.Application:
    """Return the proxy before ``url``."""

    async def client(proxy: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(url, connector=connector, auto_decompress=False) as session:
            proxy[_CLIENT] = session
            yield

    proxy = web.Application(client_max_size=2**30)
    proxy.cleanup_ctx.append(client)
    proxy.router.add_route("*", "/{path:.*}", lambda request: _passed_on(proxy[_CLIENT], request))
    return proxy


async def _passed_on(client: aiohttp.ClientSession, request: web.Request) -> web.Response:
    body = await request.read()
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
    until = asyncio.get_running_loop().time() + _HOLD
    while True:
        try:
            async with client.request(request.method, request.path_qs, data=body, headers=headers) as answer:
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={"content-type": answer.headers.get("content-type", "text/plain")},
                )
        except (aiohttp.ClientError, OSError) as error:
            if asyncio.get_running_loop().time() > until:
                return web.Response(status=502, text=f"Nobody answers behind the proxy: {error!r}.")
        await asyncio.sleep(_TRY_EVERY)


@contextlib.contextmanager
def held(url: str) -> Iterator[str]:
    """Put the proxy, in a process of its own, before ``url``; return its own URL."""
    port = free_port()
    command = (sys.executable, "-m", "tools.harness.holding_proxy", str(port), url)
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            while not is_listened_on(port):
                assert process.poll() is None, "the proxy did not start"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def is_listened_on(port: int) -> bool:
    """Return whether ``port`` of loopback takes connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tools.harness.holding_proxy", description="A proxy that holds.")
    parser.add_argument("port", type=int)
    parser.add_argument("url")
    options = parser.parse_args()
    web.run_app(app(options.url), host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
