"""The time that a search of Immich's bar takes more through this service than at Immich itself, a fake: it waits
as long as it is told, and answers with assets of ordinary size.

A made-up library of one owner in an embedded database in a temporary folder; the routes of the service on loopback, in
this process, as the callers are: their time is in the figures too.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import aiohttp
import numpy as np
import orjson
import uvicorn
from aiohttp import web
from starlette.applications import Starlette

from compat.immich_search.api import open_bar, routes
from search.http.life import SearchLife
from search.immich.exchange import ImmichHttp
from search.immich.visitor import Visitors
from search.store.database import Database
from settings import Settings
from tools.bench.report import Cell, Table, milliseconds
from tools.bench.search import library
from tools.bench.search.index import Entry, build, temporary_database
from tools.bench.search.speed import entry_of
from tools.harness.server import free_port

OWNER = UUID(int=1)
_EXIF = {
    "make": "Make",
    "model": "Model",
    "exifImageWidth": 4000,
    "exifImageHeight": 3000,
    "city": None,
    "padding": "x" * 900,
}
_TARGET_ADDED_MS, _TARGET_PASSED_MS = 80, 3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assets", type=int, default=100_000, help="size of the library (100000)")
    parser.add_argument("--callers", type=int, default=8, help="at once (8)")
    parser.add_argument("--queries", type=int, default=400, help="of each kind (400)")
    parser.add_argument("--delay", type=float, default=60, help="ms that the faked Immich takes for a search (60)")
    parser.add_argument("--delay-single", type=float, default=8, help="ms that it takes for one asset (8)")


def run(options: argparse.Namespace) -> list[Table]:
    rows = asyncio.run(_measured(options))
    return [
        Table(
            f"Immich's search bar, {options.callers} callers at once, {options.assets:,} pictures",
            ("kind", "requests", "p50, ms", "p95, ms", "added to p50, ms", "added to p95, ms", "target"),
            tuple(rows),
            f"Immich is faked: {options.delay:g} ms for a search, {options.delay_single:g} ms for one asset. Added: "
            "to the same requests at the fake itself.",
        )
    ]


async def _measured(options: argparse.Namespace) -> list[tuple[Cell, ...]]:
    words = library.vocabulary()
    queries = library.queries(options.queries, words)
    rows: list[tuple[Cell, ...]] = []
    async with temporary_database() as database:
        ids = await asyncio.to_thread(_fill, database, options.assets, words)
        for name, version in (("one call (3.2)", (3, 2)), ("one by one (3.1)", (3, 1))):
            async with _fake(ids, version, options) as immich, _served(database, immich) as bar:
                for kind in ("hybrid", "passed on"):
                    own = await _timed(immich, kind, queries, options.callers)
                    ours = await _timed(bar, kind, queries, options.callers)
                    target = _TARGET_PASSED_MS if kind == "passed on" else _TARGET_ADDED_MS
                    rows.append(_row(f"{kind}, {name}", own, ours, target if version >= (3, 2) else None))
    return rows


def _row(label: str, own: Sequence[float], ours: Sequence[float], target: int | None) -> tuple[Cell, ...]:
    (p50, p95), (own50, own95) = ([milliseconds(one, percentile) for percentile in (50, 95)] for one in (ours, own))
    met = "-" if target is None else f"{target}: {'yes' if p95 - own95 <= target else 'NO'}"
    return label, len(ours), p50, p95, p50 - own50, p95 - own95, met


def _fill(database: Database, assets: int, words: list[str]) -> list[UUID]:
    """Put ``assets`` pictures of ``OWNER`` into the database, and return their ids."""
    ids: list[UUID] = []

    def entries() -> Iterator[Entry]:
        for picture in library.pictures(assets, words):
            ids.append(picture.id)
            yield entry_of(replace(picture, owner=str(OWNER)))

    vectors = np.random.default_rng(1).standard_normal((assets, 4)).astype(np.float32)
    build(database.conninfo, entries(), [vectors], "none")
    return ids


@asynccontextmanager
async def _served(database: Database, immich: str) -> AsyncIterator[str]:
    """Serve the bar's two routes over ``database`` and yield their address."""
    settings = Settings(_env_file=None, immich_url=immich)
    as_immichs = SimpleNamespace(
        source=SimpleNamespace(value="immich"), cutter=database.cutter, connection=database.connection
    )
    visitors = Visitors(ImmichHttp(immich))
    bar = open_bar(settings, cast(SearchLife, SimpleNamespace(database=lambda: as_immichs)), visitors)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes(bar)), port=port, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving
        await visitors.close()


@asynccontextmanager
async def _fake(ids: list[UUID], version: tuple[int, int], options: argparse.Namespace) -> AsyncIterator[str]:
    """Run the faked Immich in a process of its own and yield its address."""
    port = free_port()
    given = (port, [str(one) for one in ids], version, options.delay / 1000, options.delay_single / 1000)
    process = multiprocessing.get_context("spawn").Process(target=_serve_fake, args=given, daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/api/server/version"):
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
    try:
        yield url
    finally:
        process.terminate()
        process.join()


def _serve_fake(port: int, ids: list[str], version: tuple[int, int], delay: float, single: float) -> None:
    app = web.Application()

    async def search(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        branches = asked.get("filter", {}).get("or")
        if "id" in asked or branches:
            found = [asked["id"]] if "id" in asked else [one["id"]["eq"] for one in branches]
            await asyncio.sleep(single + delay / 4 if branches else single)
        else:
            start = hash(asked.get("query", "")) % max(1, len(ids) - 1000)
            found = ids[start : start + asked.get("size", 100)]
            await asyncio.sleep(delay)
        items = [
            {"id": one, "ownerId": str(OWNER), "originalFileName": f"{one}.jpg", "exifInfo": _EXIF} for one in found
        ]
        assets = {"total": len(items), "count": len(items), "items": items, "facets": [], "nextPage": "2"}
        albums = {"total": 0, "count": 0, "items": [], "facets": []}
        return web.Response(body=orjson.dumps({"albums": albums, "assets": assets}), content_type="application/json")

    async def told(request: web.Request) -> web.Response:
        known: dict[str, Any] = {
            "/api/users/me": {"id": str(OWNER), "name": "", "isAdmin": False},
            "/api/server/version": {"major": version[0], "minor": version[1], "patch": 0},
        }
        return web.json_response(known.get(request.path, []))

    app.router.add_post("/api/search/{route}", search)
    app.router.add_get("/{path:.*}", told)
    web.run_app(app, host="127.0.0.1", port=port, print=lambda *_: None, access_log=None)


async def _timed(url: str, kind: str, queries: Sequence[str], callers: int) -> list[float]:
    """Return the seconds of each search."""
    route = "smart" if kind == "hybrid" else "metadata"
    latencies: list[float] = []
    waiting = iter(queries)

    async def caller(session: aiohttp.ClientSession) -> None:
        for query in waiting:
            body = {"query": query, "withExif": True} if kind == "hybrid" else {"originalFileName": query, "size": 1}
            started = time.perf_counter()
            async with session.post(f"{url}/api/search/{route}", json=body) as response:
                await response.read()
                assert response.status == 200
            latencies.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(headers={"x-api-key": "key"}) as session:
        async with session.post(f"{url}/api/search/smart", json={"query": queries[0]}) as response:
            await response.read()  # imports, connections, plans
        await asyncio.gather(*(caller(session) for _ in range(callers)))
    return latencies
