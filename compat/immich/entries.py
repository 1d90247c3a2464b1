"""What Immich asks for: the JSON of the ``entries`` part, checked and resolved to jobs' models and options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from errors import ErrorCode, ServiceError
from models.catalog import Catalog, ModelEntry, Task
from runners.contract import FaceOptions, OcrOptions
from settings import Settings

_OLD_OCR_NAME = "ocr"
"""The model name by which the fork of Immich 1.134 asks for OCR, in the older dialect."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, strict=True, protected_namespaces=())
    model_name: str = Field(alias="modelName", min_length=1, max_length=200)


class _TextOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    language: str | None = Field(None, max_length=35)


class _ScoreOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, strict=True)
    min_score: float | None = Field(None, alias="minScore", ge=0, le=1)


class _OcrDetectionOptions(_ScoreOptions):
    max_resolution: int | None = Field(None, alias="maxResolution", ge=1, le=10_000)


class _Visual(_Part):
    pass


class _Textual(_Part):
    options: _TextOptions | None = None


class _Scored(_Part):
    options: _ScoreOptions | None = None


class _OcrDetection(_Part):
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


# Immich 2.5's own defaults for what a request leaves out.
_OCR_MIN_DETECTION_SCORE = 0.5
_OCR_MIN_RECOGNITION_SCORE = 0.8
_OCR_MAX_RESOLUTION = 736
_OLD_OCR_MIN_RECOGNITION_SCORE = 0.5


@dataclass(frozen=True, slots=True)
class ClipImageTask:
    """Embed the request's picture."""

    model: str


@dataclass(frozen=True, slots=True)
class ClipTextTask:
    """Embed the request's text."""

    model: str
    language: str | None


@dataclass(frozen=True, slots=True)
class FacesTask:
    """Find and recognise the faces of the request's picture."""

    model: str
    options: FaceOptions


@dataclass(frozen=True, slots=True)
class OcrTask:
    """Read the request's picture."""

    model: str
    options: OcrOptions
    old_dialect: bool
    """Answer as the fork of Immich 1.134 expects."""


TaskRequest = ClipImageTask | ClipTextTask | FacesTask | OcrTask

M = TypeVar("M", bound=BaseModel)


def load_entries(text: bytes) -> dict[str, Any]:
    """The JSON object of the ``entries`` part, by task, not yet understood. Raises ``ServiceError`` INVALID_REQUEST."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST, f"Invalid request format: the entries are not JSON ({error})."
        ) from error
    if not isinstance(entries, dict):
        raise ServiceError(ErrorCode.INVALID_REQUEST, "Invalid request format: the entries are not a JSON object.")
    return entries


def parse_entries(entries: Mapping[str, Any], catalog: Catalog, settings: Settings) -> tuple[TaskRequest, ...]:
    """The tasks that ``entries`` ask for.

    Raises ``ServiceError``: INVALID_REQUEST, UNKNOWN_TASK, UNKNOWN_MODEL, SIZE_MISMATCH, MISSING_DETECTION.
    """
    return tuple(_task(name, value, catalog, settings) for name, value in entries.items())


def _task(name: str, value: Any, catalog: Catalog, settings: Settings) -> TaskRequest:
    if name == Task.CLIP.value:
        return _clip(_parse(name, _Clip, value), catalog, settings)
    if name == Task.FACES.value:
        return _faces(_parse(name, _FacialRecognition, value), catalog, settings)
    if name == Task.OCR.value:
        return _ocr(_parse(name, _Ocr, value), catalog, settings)
    known = ", ".join(task.value for task in Task)
    raise ServiceError(ErrorCode.UNKNOWN_TASK, f"There is no task {name[:100]!r}; known are {known}.")


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


def _clip(clip: _Clip, catalog: Catalog, settings: Settings) -> TaskRequest:
    if clip.visual and clip.textual:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            "One request can ask for clip visual or textual, not both: both answers have one key.",
        )
    if clip.visual:
        return ClipImageTask(resolve_clip(clip.visual.model_name, catalog, settings))
    if clip.textual:
        options = clip.textual.options or _TextOptions()
        return ClipTextTask(resolve_clip(clip.textual.model_name, catalog, settings), options.language)
    raise ServiceError(ErrorCode.INVALID_REQUEST, "Task clip needs one of visual and textual.")


def _faces(faces: _FacialRecognition, catalog: Catalog, settings: Settings) -> FacesTask:
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
    asked = _one_model(Task.FACES, detection, recognition)
    model = _overridden(Task.FACES, asked, settings.recognition_model, catalog)
    score = detection.options.min_score if detection.options else None
    return FacesTask(model.name, FaceOptions(settings.detection_threshold if score is None else score))


def _ocr(ocr: _Ocr, catalog: Catalog, settings: Settings) -> OcrTask:
    detection, recognition = ocr.detection, ocr.recognition
    if recognition is None:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "ocr needs recognition: text that is not read is of no use.")
    old_dialect = detection is None and recognition.model_name == _OLD_OCR_NAME
    if detection is None and not old_dialect:
        raise ServiceError(ErrorCode.MISSING_DETECTION, "ocr needs detection: text is read where it was found.")
    asked = _one_model(Task.OCR, detection, recognition) if detection else recognition.model_name
    model = _overridden(Task.OCR, asked, settings.ocr_model, catalog)
    box = (detection.options if detection else None) or _OcrDetectionOptions()
    line = recognition.options or _ScoreOptions()
    least = _OLD_OCR_MIN_RECOGNITION_SCORE if old_dialect else _OCR_MIN_RECOGNITION_SCORE
    options = OcrOptions(
        min_detection_score=_OCR_MIN_DETECTION_SCORE if box.min_score is None else box.min_score,
        min_recognition_score=least if line.min_score is None else line.min_score,
        max_resolution=_OCR_MAX_RESOLUTION if box.max_resolution is None else box.max_resolution,
    )
    return OcrTask(model.name, options, old_dialect)


def _one_model(task: Task, detection: _Part, recognition: _Part) -> str:
    if detection.model_name != recognition.model_name:
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            f"{task.value} asks for detection by {detection.model_name!r} and recognition by "
            f"{recognition.model_name!r}; "
            "here both must be one model.",
        )
    return recognition.model_name


def _overridden(task: Task, asked: str, override: str, catalog: Catalog) -> ModelEntry:
    """The entry of ``override`` if one is set (the name asked for need not be known then), else of ``asked``."""
    return catalog.find(task, override or asked)


def resolve_clip(asked: str, catalog: Catalog, settings: Settings) -> str:
    """The catalog's name of the CLIP model that answers requests for ``asked``.

    Immich sizes its vector column from the name that it asks for, and knows no CN-CLIP name. So ``CLIP_MODEL`` answers
    every name of its own embedding size and no other.

    Raises ``ServiceError``: UNKNOWN_MODEL, SIZE_MISMATCH.
    """
    wanted = catalog.find(Task.CLIP, asked)
    if not settings.clip_model:
        return wanted.name
    serving = catalog.find(Task.CLIP, settings.clip_model)
    if serving.embedding_size != wanted.embedding_size:
        fitting = [entry.name for entry in catalog.of_task(Task.CLIP) if entry.embedding_size == serving.embedding_size]
        immich_names = [name for name in fitting if "__" in name] or fitting
        raise ServiceError(
            ErrorCode.SIZE_MISMATCH,
            f"{asked} has {wanted.embedding_size} numbers, but CLIP_MODEL={serving.name} makes "
            f"{serving.embedding_size}. "
            f"In Immich's settings choose a CLIP model of that size: {', '.join(immich_names)}.",
        )
    return serving.name
