"""The running service: whether it answers, and how long each task takes it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from PIL import Image, ImageDraw, ImageFont

from errors import ErrorCode, ServiceError
from immich_bento.doctor.finding import Finding, good, skipped, wrong
from immich_bento.doctor.weights import models_of
from models.catalog import Catalog, ModelKind
from models.places import places
from runners.task import Task
from runners.tasks import BUILT_IN, CLIP_TEXT
from settings import Settings
from settings.addresses import shown_url

_PICTURE = (1440, 1080)
"""Width and height of the picture that is sent, as of Immich's previews."""
_TEXT = "Invoice 2024"
_LONGEST_ANSWER = 500
"""Characters of an error that are shown."""
_MODEL_AWAY = frozenset({ErrorCode.MODEL_UNAVAILABLE.value, ErrorCode.MODEL_ON_ITS_WAY.value})


def check_answers(catalog: Catalog, config: Settings, url: str | None, wait: float) -> Iterator[Finding]:
    """Yield whether the service at ``url`` (None: this machine's) answers, and one finding for each task.

    Each task is asked twice, as the first request loads its model. ``wait``: seconds for one answer.
    """
    address = (url or config.own_url).rstrip("/")
    with httpx.Client(base_url=address, headers=_key(config), timeout=wait, trust_env=False) as client:
        finding = _ping(client, shown_url(address, config.url_key))
        yield finding
        if finding.level.value != "good":
            return
        yield _ready(client)
        for task in BUILT_IN:
            yield _time(client, task, catalog, config, told_above=url is None)


def _key(config: Settings) -> dict[str, str]:
    key = config.api_auth_key.get_secret_value().strip() if config.api_auth_key else ""
    return {"api-key": key} if key else {}


def _ping(client: httpx.Client, address: str) -> Finding:
    start = "Start it (`immich-bento serve`, or the container), or name it with --url."
    try:
        answer = client.get("/ping")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return wrong("service", f"nothing answers at {address} ({type(error).__name__})", start)
    if answer.status_code != 200 or answer.text.strip() != "pong":
        return wrong("service", f"{address} answers /ping with {answer.status_code}: it is another server", start)
    return good("service", f"answers at {address}")


def _ready(client: httpx.Client) -> Finding:
    try:
        status = client.get("/readyz").status_code
    except httpx.HTTPError as error:
        return wrong("ready", f"/readyz is not answered ({type(error).__name__})", "Look into the service's log.")
    if status == 200:
        return good("ready", "the gateway, every runner, and the files of every model that a setting names")
    return wrong(
        "ready", f"/readyz answers {status}", "A model is on its way, or a process is being started: see the log."
    )


def _time(client: httpx.Client, task: Task[Any], catalog: Catalog, config: Settings, *, told_above: bool) -> Finding:
    """Return how long ``task`` takes. ``told_above``: models of settings that are not here have a finding already."""
    subject = f"task {task.label}"
    model = _model(task, catalog, config)
    if model is None:
        return skipped(
            subject,
            "no model for it is here",
            "It is fetched when it is first asked for. A setting that names one has it fetched at the start.",
        )
    files = _form(task, model)
    try:
        seconds = [_ask(client, files) for _ in range(2)]
    except (httpx.HTTPError, ServiceErrorAnswer) as error:
        lacks = isinstance(error, ServiceErrorAnswer) and error.code in _MODEL_AWAY
        if lacks and told_above and model in models_of(task, config) and task.kind is not None:
            entry = catalog.find(task.kind, model)
            if not _usable(model, task.kind, catalog, config):
                return wrong(subject, f"{entry.name} is not here", f"See `model {entry.name}` above.")
        said = str(error) or type(error).__name__
        return wrong(subject, f"{model}: {said}", "Look for the request in the service's log.")
    return good(subject, f"{model}: first {seconds[0] * 1000:.0f} ms, then {seconds[1] * 1000:.0f} ms")


def _model(task: Task[Any], catalog: Catalog, config: Settings) -> str | None:
    """Return the model that a setting names for ``task``, or one that is here; None where asking would download one."""
    named: Sequence[str] = models_of(task, config)
    if named or task.route(config) == "upstream":
        return named[0] if named else {"clip": "ViT-B-32__openai"}.get(task.entry)
    if task.kind is None:
        return None
    return next(
        (entry.name for entry in catalog.of_task(task.kind) if _usable(entry.name, task.kind, catalog, config)), None
    )


def _usable(name: str, kind: ModelKind, catalog: Catalog, config: Settings) -> bool:
    try:
        return any(place.whole for place in places(catalog.find(kind, name), config))
    except (ServiceError, OSError):
        return False


class ServiceErrorAnswer(Exception):
    """The service answered with an error; the message is its own."""

    def __init__(self, answer: httpx.Response) -> None:
        try:
            document = answer.json()
            said, self.code = str(document["detail"]), str(document.get("code", ""))
        except (ValueError, KeyError, TypeError, AttributeError):  # another server's
            said, self.code = answer.text, ""
        super().__init__(f"{answer.status_code}: {said[:_LONGEST_ANSWER]}")


def _ask(client: httpx.Client, files: Mapping[str, Any]) -> float:
    """Return the seconds until the answer. Raises ``ServiceErrorAnswer``, ``httpx.HTTPError``."""
    began = time.perf_counter()
    answer = client.post("/predict", files=files)
    seconds = time.perf_counter() - began
    if answer.status_code != 200:
        raise ServiceErrorAnswer(answer)
    return seconds


def _form(task: Task[Any], model: str) -> dict[str, Any]:
    part = {"modelName": model}
    entries = (
        {"clip": {task.label.partition(".")[2]: part}}
        if task.entry == "clip"
        else {task.entry: {"detection": part, "recognition": part}}
    )
    content = {"text": (None, _TEXT)} if task is CLIP_TEXT else {"image": ("blob", _picture())}
    return {"entries": (None, json.dumps(entries)), **content}


def _picture() -> bytes:
    """Return a JPEG with one line of text on it."""
    picture = Image.new("RGB", _PICTURE, "white")
    ImageDraw.Draw(picture).text((200, 400), _TEXT, "black", font=ImageFont.load_default(size=96))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
