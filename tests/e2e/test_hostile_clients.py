"""Clients that mean harm do not take the service, its memory or its time from others.

Timing is asserted far above what is seen, since these tests share their machine; the figures are printed.
"""

from __future__ import annotations

import concurrent.futures
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tools.bench.processes import process_pss
from tools.harness.hostile import attacked, repeat
from tools.harness.hostile_parts import GOOD_CLIENT, MB, client_at, connect, head_of
from tools.harness.hostile_requests import any_kind, refused_requests
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.pings import Pings
from tools.harness.rendered import Look, jpeg, page
from tools.harness.server import Server

PICTURE = jpeg(page(["发票 A-1", "good picture"], size=(800, 600), look=Look(font_size=48), margin=40))
WORST_PING = 5.0
"""Seconds, on a machine with much other work. On a quiet one it is 0.05; each of these clients took 9 to 21 before."""
HOSTILE_REQUESTS = 10_000


@pytest.fixture
def good(server: Server) -> Iterator[httpx.Client]:
    with client_at(GOOD_CLIENT, server.url) as client:
        yield client


def seconds(work: Callable[[], httpx.Response]) -> float:
    """Return how long ``work`` takes, which must be answered with 200."""
    began = time.perf_counter()
    response = work()
    assert response.status_code == 200, response.text
    return time.perf_counter() - began


def tell(what: str, pings: Pings) -> None:
    assert pings.failed == []
    print(f"{what}: ping p99 {pings.p99 * 1000:.0f} ms, worst {pings.worst * 1000:.0f} ms")  # noqa: T201


def test_a_head_of_50_mb_holds_up_nobody(server: Server) -> None:
    with Pings(server.url) as pings:
        for _ in range(3):
            with connect(server.url) as connection:
                try:
                    connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (50 * MB))
                    answer = connection.recv(1000)
                except OSError:
                    answer = b""
                assert not answer or b" 431 " in answer
    tell("heads of 50 MB", pings)
    assert pings.worst < WORST_PING


def test_senders_who_announce_much_and_send_little_stop_nobody(server: Server, good: httpx.Client) -> None:
    body = multipart(clip_visual(), image=PICTURE + bytes(2 * MB))
    connections: list[socket.socket] = []
    try:
        for _ in range(20):
            connections.append(connect(server.url))
            connections[-1].sendall(head_of(99 * MB) + b"x")
        waits = []
        for _ in range(5):
            for connection in connections:
                connection.sendall(b"x")
            waits.append(seconds(lambda: good.post("/predict", content=body, headers=HEADERS)))
        print(f"slow senders: a good picture takes {max(waits):.2f} s at most")  # noqa: T201
        assert max(waits) < 10
    finally:
        for connection in connections:
            connection.close()


def test_entries_of_87_mb_are_refused_as_they_come(server: Server, good: httpx.Client) -> None:
    body = multipart(raw_entries=b'{"clip":"' + b"x" * (87 * MB) + b'"}', image=PICTURE)
    with Pings(server.url) as pings:
        assert good.post("/predict", content=body, headers=HEADERS).status_code == 413
    tell("entries of 87 MB", pings)
    assert pings.worst < WORST_PING


def test_headers_of_pictures_are_read_beside_the_event_loop(server: Server) -> None:
    with Pings(server.url) as pings, attacked(server.url, "BigTIFFs"):
        time.sleep(4)
    tell("BigTIFFs of 90,000 tags", pings)
    assert pings.p99 < WORST_PING


def test_what_is_open_without_a_key_names_no_host(server: Server) -> None:
    for path in ("/ping/", "/predict/"):
        response = httpx.get(server.url + path, headers={"host": "evil.example"}, follow_redirects=False)
        assert (response.status_code, response.headers.get("location")) == (404, None)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", ["strips", "maxResolution 10000", "long lines", "81 megapixels", "BigTIFFs"])
def test_costly_requests_of_one_client_make_another_wait_little(
    server: Server, good: httpx.Client, hostile: str
) -> None:
    """The aim is five times the quiet time, and pings within 50 ms."""
    kinds = {
        "ocr": multipart(ocr(), image=PICTURE),
        "clip": multipart(clip_visual(), image=PICTURE),
        "faces": multipart(faces(), image=PICTURE),
        "text": multipart(clip_textual(), text="dog"),
    }

    def median(body: bytes, times: int) -> float:
        return statistics.median(
            seconds(lambda: good.post("/predict", content=body, headers=HEADERS)) for _ in range(times)
        )

    quiet = {kind: median(body, 7) for kind, body in kinds.items()}
    with attacked(server.url, hostile), Pings(server.url, every=0.05) as pings:
        time.sleep(5)
        busy = {kind: median(body, 7) for kind, body in kinds.items()}
    factors = {kind: round(busy[kind] / quiet[kind], 1) for kind in kinds}
    tell(f"{hostile}: {factors} times the quiet { ({kind: round(one, 3) for kind, one in quiet.items()}) } s", pings)
    assert max(busy.values()) < 30
    assert pings.p99 < WORST_PING


def test_the_gateway_gives_back_what_large_bodies_took(server: Server) -> None:
    """Once a block of 32 MB was freed, glibc would keep smaller ones for itself, and what is freed between others."""

    def memory() -> float:
        """Return MB of the gateway."""
        return sum(process_pss(process) for process in server.workers("immich_bento"))

    def asked(body: bytes) -> int:
        return httpx.post(server.url + "/predict", content=body, headers=HEADERS, timeout=120).status_code

    noise = np.random.default_rng(1).integers(0, 255, (1800, 1800, 3), dtype=np.uint8)
    large = multipart(clip_visual(), image=jpeg(Image.fromarray(noise)))
    assert len(large) > 2 * MB
    assert asked(large) == 200
    before = memory()
    assert asked(multipart(clip_visual(), image=b"x" * 40 * MB)) == 415
    with concurrent.futures.ThreadPoolExecutor(16) as callers:
        assert set(callers.map(asked, [large] * 32)) == {200}
    time.sleep(1)
    assert memory() - before < 12


@pytest.mark.slow
def test_memory_is_as_before_after_many_hostile_requests(server: Server) -> None:
    chance = random.Random(11)
    clients = [client_at(f"127.0.0.{number}", server.url) for number in (7, 8, 9)]
    kinds = refused_requests(server.url, clients, chance)
    sent: Counter[str] = Counter()

    def one() -> None:
        kind = any_kind(kinds, chance)
        sent[kind] += 1
        kinds[kind]()

    def send(number: int) -> None:
        until = sent.total() + number

        def wait() -> None:
            while sent.total() < until:
                time.sleep(0.1)

        assert repeat(one, 4, wait) == []
        time.sleep(3)

    def memory() -> dict[str, float]:
        """Return MB of each process."""
        return {f"{process.name()} {process.pid}": process_pss(process) for process in server.processes()}

    for kind in kinds.values():
        kind()
    send(1_000)
    before = memory()
    send(HOSTILE_REQUESTS)
    after = memory()
    grown = {name: round(after[name] - before.get(name, 0), 1) for name in after}
    print(f"PSS grew by {grown} MB over {HOSTILE_REQUESTS} hostile requests: {dict(sent)}")  # noqa: T201
    for client in clients:
        client.close()
    assert sum(grown.values()) < 30
    assert "immich_bento_queue_bytes 0.0" in httpx.get(server.url + "/metrics").text
    assert psutil.pid_exists(server.processes()[0].pid)
