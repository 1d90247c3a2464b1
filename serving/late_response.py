"""An answer whose head is sent before the rest of it is known.

Immich waits 300 s for the head of an answer, then as long again for each piece of its body, and gives a photo up for
good after one failed request. While a model is fetched, an answer can take longer than that: then the head goes first,
and a blank now and again, which JSON allows before a value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_BLANK = b" "


@dataclass(frozen=True, slots=True)
class EarlyHead:
    """The times at which the head of an answer is sent that is not known yet, and blanks after it."""

    after: float = 100.0
    """Seconds from the beginning of a request that waits for a model."""
    blank_every: float = 60.0
    """Seconds between blanks."""


EARLY_HEAD = EarlyHead()


class LateResponse(Response):
    """Sends the head of a JSON answer with status 200 at once, blanks while ``outcome`` is not done, then its body.

    If the outcome has another status, that can no longer be told. The body is then not ended, on which the server
    closes the connection: no client may take an error for an answer.
    """

    def __init__(
        self,
        outcome: asyncio.Future[Response],
        *,
        blank_every: float,
        headers: Mapping[str, str],
        then: Callable[[Response], None],
    ) -> None:
        """``blank_every``: seconds. ``then`` is called with the outcome."""
        self.status_code = 200
        self.media_type = "application/json"
        self.background = None
        self.init_headers(headers)  # without a body, and thus without content-length
        self._outcome, self._blank_every, self._then = outcome, blank_every, then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Cancelled, it cancels the work."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while not (await asyncio.wait((self._outcome,), timeout=self._blank_every))[0]:
                await send({"type": "http.response.body", "body": _BLANK, "more_body": True})
        finally:
            self._outcome.cancel()  # nothing, where it is done
        response = self._outcome.result()
        self._then(response)
        if response.status_code == 200:
            await send({"type": "http.response.body", "body": response.body})
