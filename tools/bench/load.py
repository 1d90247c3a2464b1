"""Timed requests to a service, over one connection per caller, kept open as Immich keeps its own."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tools.harness.immich_client import HEADERS

TIMEOUT = 300.0


class Connection:
    """One HTTP/1.1 connection. A context manager; not thread-safe."""

    def __init__(self, url: str) -> None:
        """Take the server's ``url``, ``http://host:port``; what follows is left out."""
        address = urlsplit(url)
        self._http = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, float]:
        """Return status, body and seconds from before sending to the last byte of the answer.

        Raise ``OSError`` or ``HTTPException`` if there is no answer.
        """
        started = time.perf_counter()
        self._http.request(method, path, body, HEADERS if body is not None else {})
        response = self._http.getresponse()
        answer = response.read()
        return response.status, answer, time.perf_counter() - started

    def predict(self, body: bytes) -> float:
        """Return the seconds of one ``POST /predict``. Raise ``RuntimeError`` unless it is answered 200."""
        status, answer, seconds = self.ask("POST", "/predict", body)
        if status != 200:
            raise RuntimeError(f"POST /predict was answered {status}: {answer[:300]!r}")
        return seconds


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies and failures of one load."""

    latencies: tuple[tuple[float, ...], ...]
    """Seconds of each answered request, by caller."""
    failures: tuple[str, ...]
    seconds: float
    """From the first request to the last answer."""

    @property
    def all_latencies(self) -> list[float]:
        return list(itertools.chain.from_iterable(self.latencies))

    @property
    def per_second(self) -> float:
        return len(self.all_latencies) / self.seconds


def closed_loop(url: str, bodies: Sequence[Sequence[bytes]], seconds: float) -> Load:
    """Load ``url`` for ``seconds`` with one caller per item of ``bodies``, each sending its own bodies in turn.

    A caller sends the next body when the last is answered, and finishes what it has begun. Runs in threads of this
    process; can be sent to another process.
    """
    latencies: list[list[float]] = [[] for _ in bodies]
    failures: list[str] = []
    started = time.perf_counter()

    def caller(number: int) -> None:
        with Connection(url) as connection:
            for body in itertools.cycle(bodies[number]):
                if time.perf_counter() - started >= seconds:
                    return
                try:
                    latencies[number].append(connection.predict(body))
                except (RuntimeError, OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(tuple(map(tuple, latencies)), tuple(failures), time.perf_counter() - started)
