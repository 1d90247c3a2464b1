"""An answer to every request, also where nobody waits for it any more."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLIENT_GONE, _FAILED = 499, 500


class AlwaysAnswered:
    """Answers with an empty body where the app ends without an answer: 499 as it returns, 500 as it raises.

    It returns so where its client has gone, and the server throws this answer away. But BentoML counts a request as
    running until the first message of its answer, or its timeout of minutes (``TimeoutMiddleware`` in
    bentoml/_internal/server/http/traffic.py), and a process does not end by itself while one runs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on. What the app raises is raised on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except Exception:  # not where it is cancelled: whoever cancels it answers
            if not begun:
                await Response(status_code=_FAILED)(scope, receive, send)
            raise
        if not begun:
            await Response(status_code=_CLIENT_GONE)(scope, receive, send)
