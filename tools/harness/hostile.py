"""Clients that mean harm, each from an address of its own on loopback, for tests and for ``tools.soak``.

``python -m tools.harness.hostile NAME URL`` is one of them, until it is ended. They run in a process of their own, at
the lowest priority, so that what is measured beside them is the service and not this Python.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx

from tools.harness.hostile_parts import ADDRESS, MB, big_tiff, client_at, connect, head_of, long_lines, strip
from tools.harness.hostile_requests import any_kind, refused_requests
from tools.harness.immich_client import HEADERS, clip_visual, faces, multipart, ocr
from tools.harness.rendered import Look, jpeg, page
from tools.harness.server import ROOT

_SLOW_SENDERS = 20


@dataclass(frozen=True, slots=True)
class Hostile:
    """One kind of client that means harm."""

    threads: int
    begin: Callable[[str], Callable[[], object]]
    """Takes the service's URL, and returns what each thread repeats."""


def _posting(body: Callable[[], bytes]) -> Callable[[str], Callable[[], object]]:
    def begin(url: str) -> Callable[[], object]:
        client, content = client_at(ADDRESS, url), body()
        return lambda: client.post("/predict", content=content, headers=HEADERS)

    return begin


def _heads(url: str) -> Callable[[], object]:
    head = b"GET /ping HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (50 * MB)

    def send() -> None:
        with connect(url) as connection:
            connection.sendall(head)
            connection.recv(1000)

    return send


def _slow_senders(url: str) -> Callable[[], object]:
    connections: list[socket.socket] = []

    def send() -> None:
        while len(connections) < _SLOW_SENDERS:
            connections.append(connect(url))
            connections[-1].sendall(head_of(99 * MB) + b"x")
        for connection in list(connections):
            try:
                connection.sendall(b"x")
            except OSError:
                connections.remove(connection)
                connection.close()
        time.sleep(5)

    return send


def _all_refused(url: str) -> Callable[[], object]:
    chance = random.Random(11)
    kinds = refused_requests(url, [client_at(f"127.0.0.{number}", url) for number in (7, 8, 9)], chance)
    return lambda: kinds[any_kind(kinds, chance)]()


HOSTILE: Mapping[str, Hostile] = {
    "99 MB that are no picture": Hostile(16, _posting(lambda: multipart(clip_visual(), image=bytes(99 * 10**6)))),
    "entries of 87 MB": Hostile(
        4, _posting(lambda: multipart(raw_entries=b'{"clip":"' + b"x" * (87 * MB) + b'"}', image=b"x"))
    ),
    "slow senders": Hostile(1, _slow_senders),
    "heads of 50 MB": Hostile(2, _heads),
    "strips": Hostile(16, _posting(lambda: multipart(ocr(), image=strip()))),
    "maxResolution 10000": Hostile(16, _posting(lambda: multipart(ocr(max_resolution=10_000), image=strip(600, 400)))),
    "long lines": Hostile(
        16, _posting(lambda: multipart(ocr(max_resolution=10_000, min_detection=0.1), image=long_lines()))
    ),
    "81 megapixels": Hostile(
        16,
        _posting(
            lambda: multipart(
                {**faces(), **ocr()}, image=jpeg(page(["x"], size=(9000, 9000), look=Look(font_size=48), margin=40))
            )
        ),
    ),
    "BigTIFFs": Hostile(8, _posting(lambda: multipart(clip_visual(), image=big_tiff()))),
    "refused requests of all kinds": Hostile(4, _all_refused),
}
"""By what they send."""


@contextlib.contextmanager
def attacked(url: str, name: str) -> Iterator[None]:
    """Have the hostile client ``name`` at work on the service at ``url``, in another process, for the length of the
    block.

    Raises ``AssertionError`` where a request of it was answered otherwise than it should be.
    """
    command = (sys.executable, "-m", "tools.harness.hostile", name, url)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            process.stdin.close()  # it ends then, and also where this process is killed
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()  # one that has not come to reading yet; nothing, where it has ended
        assert process.stderr is not None
        assert process.wait() != 1, process.stderr.read()


def repeat(work: Callable[[], object], threads: int, until: Callable[[], object]) -> list[AssertionError]:
    """Repeat ``work`` in so many threads until ``until`` returns; return what was answered wrongly.

    What the service cuts off is tried again a moment later.
    """
    stop = threading.Event()
    failures: list[AssertionError] = []

    def run() -> None:
        while not stop.is_set() and not failures:
            try:
                work()
            except (httpx.HTTPError, OSError):
                stop.wait(0.05)
            except AssertionError as failure:
                failures.append(failure)

    for _ in range(threads):
        threading.Thread(target=run, daemon=True).start()
    until()
    stop.set()
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Be one hostile client until standard input ends; return 1 if a request was answered wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tools.harness.hostile", description="A client that means harm.")
    parser.add_argument("name", choices=HOSTILE)
    parser.add_argument("url")
    options = parser.parse_args(arguments)
    os.nice(19)
    hostile = HOSTILE[options.name]
    failures = repeat(hostile.begin(options.url), hostile.threads, sys.stdin.read)
    for failure in failures[:1]:
        sys.stderr.write(f"{options.name}: {failure}\n")
    sys.stderr.flush()
    os._exit(1 if failures else 0)  # without waiting for requests that are on their way


if __name__ == "__main__":
    sys.exit(main())
