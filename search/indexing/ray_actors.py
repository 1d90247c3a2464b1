"""Indexing on a Ray cluster: actors on its nodes do the files, each with models and database connections of its own.
Walking, progress and removal stay with the command that was started.

An actor does what a ``Worker`` does, so that rows, transactions and resumption are those of an index without Ray; Ray
Data, which repeats blocks of rows, would know nothing of them. Ray's own retries are off: they hold a call until its
actor is back, which may be never, while another one could do the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from search.indexing.cluster import ActorEnded, ClusterWorkers
from search.indexing.plan import Options, Step
from search.indexing.predictor import CannotGoOn
from search.indexing.retries import RetryingDatabase
from search.indexing.worker import Done, Worker
from search.store.database import Database, open_database
from settings import Settings

if TYPE_CHECKING:
    from search.indexing.local import LocalPredictor

_ROOT = Path(__file__).resolve().parents[2]
_NOT_SHIPPED = [".[!.]*", "tests", "tools", "docs", "deploy", "**/__pycache__"]
"""Of this project's folder, which the nodes get: what serves no actor, and ``.env``, whose secrets go another way.
Patterns as in .gitignore, where ``.*`` would be the folder itself.
"""


_REACH_TIMEOUT = 10.0
"""Seconds to wait for the cluster's address."""


class IndexingProcess:
    """The process of an actor on its node: a ``Worker``, whose models and database are opened by the first file."""

    def __init__(self, config: Settings, options: Options, roots: Sequence[str]) -> None:
        self._config, self._options, self._roots = config, options, roots
        self._opening = asyncio.Lock()
        self._worker: Worker | None = None

    async def ready(self) -> bool:
        """Return True."""
        return True

    async def do(self, step: Step) -> Done:
        """Do one step and return what was done. Raises ``CannotGoOn``."""
        async with self._opening:
            if self._worker is None:
                self._worker = await self._open()
        return await self._worker.do(step)

    async def _open(self) -> Worker:
        predictor = await asyncio.to_thread(_local_predictor, self._config)
        database = RetryingDatabase(await open_database(self._config, migrate=False))
        return Worker(database, predictor, self._config, self._options, self._roots)


def _local_predictor(config: Settings) -> LocalPredictor:
    from search.indexing.local import LocalPredictor  # engines are for the nodes; the command does without

    return LocalPredictor(config)


class RayActor:
    """A ``cluster.Actor`` by the handle that Ray gave."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def do(self, step: Step) -> Done:
        """Do one step and return what was done. Raises ``ActorEnded``, and what the process raised."""
        done: Done = await _answer(self._handle.do.remote(step))
        return done

    async def start(self) -> None:
        """Return once the process runs. Raises ``ActorEnded``."""
        await _answer(self._handle.ready.remote())

    async def is_ready(self) -> bool:
        """Return whether the process runs. Waits while Ray looks for a node for it."""
        try:
            await self.start()
        except ActorEnded:
            return False
        return True


async def _answer(reference: Any) -> Any:
    """Return what an actor was asked for. Raises ``ActorEnded``, and what it raised."""
    from ray.exceptions import RayError, RayTaskError

    try:
        return await reference
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise ActorEnded(" ".join(str(error).split())[-300:]) from error


@contextlib.asynccontextmanager
async def ray_workers(
    address: str, cpus: int, database: Database, config: Settings, options: Options, roots: Sequence[str]
) -> AsyncIterator[tuple[ClusterWorkers, int]]:
    """Join the Ray cluster at ``address`` and start actors of ``cpus`` CPUs each (with ``DEVICE=cuda`` of a GPU too),
    as many as it has room for. Yields them, and how many files they do at the same time.

    ``address``: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``, or ``local`` for a cluster of this machine alone.
    ``options.jobs``: files that an actor is sent at a time. ``roots``: what is indexed. Raises ``CannotGoOn``.
    """
    ray = await asyncio.to_thread(_join, address)
    try:
        gpus = int(config.device == "cuda")
        count = _room(ray, cpus, gpus)
        shipped = _shipped(ray, database, config, cpus)
        start = partial(_start, ray, options, roots)
        actors = [start(shipped, cpus, gpus) for _ in range(count)]
        spare = start(shipped.model_copy(update={"device": "cpu"}), 0, 0)
        await _one_started(actors)
        workers = ClusterWorkers(actors, spare, RetryingDatabase(database), options)
        try:
            yield workers, count * options.jobs
        finally:
            await workers.close()
    finally:
        await asyncio.to_thread(ray.shutdown)


def _join(address: str) -> Any:
    _reach(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports usage home by default
    os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")  # its warning; ours leave out more
    try:
        import ray
    except ImportError as error:
        raise CannotGoOn("--ray needs the package ray: pip install 'ray>=2.40'.") from error
    try:
        ray.init(
            address=address,
            runtime_env={"working_dir": str(_ROOT), "excludes": _NOT_SHIPPED},
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise CannotGoOn(f"No Ray cluster can be joined at {address}: {error}") from error
    return ray


def _start(ray: Any, options: Options, roots: Sequence[str], config: Settings, cpus: int, gpus: int) -> RayActor:
    kind = ray.remote(IndexingProcess)
    where = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": 0}
    return RayActor(kind.options(**where).remote(config, options, roots))


def _reach(address: str) -> None:
    """Connect to ``address`` and close again, where it names a host: Ray tries for minutes. Raises ``CannotGoOn``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise CannotGoOn(f"No Ray cluster can be joined at {address}: {error}.") from error


async def _one_started(actors: Sequence[RayActor]) -> None:
    """Return once one of ``actors`` runs. Raises ``CannotGoOn`` where none can be started."""
    why = ""
    for starting in asyncio.as_completed([actor.start() for actor in actors]):
        try:
            await starting
            return
        except ActorEnded as error:
            why = str(error)
    raise CannotGoOn(f"No process could be started on the Ray cluster: {why}")


def _room(ray: Any, cpus: int, gpus: int) -> int:
    """Return how many actors the nodes have room for. Raises ``CannotGoOn`` where it is none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else node.get("CPU", 0)))
        for node in nodes
    )
    if not room:
        has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes) or "none"
        raise CannotGoOn(
            f"No node of the Ray cluster has the {cpus} CPUs and {gpus} GPUs that each process takes; there are: {has}."
        )
    return room


def _shipped(ray: Any, database: Database, config: Settings, cpus: int) -> Settings:
    """Return the settings for the nodes: with the database's address, and no more threads than an actor has CPUs."""
    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if config.database_url is None and len(addresses) > 1:
        raise CannotGoOn(
            "The other machines of the Ray cluster cannot reach the database that comes with pip. Set DATABASE_URL to "
            "a PostgreSQL that they can."
        )
    return config.model_copy(
        update={
            "database_url": config.database_url or SecretStr(database.conninfo),
            "intra_op_threads": config.intra_op_threads or cpus,
            "request_threads": config.request_threads or cpus,
        }
    )
