"""Immich's machine-learning protocol: ``POST /predict``, ``GET /ping``, ``GET /``; and ``GET /upstreams`` for
people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from compat.immich.answers import to_json
from compat.immich.entries import Asked, load_entries, parse_entries
from compat.upstream import routing
from compat.upstream.health import UpstreamDown
from compat.upstream.pools import Upstreams
from errors import ErrorCode, ServiceError
from models.catalog import Catalog
from runners.cancellation import gather_first_error, unless_gone
from runners.contract import Ask, PictureJob, Runners
from runners.pictures.header import Header
from serving import status_page
from serving.attempts import ask_in_turn
from serving.body import Intake
from serving.client_address import client_address
from serving.exchange import Fields, answered, detail_and_code, started
from serving.guesses import Guesses
from serving.late_response import EARLY_HEAD
from serving.left_out import note_left_out
from serving.multipart import Form
from serving.no_route import answer_no_route
from serving.origin import refuse_other_sites
from serving.picture_header import header_of
from settings import Settings

_MAX_TEXT = 64 * 1024
_PARTS = {"entries": _MAX_TEXT, "text": _MAX_TEXT, "image": None}
"""Parts of a request, and the most bytes of each."""


@dataclass(frozen=True, slots=True)
class _Input:
    """The input of the tasks of one request."""

    client: str
    """Who takes a turn: see ``serving.client_address``."""
    image: bytes | None
    header: Header | None
    """Of the image."""
    text: bytes | None
    fields: Fields
    """What the request's log line says."""


@dataclass(slots=True)
class ImmichServer:
    """The protocol over some runners, and over other servers for the tasks that are routed to those.

    ``runners`` and ``upstreams`` are set when the service has started; requests before that are answered 503.
    """

    catalog: Catalog
    settings: Settings
    intake: Intake
    guesses: Guesses
    """Wrong keys, of all protocols together."""
    runners: Runners | None = None
    upstreams: Upstreams | None = None

    async def root(self, request: Request) -> Response:
        """Answer ``GET /``: a page for browsers, a sentence for Immich."""
        return await status_page.root(request, self.runners)

    async def ping(self, request: Request) -> Response:
        """Answer ``pong``, by which Immich sees that the service runs."""
        return PlainTextResponse("pong")

    async def predict(self, request: Request) -> Response:
        """Answer one request, whatever it is, and say in one log line what became of it."""
        return await answered(
            request,
            self._predict,
            line="POST /predict",
            timeout=self.settings.request_timeout,
            early_head=EARLY_HEAD,
        )

    async def upstream_state(self, request: Request) -> Response:
        """Answer where each task is routed and how the upstreams do; their URLs only to who has the key."""
        try:
            with_urls = self.guesses.has_key(request, self.settings.api_auth_key)
        except ServiceError as error:
            return JSONResponse(detail_and_code(error), error.code.status)
        state = self.upstreams.state(with_urls=with_urls) if self.upstreams else {"upstreams": [], "waiting": 0}
        return JSONResponse(
            {"routes": routing.routes(self.settings), "fallback": self.settings.upstream_fallback, **state}
        )

    async def _predict(self, request: Request, fields: Fields) -> Response:
        refuse_other_sites(request.headers)
        if self.settings.auth_required == "all":
            self.guesses.require_key(request, self.settings.api_auth_key)
        async with self.intake.form(request, _PARTS) as form:
            if "entries" not in form.parts:
                raise ServiceError(ErrorCode.INVALID_REQUEST, "Invalid request format: the part `entries` is missing.")
            text = form.parts["entries"]
            routed = routing.split(load_entries(text), text, request.headers, self.settings)
            asked = parse_entries(routed.here, self.catalog, self.settings)
            labels = {one.task.label for one in asked} | routing.labels(routed.upstream, self.settings)
            fields["task"] = "+".join(sorted(labels)) or "none"
            fields["model"] = ",".join(dict.fromkeys(one.model for one in asked))
            fields["bytes"] = sum(map(len, form.parts.values()))
            answer = await unless_gone(request.receive, self._answer(asked, routed, request, form, fields))
        return Response(to_json(answer), media_type="application/json")

    async def _answer(
        self, asked: Sequence[Asked], routed: routing.Routed, request: Request, form: Form, fields: Fields
    ) -> dict[str, Any]:
        image, text = form.parts.get("image"), form.parts.get("text")
        if image is None and text is None:
            raise ServiceError(ErrorCode.MISSING_INPUT, "Either image or text must be provided.")
        client, header = client_address(request), None
        if image is not None:
            most = self.settings.max_picture_pixels
            header = await header_of(image, self.intake.turns, client, max_pixels=most)
        given = _Input(client, image, header, text, fields)
        work = [self._run_all(asked, given)]
        work += [self._ask_upstream(part, given) for part in routed.upstream]
        merged = merge(await gather_first_error(work))
        return merged | ({"imageHeight": header.height, "imageWidth": header.width} if header else {})

    async def _ask_upstream(self, routed: routing.Part, given: _Input) -> dict[str, Any]:
        upstreams, fields = started(self.upstreams), given.fields
        parts = {"entries": routed.json, "image": given.image, "text": given.text}
        present = {name: part for name, part in parts.items() if part is not None}
        request_id = {"x-request-id": fields["request_id"]}
        try:
            answer = await upstreams.ask(routed.servers, present, routed.entries, request_id)
        except UpstreamDown as error:
            if not self.settings.upstream_fallback:
                raise
            fields["instead_of_upstream"] = error.message
            return await self._run_all(parse_entries(routed.entries, self.catalog, self.settings), given)
        fields["upstream"] = ",".join(filter(None, (fields.get("upstream"), answer.upstream)))
        return answer.tasks

    async def _run_all(self, asked: Sequence[Asked], given: _Input) -> dict[str, Any]:
        """Run all tasks at the same time on the runners, and merge their answers."""
        of_picture = [one for one in asked if one.task.input == "picture"]
        work = [self._picture(of_picture, given)] if of_picture else []
        work += [self._text(one, given) for one in asked if one.task.input == "text"]
        return merge(await gather_first_error(work))

    async def _picture(self, asked: Sequence[Asked], given: _Input) -> dict[str, Any]:
        """Run the tasks on the picture, which is sent to the runners once. Raises ``ServiceError`` MISSING_INPUT."""
        image, header = given.image, given.header
        if image is None or header is None:  # wherever there is an image, its header was read
            raise _missing(asked[0], "image")
        runners = started(self.runners)
        costs = {one.task.name: one.task.cost(header.width, header.height, one.options) for one in asked}
        asks = tuple(Ask(one.task.name, one.model, one.options, costs[one.task.name]) for one in asked)
        ask = partial(runners.picture, PictureJob(image, asks))
        results = await ask_in_turn(self.intake.turns, given.client, costs, runners, ask)
        note_left_out(given.fields, results.values())
        return merge([one.answer(results[one.task.name], header) for one in asked])

    async def _text(self, asked: Asked, given: _Input) -> dict[str, Any]:
        """Run one task on the text. Raises ``ServiceError``: MISSING_INPUT, INVALID_REQUEST."""
        if given.text is None:
            raise _missing(asked, "text")
        runners = started(self.runners)
        costs = {asked.task.name: asked.task.cost(0, 0, None)}  # a text has no width, height or options
        ask = partial(asked.task.of_text, runners, _decoded(given.text), asked.model, asked.language)
        return asked.answer(await ask_in_turn(self.intake.turns, given.client, costs, runners, ask), None)


def _missing(asked: Asked, part: str) -> ServiceError:
    return ServiceError(ErrorCode.MISSING_INPUT, f"{asked.task.label} needs the part `{part}`.")


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"The part `text` is not UTF-8 ({error.reason}).") from error


def merge(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one answer that has the keys of all ``answers``; of a key that several have, the last one's value."""
    return {key: value for answer in answers for key, value in answer.items()}


def create_app(server: ImmichServer, others: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the ASGI app to mount at ``/``. ``others``: routes of further protocols."""
    app = Starlette(
        routes=[
            Route("/", server.root, methods=["GET"]),
            Route("/ping", server.ping, methods=["GET"]),
            Route("/predict", server.predict, methods=["POST"]),
            Route("/upstreams", server.upstream_state, methods=["GET"]),
            *others,
        ],
        exception_handlers={404: answer_no_route, 405: answer_no_route},
    )
    app.router.redirect_slashes = False  # a redirect would name whatever host the client has named
    return app
