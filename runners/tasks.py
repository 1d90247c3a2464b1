"""The tasks that there are: those of Immich, and those that EXTRA_TASKS brings.

Other code asks the task and has no branches per task. ``compat.immich.entries`` says how each is asked for over
Immich's protocol; CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from models.catalog import Catalog, ModelKind
from runners.contract import Embedding, FaceOptions, Faces, OcrOptions, TextLines
from runners.cost import clip_cost, ocr_cost, text_cost
from runners.task import Loading, Task, files_of
from settings import names

if TYPE_CHECKING:
    from pathlib import Path

    from runners.engine import Session
    from runners.runner import Model

_READ_IN_A_TURN = 16_384
"""Pixels of lines at the network's height that OCR reads of one picture before others have a turn: 0.3 s of a core, or
0.6 where they are so hard to read that each is tried upside down, too.
"""


def _load_clip_image(name: str, using: Loading) -> Model[Any, Embedding]:
    from runners.clip import load_clip_image

    entry = using.catalog.find(ModelKind.CLIP, name)
    files = files_of(entry, using, "visual")
    return load_clip_image(entry.family, files, using.open, max_pixels=using.settings.max_picture_pixels)


def _load_clip_text(name: str, using: Loading) -> Model[Any, Embedding]:
    from runners.clip import load_clip_text

    entry = using.catalog.find(ModelKind.CLIP, name)
    # Who searches waits: importing ViT-B-16's half again would take 0.17 s. Pictures are indexed while nobody looks.
    return load_clip_text(
        entry.name, entry.family, files_of(entry, using, "textual"), partial(using.open, stays_packed=True)
    )


def _load_faces(name: str, using: Loading) -> Model[Any, Faces]:
    from runners.faces import load_faces

    files = files_of(using.catalog.find(ModelKind.FACES, name), using)

    def open_session(path: Path, *, picture_size: tuple[int, int] | None) -> Session:
        # In bf16 the detector's landmarks move by tenths of a pixel, and the vectors of faces cut out by them to a
        # cosine of 0.989.
        exact = path == files["detection/model.onnx"]
        return using.open(path, exact=exact, laned=True, few_shapes=True, picture_size=picture_size)

    return load_faces(
        files,
        open_session,
        max_pixels=using.settings.max_picture_pixels,
        looks_again=using.settings.face_second_look,
    )


def _load_ocr(name: str, using: Loading) -> Model[Any, TextLines]:
    from runners.ocr import load_ocr

    files = files_of(using.catalog.find(ModelKind.OCR, name), using)
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
