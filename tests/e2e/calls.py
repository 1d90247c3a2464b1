"""Requests to a service under test, and waiting for what it does."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from tools.harness.immich_client import HEADERS
from tools.harness.rendered import mixed_pages
from tools.harness.server import Server

PAGE = mixed_pages()[0].data


def post(server: Server, body: bytes) -> httpx.Response:
    """Send ``body`` to ``/predict`` and return the answer."""
    return httpx.post(server.url + "/predict", content=body, headers=HEADERS, timeout=120)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once ``condition`` is true; fail where it is not within so many ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
