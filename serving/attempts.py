"""Asking the runners in turn, and once more when a model that was missing has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from errors import ModelOnItsWay, forget_frames
from runners.contract import Runners
from serving.deadline import deadline_paused
from serving.turns import ClientTurns, Costs

R = TypeVar("R")


async def ask_in_turn(
    turns: ClientTurns, client: str, costs: Costs, runners: Runners, ask: Callable[[], Awaitable[R]]
) -> R:
    """Return the result of ``ask``, which asks ``runners``, called in a turn of ``client`` at those in ``costs``.

    While a model that it needs is on its way, wait outside of the turn, then ask again; that time does not count for
    the request's time limit. Raises what ``ask`` raises otherwise.
    """
    while True:
        try:
            async with turns.turn(client, costs):
                return await ask()
        except ModelOnItsWay as error:
            task, model = error.task, error.model
            forget_frames(error)
        with deadline_paused():
            await runners.arrival(task, model)
