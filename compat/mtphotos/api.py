"""mt-photos-ai's HTTP API, for MT Photos itself and for scripts that were made for it. docs/mt-photos.md tells what
differs.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from compat.immich.answers import to_json
from compat.mtphotos.answers import clip_answer, face_models, faces_answer, ocr_answer
from errors import ErrorCode, ServiceError
from models.catalog import Catalog
from runners.cancellation import unless_gone
from runners.contract import FaceOptions, OcrOptions, Options, Runners
from runners.pictures.header import Header
from runners.task import Task
from runners.tasks import CLIP_IMAGE, CLIP_TEXT, FACES, OCR
from serving.attempts import ask_in_turn
from serving.body import Intake
from serving.client_address import client_address
from serving.exchange import Fields, answered, started
from serving.guesses import Guesses
from serving.late_response import EARLY_HEAD
from serving.left_out import note_left_out
from serving.picture_header import header_of
from settings import Settings

_CLIENTS_NAME = "mt-photos-ai"
"""The catalog's alias of the models that answer these clients, who cannot name any."""
_TITLE = "mt-photos-ai服务"
_OCR_HELP = "https://mtmt.tech/docs/advanced/ocr_api"
_FACES_HELP = "https://mtmt.tech/docs/advanced/facial_api"
_OCR_OPTIONS = OcrOptions(min_recognition_score=0.5)
"""RapidOCR's own default (``text_score`` in its ``config.yaml``), which the old service kept."""
_MAX_SIDE = 10_000
"""Pixels of a picture's longer side."""
_MAX_TEXT_BODY = 64 * 1024
"""Bytes of the body around a text query."""

R = TypeVar("R")
Answer = Callable[[Request, Fields], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class MtPhotosServer:
    """The protocol over some runners. ``runners`` is set when the service has started; requests before that are
    answered 503.
    """

    catalog: Catalog
    settings: Settings
    intake: Intake
    guesses: Guesses
    """Wrong keys, of all protocols together."""
    runners: Runners | None = None

    async def check(self, request: Request, fields: Fields) -> dict[str, Any]:
        return {"result": "pass", "title": _TITLE, "help": _OCR_HELP, "device": await started(self.runners).device()}

    async def face_check(self, request: Request, fields: Fields) -> dict[str, Any]:
        return {"title": _TITLE, "link": _FACES_HELP} | face_models(self._model(FACES))

    async def ocr(self, request: Request, fields: Fields) -> dict[str, Any]:
        lines, _ = await self._of_picture(OCR, request, fields, _OCR_OPTIONS, upright=True)
        return ocr_answer(lines)

    async def clip_image(self, request: Request, fields: Fields) -> dict[str, Any]:
        embedding, _ = await self._of_picture(CLIP_IMAGE, request, fields)
        return clip_answer(embedding)

    async def represent(self, request: Request, fields: Fields) -> dict[str, Any]:
        options = FaceOptions(self.settings.detection_threshold)
        faces, model = await self._of_picture(FACES, request, fields, options, upright=True)
        return faces_answer(faces, model)

    async def clip_text(self, request: Request, fields: Fields) -> dict[str, Any]:
        async with self.intake.body(request, largest=_MAX_TEXT_BODY) as body:
            model = self._model(CLIP_TEXT)
            fields |= {"model": model, "bytes": len(body)}
            text, client = _text(body), client_address(request)
            runners, costs = started(self.runners), {CLIP_TEXT.name: CLIP_TEXT.cost(0, 0, None)}
            ask = partial(CLIP_TEXT.of_text, runners, text, model)
            work = ask_in_turn(self.intake.turns, client, costs, runners, ask)
            return clip_answer(await unless_gone(request.receive, work))

    async def restart(self, request: Request, fields: Fields) -> dict[str, Any]:
        return {"result": "unsupported"}

    async def restart_v2(self, request: Request, fields: Fields) -> dict[str, Any]:
        await started(self.runners).unload_models()
        return {"result": "pass"}

    def _model(self, task: Task[Any]) -> str:
        """Return the name of the model that answers ``task`` here."""
        return task.find(self.catalog, task.override(self.settings) or _CLIENTS_NAME)

    async def _of_picture(
        self, task: Task[R], request: Request, fields: Fields, options: Options = None, *, upright: bool = False
    ) -> tuple[R, str]:
        """Run ``task`` on the request's picture, once that is judged by its header. Returns the result, and the name of
        the model that made it. Room in memory is held meanwhile.
        """
        async with self.intake.form(request, {"file": None}) as form:
            picture, model = form.parts.get("file"), self._model(task)
            if picture is None:
                raise ServiceError(ErrorCode.MISSING_INPUT, "The multipart body has no part `file`.")
            fields |= {"model": model, "bytes": len(picture)}
            client = client_address(request)
            header = await self._judge(picture, client)
            runners, cost = started(self.runners), task.cost(header.width, header.height, options)
            ask = partial(task.of_picture, runners, picture, model, options, upright=upright, cost=cost)
            work = ask_in_turn(self.intake.turns, client, {task.name: cost}, runners, ask)
            result = await unless_gone(request.receive, work)
            note_left_out(fields, [result])
            return result, model

    async def _judge(self, picture: bytes, client: str) -> Header:
        """Return the picture's header. Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE.

        Clients know the words for a side that is too long.
        """
        header = await header_of(picture, self.intake.turns, client, max_pixels=sys.maxsize)
        if max(header.width, header.height) > _MAX_SIDE:
            raise ServiceError(ErrorCode.PICTURE_TOO_LARGE, "height or width out of range")
        return await header_of(picture, self.intake.turns, client, max_pixels=self.settings.max_picture_pixels)


def _text(body: bytes) -> str:
    """Read the text of ``{"text": "…"}``. Raises ``ServiceError`` INVALID_REQUEST."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"The body is not JSON ({error}).") from error
    text = asked.get("text") if isinstance(asked, dict) else None
    if not isinstance(text, str):
        raise ServiceError(ErrorCode.INVALID_REQUEST, 'The body must be a JSON object with a text: {"text": "…"}.')
    return text


def error_body(error: ServiceError) -> dict[str, Any]:
    """Return what the old service said of an error, there with status 200."""
    return {"result": [], "msg": error.message}


def routes(server: MtPhotosServer) -> list[Route]:
    """Return the API's routes, without ``GET /`` and ``GET /ping``, which are Immich's too."""
    return [
        _route(server, "POST", "/check", server.check, "check", needs_key=False),
        _route(server, "GET", "/face/check", server.face_check, "face_check", needs_key=False),
        _route(server, "POST", "/ocr", server.ocr, OCR.label),
        _route(server, "POST", "/clip/img", server.clip_image, CLIP_IMAGE.label),
        _route(server, "POST", "/clip/txt", server.clip_text, CLIP_TEXT.label),
        _route(server, "POST", "/represent", server.represent, FACES.label),
        _route(server, "POST", "/restart", server.restart, "restart"),
        _route(server, "POST", "/restart_v2", server.restart_v2, "restart_v2"),
    ]


def _route(
    server: MtPhotosServer, method: str, path: str, answer: Answer, task: str, *, needs_key: bool = True
) -> Route:
    """Return a route. ``task``: for metrics and the log, after ``mtphotos.``."""

    async def work(request: Request, fields: Fields) -> Response:
        if needs_key:
            server.guesses.require_key(request, server.settings.api_auth_key)
        return Response(to_json(await answer(request, fields)), media_type="application/json")

    async def endpoint(request: Request) -> Response:
        return await answered(
            request,
            work,
            line=f"{method} {path}",
            timeout=server.settings.request_timeout,
            error_body=error_body,
            task=f"mtphotos.{task}",
            early_head=EARLY_HEAD,
        )

    return Route(path, endpoint, methods=[method])
