from __future__ import annotations

import asyncio

from bentoml._internal.server.http.traffic import TimeoutMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runners.bento.empty_answers import AlwaysAnswered

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
ANSWER: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": []},
    {"type": "http.response.body", "body": b"answer"},
]


async def gone(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing, as for a client that has gone."""


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    for message in ANSWER:
        await send(message)


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def fails_halfway(scope: Scope, receive: Receive, send: Send) -> None:
    await send(ANSWER[0])
    raise ZeroDivisionError


async def _receive() -> Message:
    return {"type": "http.disconnect"}


def sent(app: ASGIApp) -> list[Message]:
    """Return what ``app`` sends behind BentoML's own timer, whose timeout is far away."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def run() -> None:
        await asyncio.wait_for(TimeoutMiddleware(AlwaysAnswered(app), timeout=600)(SCOPE, _receive, send), 20)

    try:
        asyncio.run(run())
    except ZeroDivisionError:
        messages.append({"type": "raised"})
    return messages


def test_an_answer_is_passed_on_as_it_is() -> None:
    assert sent(answers) == ANSWER


def test_a_request_without_an_answer_is_over_for_bentoml_too() -> None:
    assert [(one["type"], one.get("status")) for one in sent(gone)] == [
        ("http.response.start", 499),
        ("http.response.body", None),
    ]


def test_an_error_is_answered_and_raised() -> None:
    start, body, raised = sent(fails)
    assert (start["status"], body["body"], raised["type"]) == (500, b"", "raised")


def test_after_the_head_an_error_is_only_raised() -> None:
    assert sent(fails_halfway) == [ANSWER[0], {"type": "raised"}]


def test_who_cancels_answers() -> None:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(600)

    asyncio.run(TimeoutMiddleware(AlwaysAnswered(waits), timeout=0.01)(SCOPE, _receive, send))
    assert [one["status"] for one in messages if "status" in one] == [504]
