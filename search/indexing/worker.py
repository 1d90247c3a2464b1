"""The work on one file: read, compared, computed, written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal, Protocol

from errors import ErrorCode, ServiceError
from search.indexing import file_contents
from search.indexing.formats import Kind
from search.indexing.places import Entry, exists
from search.indexing.plan import Need, Options, Step, decide
from search.indexing.predictor import Computed
from search.indexing.retries import RetryingDatabase
from search.store.index import known, move, put_asset, put_problem, same_content, touch
from search.store.records import File, Known, Problem, Vector
from search.store.vector_indexes import index_embeddings
from settings import Settings

_NO_DATE = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Done:
    """The work that was done on a file."""

    touched: bool = False
    moved: bool = False
    computed: bool = False
    problems: tuple[Problem, ...] = ()


class Computing(Protocol):
    """A maker of vectors and texts from pictures: ``predictor.Predictor``, ``local.LocalPredictor``."""

    async def ask(self, picture: bytes, models: Mapping[str, str]) -> Computed:
        """Return what ``models`` (task to the catalog's name) make of ``picture``, encoded. Raises ``CannotGoOn``."""
        ...

    @property
    def waiting(self) -> str:
        """Return what is waited for, for a person; empty while nothing is."""
        ...


class FileWorker(Protocol):
    """The work on files, several at once: by a ``Worker`` of this process, or by those of a cluster."""

    async def do(self, step: Step) -> Done:
        """Do one step and return what was done. Raises ``CannotGoOn``."""
        ...

    @property
    def waiting(self) -> str:
        """Return what is waited for, for a person; empty while nothing is."""
        ...


class Worker:
    """Does files in this process, several at once."""

    def __init__(
        self, database: RetryingDatabase, predictor: Computing, config: Settings, options: Options, roots: Sequence[str]
    ) -> None:
        """``roots``: what is indexed; only within it is a file taken for one that was moved."""
        self._database = database
        self._predictor = predictor
        self._config = config
        self._options = options
        self._owner = options.owner
        self._roots = roots
        self._indexing = asyncio.Lock()
        self._indexed = False

    @property
    def waiting(self) -> str:
        """Return what is waited for, for a person; empty while pictures are answered."""
        return self._predictor.waiting

    async def do(self, step: Step) -> Done:
        """Do one step and return what was done. Raises ``CannotGoOn``."""
        entry = step.entry
        if (
            entry.kind is Kind.IMAGE and entry.size > self._config.max_body_bytes
        ):  # nothing to read, and nothing to tell it by
            why = file_contents.too_large(entry.size, self._config.max_body_bytes)
            return await self._unread(entry, Problem("read", ErrorCode.BODY_TOO_LARGE.value, why))
        try:
            contents = await asyncio.to_thread(file_contents.read, entry.uri, entry.kind, entry.size, self._config)
        except ServiceError as error:
            return await self._unread(entry, Problem("read", error.code.value, error.message))
        except Exception as error:  # noqa: BLE001 - a disk's or an object store's library raises what it likes; it is told, per file
            why = f"The file could not be read: {getattr(error, 'strerror', None) or error or type(error).__name__}."
            return await self._unread(entry, Problem("read", ErrorCode.UNREADABLE_PICTURE.value, why))
        tasks, done = await self._compared(step, contents.hash)
        if not tasks:
            return done
        computed = await self._computed(entry, contents, tasks)
        file = File(self._owner, entry.uri, _kind(entry), entry.size, entry.modified or _NO_DATE, contents.hash)
        await self._database.run(
            put_asset, file, vector=computed.vector, text=computed.text, problems=computed.problems
        )
        if computed.vector is not None:
            await self._index_vectors(computed.vector)
        return replace(
            done, computed=computed.vector is not None or computed.text is not None, problems=computed.problems
        )

    async def _compared(self, step: Step, content_hash: bytes) -> tuple[frozenset[str], Done]:
        """Return the tasks to compute for this content, and what was done instead of computing."""
        entry, before = step.entry, step.known
        modified = entry.modified or _NO_DATE
        if before is not None and before.content_hash != content_hash:
            return frozenset(self._options.models), Done()
        if step.need is Need.COMPUTE:
            return step.tasks, Done()
        if before is not None:
            await self._database.run(touch, before.id, size=entry.size, modified=modified)
            return step.tasks, Done(touched=True)
        moved = await self._moved(entry, content_hash, modified)
        if moved is None:
            return step.tasks, Done()
        return decide(replace(entry, modified=moved.modified), moved, self._options).tasks, Done(moved=True)

    async def _moved(self, entry: Entry, content_hash: bytes, modified: datetime) -> Known | None:
        """Return the asset of a file that was elsewhere before, now at its new place; None if there is none."""
        for asset in await self._database.run(same_content, self._owner, content_hash):
            below = any(asset.uri == root or asset.uri.startswith(root.rstrip("/") + "/") for root in self._roots)
            if not below or await asyncio.to_thread(exists, asset.uri):
                continue
            if await self._database.run(move, asset, uri=entry.uri, modified=modified):
                return (await self._database.run(known, self._owner, [entry.uri], self._options.models)).get(entry.uri)
        return None

    async def _computed(self, entry: Entry, contents: file_contents.Contents, tasks: frozenset[str]) -> Computed:
        try:
            picture = await asyncio.to_thread(file_contents.picture, entry.uri, contents, self._config)
        except ServiceError as error:
            return Computed(problems=(Problem("read", error.code.value, error.message),))
        return await self._predictor.ask(picture, {task: self._options.models[task] for task in sorted(tasks)})

    async def _unread(self, entry: Entry, problem: Problem) -> Done:
        await self._database.run(put_problem, self._owner, entry.uri, problem)
        return Done(problems=(problem,))

    async def _index_vectors(self, vector: Vector) -> None:
        """Make the index of vectors once in a run, as soon as there is a vector."""
        async with self._indexing:
            if not self._indexed:
                await self._database.run(index_embeddings, vector.model, len(vector.numbers))
                self._indexed = True


def _kind(entry: Entry) -> Literal["image", "video"]:
    return "video" if entry.kind is Kind.VIDEO else "image"
