"""Eight callers who ask one request after another, and what they lose meanwhile."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence

import httpx

from tools.harness.immich_client import HEADERS


def lost_while(
    url: str, act: Callable[[], object], *, callers: int = 8, bodies: Sequence[bytes]
) -> tuple[int, list[str]]:
    """Have ``callers`` send ``bodies`` in turn to the service at ``url`` while ``act`` runs.

    Returns how many requests were made, and what became of those that were not answered 200.
    """
    stop, lock = threading.Event(), threading.Lock()
    failed: list[str] = []
    made = 0

    def ask(number: int) -> None:
        nonlocal made
        with httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(keepalive_expiry=4)) as client:
            turn = number
            while not stop.is_set():
                try:
                    answer = client.post("/predict", content=bodies[turn % len(bodies)], headers=HEADERS)
                    error = None if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
                except httpx.HTTPError as reason:
                    error = repr(reason)
                with lock:
                    made += 1
                    failed.extend([error] if error else [])
                if error:
                    stop.wait(0.05)  # refused connections come in thousands otherwise
                turn += 1

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        asking = [pool.submit(ask, number) for number in range(callers)]
        try:
            act()
        finally:
            stop.set()
        for one in asking:
            one.result()
    return made, failed
