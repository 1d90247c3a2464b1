"""mt-photos-ai's HTTP API, for MT Photos itself and for scripts that were made for it. docs/mt-photos.md tells what
differs.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from compat.immich.answers import to_json
from compat.mtphotos.answers import clip_answer, face_models, faces_answer, ocr_answer
from errors import ErrorCode, ServiceError
from models.catalog import Catalog, Task
from runners.contract import FaceOptions, ImageJob, OcrOptions, Runners, TextJob
from runners.pictures.header import read_header
from serving.body import Intake
from serving.exchange import Fields, answered, started
from serving.key import require_key
from settings import Settings

_CLIENTS_NAME = "mt-photos-ai"
"""The catalog's alias of the models that answer these clients, who cannot name any."""
_TITLE = "mt-photos-ai服务"
_OCR_HELP = "https://mtmt.tech/docs/advanced/ocr_api"
_FACES_HELP = "https://mtmt.tech/docs/advanced/facial_api"
_OCR_OPTIONS = OcrOptions(min_detection_score=0.5, min_recognition_score=0.5, max_resolution=736)
"""RapidOCR's own defaults (``box_thresh``, ``text_score``, ``limit_side_len`` in its ``config.yaml``), which the old
service kept.
"""
_MAX_SIDE = 10_000
"""Pixels of a picture's longer side."""
_MAX_TEXT_BODY = 64 * 1024
"""Bytes of the body around a text query."""

Answer = Callable[[Request, Fields], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class MtPhotosApi:
    """The protocol over some runners. ``runners`` is set when the service has started; requests before that are
    answered 503.
    """

    catalog: Catalog
    settings: Settings
    intake: Intake
    runners: Runners | None = None

    async def check(self, request: Request, fields: Fields) -> dict[str, Any]:
        return {"result": "pass", "title": _TITLE, "help": _OCR_HELP, "device": await started(self.runners).device()}

    async def face_check(self, request: Request, fields: Fields) -> dict[str, Any]:
        return {"title": _TITLE, "link": _FACES_HELP} | face_models(self._model(Task.FACES))

    async def ocr(self, request: Request, fields: Fields) -> dict[str, Any]:
        async with self._picture(request, fields, Task.OCR) as (picture, model):
            return ocr_answer(await started(self.runners).ocr(ImageJob(picture, model, _OCR_OPTIONS, upright=True)))

    async def clip_image(self, request: Request, fields: Fields) -> dict[str, Any]:
        async with self._picture(request, fields, Task.CLIP) as (picture, model):
            return clip_answer(await started(self.runners).clip_image(ImageJob(picture, model)))

    async def represent(self, request: Request, fields: Fields) -> dict[str, Any]:
        options = FaceOptions(self.settings.detection_threshold)
        async with self._picture(request, fields, Task.FACES) as (picture, model):
            return faces_answer(
                await started(self.runners).faces(ImageJob(picture, model, options, upright=True)), model
            )

    async def clip_text(self, request: Request, fields: Fields) -> dict[str, Any]:
        async with self.intake.body(request, largest=_MAX_TEXT_BODY) as body:
            model = self._model(Task.CLIP)
            fields |= {"model": model, "bytes": len(body)}
            return clip_answer(await started(self.runners).clip_text(TextJob(_text(body), model)))

    async def restart(self, request: Request, fields: Fields) -> dict[str, Any]:
        return {"result": "unsupported"}

    async def restart_v2(self, request: Request, fields: Fields) -> dict[str, Any]:
        await started(self.runners).unload_models()
        return {"result": "pass"}

    def _model(self, task: Task) -> str:
        """The catalog's name of the model that answers ``task`` here."""
        chosen = {
            Task.CLIP: self.settings.clip_model,
            Task.FACES: self.settings.recognition_model,
            Task.OCR: self.settings.ocr_model,
        }
        return self.catalog.find(task, chosen[task] or _CLIENTS_NAME).name

    @asynccontextmanager
    async def _picture(self, request: Request, fields: Fields, task: Task) -> AsyncIterator[tuple[bytes, str]]:
        """The request's picture, judged by its header, and the model for it; room in memory is held for the length of
        the block.
        """
        async with self.intake.form(request, {"file": None}) as form:
            picture, model = form.parts.get("file"), self._model(task)
            if picture is None:
                raise ServiceError(ErrorCode.MISSING_INPUT, "The multipart body has no part `file`.")
            fields |= {"model": model, "bytes": len(picture)}
            _judge(picture, self.settings.max_picture_pixels)
            yield picture, model


def _judge(picture: bytes, max_pixels: int) -> None:
    """Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE. Clients know the words for a side that is too
    long.
    """
    header = read_header(picture, max_pixels=sys.maxsize)
    if max(header.width, header.height) > _MAX_SIDE:
        raise ServiceError(ErrorCode.PICTURE_TOO_LARGE, "height or width out of range")
    read_header(picture, max_pixels=max_pixels)


def _text(body: bytes) -> str:
    """The text of ``{"text": "…"}``. Raises ``ServiceError`` INVALID_REQUEST."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"The body is not JSON ({error}).") from error
    text = asked.get("text") if isinstance(asked, dict) else None
    if not isinstance(text, str):
        raise ServiceError(ErrorCode.INVALID_REQUEST, 'The body must be a JSON object with a text: {"text": "…"}.')
    return text


def error_body(error: ServiceError) -> dict[str, Any]:
    """What the old service said of an error, there with status 200."""
    return {"result": [], "msg": error.message}


def routes(api: MtPhotosApi) -> list[Route]:
    """The API's routes but for ``GET /`` and ``GET /ping``, which are Immich's too."""
    return [
        _route(api, "POST", "/check", api.check, "check", needs_key=False),
        _route(api, "GET", "/face/check", api.face_check, "face_check", needs_key=False),
        _route(api, "POST", "/ocr", api.ocr, "ocr"),
        _route(api, "POST", "/clip/img", api.clip_image, "clip.visual"),
        _route(api, "POST", "/clip/txt", api.clip_text, "clip.textual"),
        _route(api, "POST", "/represent", api.represent, "facial-recognition"),
        _route(api, "POST", "/restart", api.restart, "restart"),
        _route(api, "POST", "/restart_v2", api.restart_v2, "restart_v2"),
    ]


def _route(api: MtPhotosApi, method: str, path: str, answer: Answer, task: str, *, needs_key: bool = True) -> Route:
    """``task``: for metrics and the log, after ``mtphotos.``."""

    async def work(request: Request, fields: Fields) -> Response:
        if needs_key:
            require_key(request.headers, api.settings.api_auth_key)
        return Response(to_json(await answer(request, fields)), media_type="application/json")

    async def endpoint(request: Request) -> Response:
        return await answered(
            request,
            work,
            line=f"{method} {path}",
            timeout=api.settings.request_timeout,
            error_body=error_body,
            task=f"mtphotos.{task}",
        )

    return Route(path, endpoint, methods=[method])
