"""The running service, as the command line finds and asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from errors import ServiceError
from models.catalog import load_catalog
from search.indexing.predictor import CannotGoOn
from search.store.database import Database
from search.store.models_in_use import ModelsInUse, models_in_use
from settings import Settings
from settings.addresses import shown_url

TASKS = ("ocr", "clip")


@asynccontextmanager
async def running_service(url: str | None, config: Settings, *, connections: int) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client, which sends the key, of the service at ``url`` (default: this machine's).

    Raises ``CannotGoOn`` if none answers.
    """
    address = (url or config.own_url).rstrip("/")
    shown = shown_url(address, config.url_key)
    key = config.api_auth_key.get_secret_value().strip() if config.api_auth_key else ""
    try:
        client = httpx.AsyncClient(
            base_url=address,
            headers={"api-key": key} if key else {},
            timeout=httpx.Timeout(config.request_timeout + 30, connect=10),
            limits=httpx.Limits(max_connections=connections + 2),
            trust_env=False,  # a proxy is for the world outside
        )
    except httpx.InvalidURL as error:
        raise CannotGoOn(f"{shown} is no address: {error}.") from error
    async with client:
        try:
            answer = await client.get("/ping")
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            why = (
                f"No service answers at {shown} ({type(error).__name__}). Start it first (`make serve`), or name it "
                "with --url."
            )
            raise CannotGoOn(why) from error
        if answer.text.strip() != "pong":
            raise CannotGoOn(
                f"What answers at {shown} is another server than immich-bento's ({answer.status_code} for /ping)."
            )
        yield client


async def models_to_ask(
    client: httpx.AsyncClient | None, database: Database, config: Settings, wanted: Sequence[str] | None
) -> tuple[dict[str, str], list[str]]:
    """Return the model for each task of ``wanted`` (None: of all that can be done), and what to tell the person.

    The choice of the service at ``client`` (``GET /stats``) counts; where it tells none, for lack of the key for
    instance, or there is no service, that of our own settings. Raises ``CannotGoOn`` if a wanted task has no model.
    """
    told = await _told(client) if client is not None else {}
    async with database.connection() as connection:
        ours = await models_in_use(connection, database.source.value, load_catalog(config.model_catalog), config)
    names = {"ocr": told.get("ocr") or ours.ocr, "clip": told.get("clip") or ours.clip}
    models = {task: name for task in wanted or TASKS if (name := names[task]) is not None}
    missing = [task for task in wanted or TASKS if task not in models]
    if not missing:
        return models, []
    if wanted or not models:
        raise CannotGoOn(" ".join(_refusal(ours, task) for task in missing))
    return models, [
        "Pictures are read, but not embedded: no CLIP model is chosen (CLIP_MODEL), here or in the service."
    ]


def _refusal(ours: ModelsInUse, task: str) -> str:
    """Return why there is no model for ``task``, as a sentence."""
    try:
        name = ours.clip_or_refuse() if task == "clip" else ours.ocr_or_refuse()
    except ServiceError as error:
        return error.message
    return f"The {task} model {name} is not in use."


async def _told(client: httpx.AsyncClient) -> dict[str, str | None]:
    try:
        answer = await client.get("/stats")
        return dict(answer.json()["models"]) if answer.status_code == 200 else {}
    except (httpx.TransportError, ValueError, KeyError, TypeError):
        return {}
