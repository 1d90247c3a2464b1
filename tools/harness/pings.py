"""Pings a service all the time, as Immich does now and then, and keeps how long each took."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_TIMEOUT = 30.0


@dataclass
class Pings:
    """A thread that asks ``GET /ping``, each time on a new connection. A context manager."""

    url: str
    every: float = 0.01
    """Seconds from an answer to the next ping."""
    address: str = "127.0.0.2"
    """Address that the pings come from."""
    answered: list[tuple[float, float]] = field(default_factory=list)
    """Time at which each was asked (``time.monotonic``), and the seconds until its answer."""
    failed: list[float] = field(default_factory=list)
    """Time at which each was asked that had no answer."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Pings:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.wait(0.1)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            asked = time.monotonic()
            if self._is_answered():
                self.answered.append((asked, time.monotonic() - asked))
            else:
                self.failed.append(asked)

    def _is_answered(self) -> bool:
        target = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            target.hostname or "127.0.0.1", target.port, timeout=_TIMEOUT, source_address=(self.address, 0)
        )
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read() == b"pong"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def worst(self) -> float:
        """Return the longest time until an answer, in seconds."""
        return max(seconds for _, seconds in self.answered)

    @property
    def p99(self) -> float:
        """Return the 99th percentile of the times, in seconds."""
        return sorted(seconds for _, seconds in self.answered)[int(len(self.answered) * 0.99)]
