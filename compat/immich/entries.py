"""The entries of Immich's requests: JSON, checked and resolved to tasks with models and options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compat.immich.answers import clip_answer, faces_answer, ocr_answer, old_ocr_answer
from errors import ErrorCode, ServiceError
from models.catalog import Catalog, ModelKind
from runners.contract import FaceOptions, OcrOptions, Options
from runners.task import Task
from runners.tasks import CLIP_IMAGE, CLIP_TEXT, FACES, OCR, extra_modules
from settings import Settings

M = TypeVar("M", bound=BaseModel)

_OLD_OCR_NAME = "ocr"
"""The model name by which the fork of Immich 1.134 asks for OCR, in the older dialect."""


class Part(BaseModel):
    """The fields common to visual, textual, detection and recognition."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, strict=True, protected_namespaces=())
    model_name: str = Field(alias="modelName", min_length=1, max_length=200)


class _TextOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    language: str | None = Field(None, max_length=35)


class _ScoreOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, strict=True)
    min_score: float | None = Field(None, alias="minScore", ge=0, le=1)


class _OcrDetectionOptions(_ScoreOptions):
    max_resolution: int | None = Field(None, alias="maxResolution", ge=1)


class _Visual(Part):
    pass


class _Textual(Part):
    options: _TextOptions | None = None


class _Scored(Part):
    options: _ScoreOptions | None = None


class _OcrDetection(Part):
    options: _OcrDetectionOptions | None = None


class _Clip(BaseModel):
    model_config = ConfigDict(extra="forbid")
    visual: _Visual | None = None
    textual: _Textual | None = None


class _FacialRecognition(BaseModel):
    model_config = ConfigDict(extra="forbid")
    detection: _Scored | None = None
    recognition: _Scored | None = None


class _Ocr(BaseModel):
    model_config = ConfigDict(extra="forbid")
    detection: _OcrDetection | None = None
    recognition: _Scored | None = None


MAX_RESOLUTION = 10_000
"""Pixels: Immich allows any ``maxResolution`` from 1, so a larger one is taken for this."""
_OLD_OCR_MIN_RECOGNITION_SCORE = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """One task that a request asks for."""

    task: Task[Any]
    model: str
    """The name under which it is kept in memory."""
    answer: Callable[[Any, Any], dict[str, Any]]
    """Returns what the answer's JSON says of the task's result. Called with that result and the picture's ``Header``,
    which is None for a task on text."""
    options: Options = None
    language: str | None = None
    """Of a text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of ``entries``, and how what stands under it is read."""

    key: str
    schema: type[BaseModel]
    read: Callable[[Any, Catalog, Settings], Asked]
    """Takes an instance of ``schema``. Raises ``ServiceError``."""


def load_entries(text: bytes) -> dict[str, Any]:
    """Read the JSON object of the ``entries`` part, by task, not yet understood. Raises ``ServiceError``
    INVALID_REQUEST.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, f"Invalid request format: the entries are not JSON ({error})."
        ) from error
    if not isinstance(entries, dict):
        raise ServiceError(ErrorCode.INVALID_REQUEST, "Invalid request format: the entries are not a JSON object.")
    return entries


def parse_entries(entries: Mapping[str, Any], catalog: Catalog, settings: Settings) -> tuple[Asked, ...]:
    """Return the tasks that ``entries`` ask for.

    Raises ``ServiceError``: INVALID_REQUEST, UNKNOWN_TASK, UNKNOWN_MODEL, SIZE_MISMATCH, MISSING_DETECTION.
    """
    known = entries_by_key(settings.extra_tasks)
    asked = []
    for key, value in entries.items():
        entry = known.get(key)
        if entry is None:
            raise ServiceError(ErrorCode.UNKNOWN_TASK, f"There is no task {key[:100]!r}; known are {', '.join(known)}.")
        asked.append(entry.read(_parse(key, entry.schema, value), catalog, settings))
    return tuple(asked)


def _parse(task: str, model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:50] for part in (task, *first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ServiceError(
                ErrorCode.UNKNOWN_TASK, f"Task {task} has no type {str(first['loc'][-1])[:100]!r}."
            ) from error
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"Invalid request format: {where}: {first['msg']}.") from error


def _clip(clip: _Clip, catalog: Catalog, settings: Settings) -> Asked:
    if clip.visual and clip.textual:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            "One request can ask for clip visual or textual, not both: both answers have one key.",
        )
    if clip.visual:
        return Asked(CLIP_IMAGE, resolve_clip(clip.visual.model_name, catalog, settings), clip_answer)
    if clip.textual:
        language = clip.textual.options.language if clip.textual.options else None
        model = resolve_clip(clip.textual.model_name, catalog, settings)
        return Asked(CLIP_TEXT, model, clip_answer, language=language)
    raise ServiceError(ErrorCode.INVALID_REQUEST, "Task clip needs one of visual and textual.")


def _faces(faces: _FacialRecognition, catalog: Catalog, settings: Settings) -> Asked:
    detection, recognition = faces.detection, faces.recognition
    if detection is None:
        raise ServiceError(
            ErrorCode.MISSING_DETECTION,
            "facial-recognition needs detection: faces are recognised where they were found.",
        )
    if recognition is None:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            "facial-recognition needs recognition too: faces without embeddings are of no use.",
        )
    model = find_model(FACES, _one_model(FACES, detection, recognition), catalog, settings)
    score = detection.options.min_score if detection.options else None
    options = FaceOptions(settings.detection_threshold if score is None else score)
    return Asked(FACES, model, faces_answer, options)


def _ocr(ocr: _Ocr, catalog: Catalog, settings: Settings) -> Asked:
    detection, recognition = ocr.detection, ocr.recognition
    if recognition is None:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "ocr needs recognition: text that is not read is of no use.")
    old_dialect = detection is None and recognition.model_name == _OLD_OCR_NAME
    if detection is None and not old_dialect:
        raise ServiceError(ErrorCode.MISSING_DETECTION, "ocr needs detection: text is read where it was found.")
    asked = _one_model(OCR, detection, recognition) if detection else recognition.model_name
    box = (detection.options if detection else None) or _OcrDetectionOptions()
    given: dict[str, Any] = {
        "min_detection_score": box.min_score,
        "min_recognition_score": recognition.options.min_score if recognition.options else None,
        "max_resolution": None if box.max_resolution is None else min(box.max_resolution, MAX_RESOLUTION),
    }
    default = OcrOptions(min_recognition_score=_OLD_OCR_MIN_RECOGNITION_SCORE) if old_dialect else OcrOptions()
    options = replace(default, **{name: value for name, value in given.items() if value is not None})
    return Asked(OCR, find_model(OCR, asked, catalog, settings), old_ocr_answer if old_dialect else ocr_answer, options)


_BUILT_IN = (
    Entry("clip", _Clip, _clip),
    Entry("facial-recognition", _FacialRecognition, _faces),
    Entry("ocr", _Ocr, _ocr),
)


def entries_by_key(extra: str) -> Mapping[str, Entry]:
    """Return the entries that are understood, by their keys: ours, then those in the tuple ``ENTRIES`` of each module
    that ``extra`` (EXTRA_TASKS) names.
    """
    extras = (entry for module in extra_modules(extra) for entry in module.ENTRIES)
    return {entry.key: entry for entry in (*_BUILT_IN, *extras)}


def _one_model(task: Task[Any], detection: Part, recognition: Part) -> str:
    if detection.model_name != recognition.model_name:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            f"{task.entry} asks for detection by {detection.model_name!r} and recognition by "
            f"{recognition.model_name!r}; here both must be one model.",
        )
    return recognition.model_name


def find_model(task: Task[Any], asked: str, catalog: Catalog, settings: Settings) -> str:
    """Return the name of the model that answers requests for ``asked``, which need not be known where the settings name
    one for all.

    Raises ``ServiceError`` UNKNOWN_MODEL.
    """
    return task.find(catalog, task.override(settings) or asked)


def resolve_clip(asked: str, catalog: Catalog, settings: Settings) -> str:
    """Return the catalog's name of the CLIP model that answers requests for ``asked``.

    Immich sizes its vector column from the name that it asks for, and knows no CN-CLIP name. So ``CLIP_MODEL`` answers
    every name of its own embedding size and no other.

    Raises ``ServiceError``: UNKNOWN_MODEL, SIZE_MISMATCH.
    """
    wanted = catalog.find(ModelKind.CLIP, asked)
    if not settings.clip_model:
        return wanted.name
    serving = catalog.find(ModelKind.CLIP, settings.clip_model)
    if serving.embedding_size != wanted.embedding_size:
        fitting = [
            entry.name for entry in catalog.of_task(ModelKind.CLIP) if entry.embedding_size == serving.embedding_size
        ]
        immich_names = [name for name in fitting if "__" in name] or fitting
        raise ServiceError(
            ErrorCode.SIZE_MISMATCH,
            f"{asked} has {wanted.embedding_size} numbers, but CLIP_MODEL={serving.name} makes "
            f"{serving.embedding_size}. "
            f"In Immich's settings choose a CLIP model of that size: {', '.join(immich_names)}.",
        )
    return serving.name
