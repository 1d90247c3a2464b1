"""What jobs travel in between the processes of the service, and on what connections."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Parcel:
    """One job, result or answer on its way between processes. Opaque to pydantic, which would take a dataclass apart."""

    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "object", "description": "A pickled job or result of runners/contract.py"}


class CloseEachConnection:
    """Ends a runner's connection after each answer.

    BentoML's client keeps connections for 15 s and its server for 5 s, so a request can be sent into a connection that is just
    being closed, and a POST is not repeated. A new connection to a Unix socket costs some tenths of a millisecond.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)
