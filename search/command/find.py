"""``python -m search find QUERY``: the search of ``GET /search``, in the terminal."""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack

import httpx
import numpy as np
import orjson
from pydantic import ValidationError

from errors import ErrorCode, ServiceError
from models.catalog import load_catalog
from search.command.service_client import running_service
from search.command.tables import print_answer, print_model
from search.indexing.predictor import CannotGoOn
from search.query.answers import Mode, SearchRequest
from search.query.find import Embed, find
from search.store.database import Database, open_database
from search.store.models_in_use import models_in_use
from search.store.records import Vector
from search.store.source import Switch
from settings import Settings


async def print_found(options: argparse.Namespace, config: Settings) -> int:
    """Search for ``options.query`` and print the hits; return 0, or 1 where nothing was found.

    The vector of the query is the running service's; without one, text alone is searched, and a note says so. Raises
    ``ServiceError`` as ``search.query.find.find`` does.
    """
    try:
        request = SearchRequest(
            q=" ".join(options.query), mode=Mode(options.mode), owner=options.owner, limit=options.limit
        )
    except ValidationError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"{error.errors()[0]['msg']}.") from error
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(await open_database(config, switch=Switch.NEVER))
        embed = await _open_embed(stack, database, options.url, config)
        answer = await find(database, request, embed, config)
    if options.json:
        print_model(answer)
    else:
        print_answer(answer)
    return 0 if answer.hits else 1


async def _open_embed(stack: AsyncExitStack, database: Database, url: str | None, config: Settings) -> Embed:
    """Return what makes a text its vector. It raises MODEL_UNAVAILABLE where no service answers."""
    try:
        client = await stack.enter_async_context(running_service(url, config, connections=1))
    except CannotGoOn as error:
        reason = str(error)

        async def refuse(text: str) -> Vector:
            raise ServiceError(ErrorCode.MODEL_UNAVAILABLE, reason)

        return refuse

    async def embed(text: str) -> Vector:
        async with database.connection() as connection:
            models = await models_in_use(connection, database.source.value, load_catalog(config.model_catalog), config)
        return await _ask(client, text, models.clip_or_refuse())

    return embed


async def _ask(client: httpx.AsyncClient, text: str, model: str) -> Vector:
    entries = orjson.dumps({"clip": {"textual": {"modelName": model}}})
    try:
        answer = await client.post("/predict", files={"entries": (None, entries), "text": (None, text.encode())})
        if answer.status_code == 200:
            return Vector(model, np.asarray(orjson.loads(answer.json()["clip"]), np.float32))
        reason = str(answer.json()["detail"])
    except (httpx.TransportError, ValueError, KeyError, TypeError) as error:
        reason = f"The service did not answer for the vector of the query ({type(error).__name__})."
    raise ServiceError(ErrorCode.MODEL_UNAVAILABLE, reason)
