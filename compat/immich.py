"""Immich's machine-learning protocol: ``POST /predict``, ``GET /ping``, ``GET /``."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import metrics
from compat.immich_answers import clip_answer, faces_answer, ocr_answer, old_ocr_answer, to_json
from compat.immich_entries import ClipImageTask, ClipTextTask, FacesTask, OcrTask, TaskRequest, parse_entries
from compat.intake import ByteBudget, ClientDisconnect, Form, announced_size, read_form
from errors import ErrorCode, ServiceError
from models.catalog import Catalog
from runners.contract import ImageJob, Runners, TextJob
from runners.pictures import Header, read_header
from settings import Settings

log = logging.getLogger(__name__)

_CLIENT_GONE = 499
"""Status in logs and metrics of a request whose sender went away; nobody receives it."""


@dataclass(slots=True)
class ImmichApi:
    """The protocol over some runners. ``runners`` is set when the service has started; requests before that are answered 503."""

    catalog: Catalog
    settings: Settings
    budget: ByteBudget
    runners: Runners | None = None

    async def root(self, request: Request) -> Response:
        return JSONResponse({"message": "Immich ML"})

    async def ping(self, request: Request) -> Response:
        return PlainTextResponse("pong")

    async def predict(self, request: Request) -> Response:
        """Answer one request, whatever it is, and say in one log line what became of it."""
        started = time.perf_counter()
        fields: dict[str, Any] = {"request_id": request.headers.get("x-request-id", "")[:64] or uuid.uuid4().hex[:16]}
        try:
            work = self._predict(request, fields)
            response = await asyncio.wait_for(work, self.settings.request_timeout)
        except ServiceError as error:
            response = error_response(error, fields)
        except asyncio.TimeoutError:
            seconds = self.settings.request_timeout
            response = error_response(
                ServiceError(ErrorCode.TIMEOUT, f"The request was not answered in {seconds:g} s (REQUEST_TIMEOUT)."), fields
            )
        except ClientDisconnect:
            response = Response(status_code=_CLIENT_GONE)
        except Exception:
            log.exception("A request failed.", extra={"fields": fields})
            response = error_response(ServiceError(ErrorCode.INTERNAL, "The service failed; its log has the details."), fields)
        response.headers["x-request-id"] = fields["request_id"]
        _report(response, time.perf_counter() - started, fields)
        return response

    async def _predict(self, request: Request, fields: dict[str, Any]) -> Response:
        limit = self.settings.max_body_bytes
        async with self.budget.hold(announced_size(request, limit)):
            form = await read_form(request, limit=limit, silence=self.settings.body_timeout)
            if "entries" not in form.parts:
                raise ServiceError(ErrorCode.INVALID_REQUEST, "Invalid request format: the part `entries` is missing.")
            tasks = parse_entries(form.parts["entries"], self.catalog, self.settings)
            fields |= {"task": task_label(tasks), "model": ",".join(dict.fromkeys(task.model for task in tasks))}
            fields["bytes"] = sum(map(len, form.parts.values()))
            answer = await self._answer(tasks, form)
        return Response(to_json(answer), media_type="application/json")

    async def _answer(self, tasks: Sequence[TaskRequest], form: Form) -> dict[str, Any]:
        image, text = form.parts.get("image"), form.parts.get("text")
        if image is None and text is None:
            raise ServiceError(ErrorCode.MISSING_INPUT, "Either image or text must be provided.")
        header = read_header(image, max_pixels=self.settings.max_picture_pixels) if image is not None else None
        runners = self.runners
        if runners is None:
            raise ServiceError(ErrorCode.RUNNER_UNAVAILABLE, "The service is still starting. Try again shortly.")
        answers = await gather_first_error([self._run(runners, task, image, header, text) for task in tasks])
        merged = {key: value for answer in answers for key, value in answer.items()}
        return merged | ({"imageHeight": header.height, "imageWidth": header.width} if header else {})

    async def _run(
        self, runners: Runners, task: TaskRequest, image: bytes | None, header: Header | None, text: bytes | None
    ) -> dict[str, Any]:
        if isinstance(task, ClipTextTask):
            if text is None:
                raise ServiceError(ErrorCode.MISSING_INPUT, "clip textual needs the part `text`.")
            return clip_answer(await runners.clip_text(TextJob(text.decode("utf-8", "replace"), task.model, task.language)))
        if image is None or header is None:
            raise ServiceError(ErrorCode.MISSING_INPUT, f"{task_label([task])} needs the part `image`.")
        if isinstance(task, ClipImageTask):
            return clip_answer(await runners.clip_image(ImageJob(image, task.model)))
        if isinstance(task, FacesTask):
            return faces_answer(await runners.faces(ImageJob(image, task.model, task.options)))
        lines = await runners.ocr(ImageJob(image, task.model, task.options))
        return old_ocr_answer(lines) if task.old_dialect else ocr_answer(lines, header.width, header.height)


async def gather_first_error(work: Sequence[Any]) -> list[Any]:
    """All results, or the first error, with the rest cancelled rather than left to run for nobody."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


_LABELS: dict[type, str] = {ClipImageTask: "clip.visual", ClipTextTask: "clip.textual", FacesTask: "facial-recognition", OcrTask: "ocr"}


def task_label(tasks: Sequence[TaskRequest]) -> str:
    """What a request asks for, for logs and metrics: ``clip.visual``, ``ocr+facial-recognition``, ``none``."""
    return "+".join(sorted({_LABELS[type(task)] for task in tasks})) or "none"


def error_response(error: ServiceError, fields: dict[str, Any]) -> Response:
    """``{"detail": "…", "code": "…"}`` with the error's status."""
    fields["error"] = error.code.value
    fields["detail"] = error.message
    headers = {}
    if error.code.retry_after is not None:
        headers["retry-after"] = str(error.code.retry_after)
    if error.code is ErrorCode.BODY_TIMEOUT:
        headers["connection"] = "close"  # what may yet come of that body would be taken for a request
    return JSONResponse({"detail": error.message, "code": error.code.value}, status_code=error.code.status, headers=headers)


def _report(response: Response, seconds: float, fields: dict[str, Any]) -> None:
    task = fields.get("task", "none")
    metrics.REQUESTS.labels(task, str(response.status_code)).inc()
    metrics.LATENCY.labels(task).observe(seconds)
    level = logging.INFO if response.status_code < 400 else logging.WARNING
    log.log(level, "POST /predict", extra={"fields": {"status": response.status_code, "ms": round(seconds * 1000, 1), **fields}})


def create_app(api: ImmichApi) -> Starlette:
    """The ASGI app to mount at ``/``."""
    return Starlette(
        routes=[
            Route("/", api.root, methods=["GET"]),
            Route("/ping", api.ping, methods=["GET"]),
            Route("/predict", api.predict, methods=["POST"]),
        ]
    )
