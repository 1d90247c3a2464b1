"""The tasks: for each, what it is called, what it takes and returns, how its models are loaded, and by which settings.

Other code asks the task and has no branches per task. ``compat.immich.entries`` says how each is asked for over
Immich's protocol; CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from models.catalog import Catalog, ModelEntry, ModelKind
from runners.arrivals import Source
from runners.contract import (
    Ask,
    Embedding,
    FaceOptions,
    Faces,
    OcrOptions,
    Options,
    PictureJob,
    Runners,
    TextJob,
    TextLines,
)
from runners.cost import clip_cost, faces_cost, ocr_cost, text_cost
from settings import Settings, names

if TYPE_CHECKING:
    from pathlib import Path

    from models.progress import Progress
    from runners.engine import EnginePlan, Exactness, Session
    from runners.runner import Model
    from settings.gateway import Route, Servers

R = TypeVar("R")

_LEAST_PLACES = 8  # twice the most lanes
_READ_IN_A_TURN = 32_768
"""Pixels of lines at the network's height that OCR reads of one picture before others have a turn: 0.8 s of a core."""


@dataclass(frozen=True)
class Loading:
    """What loading a model takes, whichever it is."""

    catalog: Catalog
    settings: Settings
    plan: EnginePlan

    def open(
        self,
        path: Path,
        *,
        exact: Exactness = "as planned",
        laned: bool = False,
        best_class: bool = False,
        few_shapes: bool = False,
    ) -> Session:
        """Open the graph ``path`` as ``runners.engine.open_session`` does."""
        from runners.engine import open_session

        return open_session(path, self.plan, exact=exact, laned=laned, best_class=best_class, few_shapes=few_shapes)


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

        return Source(lambda name: _files(using.catalog.find(kind, name), using, self.part), progress)

    def places(self, settings: Settings) -> float:
        """Return how much work, as a sum of costs, its runner is sent at the same time: enough to be always busy, and
        no more, since what is sent no longer takes turns. A batch and the next; with lanes, one batch and some.
        """
        return max(_LEAST_PLACES, (1.5 if self.laned else 2.0) * settings.max_batch)

    @property
    def entry(self) -> str:
        """Its key in Immich's entries: ``clip``."""
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


def _files(entry: ModelEntry, using: Loading, part: str | None = None) -> dict[str, Path]:
    from models.resolve import resolve  # not at the top: the gateway is spared what downloads

    return dict(resolve(entry, using.settings, part))


def _load_clip_image(name: str, using: Loading) -> Model[Any, Embedding]:
    from runners.clip import load_clip_image

    entry = using.catalog.find(ModelKind.CLIP, name)
    files = _files(entry, using, "visual")
    return load_clip_image(entry.family, files, using.open, max_pixels=using.settings.max_picture_pixels)


def _load_clip_text(name: str, using: Loading) -> Model[Any, Embedding]:
    from runners.clip import load_clip_text

    entry = using.catalog.find(ModelKind.CLIP, name)
    return load_clip_text(entry.name, entry.family, _files(entry, using, "textual"), using.open)


def _load_faces(name: str, using: Loading) -> Model[Any, Faces]:
    from runners.faces import load_faces

    files = _files(using.catalog.find(ModelKind.FACES, name), using)

    def open_exactly(path: Path) -> Session:
        # In bf16 the detector's landmarks move by tenths of a pixel, and the vectors of faces cut out by them to a
        # cosine of 0.989.
        exact: Exactness = "all" if path == files["detection/model.onnx"] else "start"
        return using.open(path, exact=exact, laned=True, few_shapes=True)

    return load_faces(
        files,
        open_exactly,
        max_pixels=using.settings.max_picture_pixels,
        looks_again=using.settings.face_second_look,
    )


def _load_ocr(name: str, using: Loading) -> Model[Any, TextLines]:
    from runners.ocr import load_ocr

    files = _files(using.catalog.find(ModelKind.OCR, name), using)
    return load_ocr(
        files,
        partial(using.open, laned=True),
        max_pixels=using.settings.max_picture_pixels,
        max_boxes=using.settings.ocr_max_boxes,
        read_in_a_turn=_READ_IN_A_TURN,
    )


def _in_catalog(kind: ModelKind) -> Callable[[Catalog, str], str]:
    return lambda catalog, name: catalog.find(kind, name).name


CLIP_IMAGE = Task(
    name="clip_image",
    label="clip.visual",
    process="ClipImageRunner",
    result=Embedding,
    load=_load_clip_image,
    find=_in_catalog(ModelKind.CLIP),
    kind=ModelKind.CLIP,
    part="visual",
    decodes_whole=False,
    cost=clip_cost,
    override=lambda settings: settings.clip_model,
    preload=lambda settings: names(settings.preload.clip.visual),
    route=lambda settings: settings.route_clip,
    servers=lambda settings: settings.upstreams(settings.immich_api_clip),
)
FACES = Task(
    name="faces",
    label="facial-recognition",
    process="FaceRunner",
    result=Faces,
    load=_load_faces,
    find=_in_catalog(ModelKind.FACES),
    kind=ModelKind.FACES,
    options=FaceOptions,
    laned=True,
    override=lambda settings: settings.recognition_model,
    preload=lambda settings: names(
        settings.preload.facial_recognition.detection, settings.preload.facial_recognition.recognition
    ),
    route=lambda settings: settings.route_faces,
    servers=lambda settings: settings.upstreams(settings.immich_api_faces),
)
OCR = Task(
    name="ocr",
    label="ocr",
    process="OcrRunner",
    result=TextLines,
    load=_load_ocr,
    find=_in_catalog(ModelKind.OCR),
    kind=ModelKind.OCR,
    options=OcrOptions,
    laned=True,
    cost=ocr_cost,
    override=lambda settings: settings.ocr_model,
    preload=lambda settings: names(settings.preload.ocr.detection, settings.preload.ocr.recognition),
    route=lambda settings: settings.route_ocr,
    servers=lambda settings: settings.upstreams(settings.immich_api_ocr),
)
CLIP_TEXT = Task(
    name="clip_text",
    label="clip.textual",
    process="ClipTextRunner",
    result=Embedding,
    load=_load_clip_text,
    find=_in_catalog(ModelKind.CLIP),
    kind=ModelKind.CLIP,
    part="textual",
    input="text",
    cost=text_cost,
    override=lambda settings: settings.clip_model,
    preload=lambda settings: names(settings.preload.clip.textual),
    route=lambda settings: settings.route_clip,
    servers=lambda settings: settings.upstreams(settings.immich_api_clip),
)
BUILT_IN: tuple[Task[Any], ...] = (CLIP_IMAGE, FACES, OCR, CLIP_TEXT)


class ExtraTaskError(ValueError):
    """A module of EXTRA_TASKS cannot be used. The service must not start."""


@lru_cache(maxsize=8)
def tasks_by_name(extra: str) -> Mapping[str, Task[Any]]:
    """Return the built-in tasks, then those in the tuple ``TASKS`` of each module that ``extra`` (EXTRA_TASKS) names.

    By their names. Raises ``ExtraTaskError``.
    """
    tasks = [*BUILT_IN, *(task for module in extra_modules(extra) for task in module.TASKS)]
    for field in ("name", "label", "process"):
        values = [getattr(task, field) for task in tasks]
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise ExtraTaskError(f"EXTRA_TASKS={extra}: two tasks have the {field} {', '.join(twice)}. Rename one.")
    return MappingProxyType({task.name: task for task in tasks})


def extra_modules(extra: str) -> tuple[Any, ...]:
    """Import the modules that ``extra`` names, comma separated. Raises ``ExtraTaskError``."""
    modules = []
    for name in names(extra):
        try:
            module = import_module(name)
        except ImportError as error:
            raise ExtraTaskError(
                f"EXTRA_TASKS names the module {name}, which cannot be imported ({error}). "
                "Correct the name, or add its folder to PYTHONPATH."
            ) from error
        if not hasattr(module, "TASKS"):
            raise ExtraTaskError(f"EXTRA_TASKS: the module {name} has no tuple TASKS. docs/architecture.md shows one.")
        modules.append(module)
    return tuple(modules)
