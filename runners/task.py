"""The description of a task: its names, what it takes and returns, how its models are loaded, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from models.catalog import Catalog, ModelEntry, ModelKind
from runners.arrivals import Source
from runners.contract import Ask, Options, PictureJob, Runners, TextJob
from runners.cost import faces_cost
from settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from models.progress import Progress
    from runners.engine import EnginePlan, Session
    from runners.engine.int8 import Ranges
    from runners.runner import Model
    from settings.gateway import Route, Servers

R = TypeVar("R")

_LEAST_PLACES = 8  # twice the most lanes


@dataclass(frozen=True)
class Loading:
    """The parts that every model is loaded with."""

    catalog: Catalog
    settings: Settings
    plan: EnginePlan

    def open(
        self,
        path: Path,
        *,
        exact: bool = False,
        laned: bool = False,
        best_class: bool = False,
        few_shapes: bool = False,
        stays_packed: bool = False,
        picture_size: tuple[int, int] | None = None,
        ranges: Ranges | None = None,
    ) -> Session:
        """Open the graph ``path`` as ``runners.engine.open_session`` does."""
        from runners.engine import open_session

        return open_session(
            path,
            self.plan,
            exact=exact,
            laned=laned,
            best_class=best_class,
            few_shapes=few_shapes,
            stays_packed=stays_packed,
            picture_size=picture_size,
            ranges=ranges,
        )


@dataclass(frozen=True)
class Task(Generic[R]):
    """One thing that is computed, of a picture or of a text."""

    name: str
    """Of its runner; in metrics and messages: ``clip_image``."""
    label: str
    """Its key in Immich's entries, with the type after a dot where the key has several: ``clip.visual``. In logs and
    metrics of requests."""
    process: str
    """Name of the runner process of its own (``RUNNER_PROCESSES=split``)."""
    result: type[R]
    """A frozen dataclass: ``runners.contract.Embedding``, …"""
    load: Callable[[str, Loading], Model[Any, R]]
    """Loads the model of a name. Imports what its family needs only then, so that an idle process stays small. Raises
    ``ServiceError``."""
    find: Callable[[Catalog, str], str]
    """The name of a model in memory, of a name or alias that was asked for. Raises ``ServiceError`` UNKNOWN_MODEL."""
    kind: ModelKind | None = None
    """Of its models in the catalog, whose files are then fetched before ``load`` is called; None: ``load`` gets them
    from wherever it likes."""
    part: str | None = None
    """Of a model's files, those that it needs (``visual``); None: all."""
    input: Literal["picture", "text"] = "picture"
    options: type[Any] | None = None
    """A frozen dataclass of numbers and strings: ``runners.contract.OcrOptions``, …"""
    decodes_whole: bool = True
    """Its model calls ``ImageJob.pixels``, as against decoding at a smaller scale."""
    laned: bool = False
    """Its graphs are small, so that several batches compute at the same time, with a thread each."""
    cost: Callable[[int, int, Options], float] = faces_cost
    """The cost of a job, in ordinary pictures, by a picture's width and height and the job's options."""
    override: Callable[[Settings], str] = lambda settings: ""
    """The model that answers whatever is asked for (``CLIP_MODEL``); empty: the one asked for."""
    preload: Callable[[Settings], tuple[str, ...]] = lambda settings: ()
    """Models loaded at start, and before that fetched, as the one of ``override`` is."""
    route: Callable[[Settings], Route] = lambda settings: "local"
    """Who answers (``ROUTE_CLIP``)."""
    servers: Callable[[Settings], Servers] = lambda settings: settings.upstreams()
    """The other servers that answer where it is routed upstream (``IMMICH_API_CLIP``, else ``IMMICH_API``)."""

    def source(self, using: Loading) -> Source | None:
        """Return where its models' files come from; None where ``load`` knows alone."""
        kind = self.kind
        if kind is None:
            return None

        def progress(name: str) -> Progress | None:
            from models.progress import on_its_way

            return on_its_way(kind, name, using.settings)

        def waits(name: str, at: float) -> float | None:
            from models.progress import note_retry

            return note_retry(kind, name, using.settings, at)

        return Source(lambda name: files_of(using.catalog.find(kind, name), using, self.part), progress, waits)

    def places(self, settings: Settings) -> float:
        """Return how much work, as a sum of costs, its runner is sent at the same time: enough to be always busy, and
        no more, since what is sent no longer takes turns. A batch and the next; with lanes, one batch and some.
        """
        return max(_LEAST_PLACES, (1.5 if self.laned else 2.0) * settings.max_batch)

    @property
    def entry(self) -> str:
        """Return its key in Immich's entries: ``clip``."""
        return self.label.partition(".")[0]

    async def of_picture(
        self,
        runners: Runners,
        data: bytes,
        model: str,
        options: Options = None,
        *,
        upright: bool = False,
        cost: float = 1.0,
    ) -> R:
        """Run this task alone on an encoded picture. ``cost``: as of ``Ask``. Raises ``ServiceError``."""
        job = PictureJob(data, (Ask(self.name, model, options, cost),), upright)
        return cast(R, (await runners.picture(job))[self.name])

    async def of_text(self, runners: Runners, text: str, model: str, language: str | None = None) -> R:
        """Run this task on ``text``. Raises ``ServiceError``."""
        return cast(R, await runners.text(self.name, TextJob(text, model, language)))


def files_of(entry: ModelEntry, using: Loading, part: str | None = None) -> dict[str, Path]:
    """Return the files of a model, or of that part of it, by their names; they are fetched where they are not here."""
    from models.resolve import resolve  # not at the top: the gateway is spared what downloads

    return dict(resolve(entry, using.settings, part))
