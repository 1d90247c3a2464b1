"""Pictures and bodies that are odd, broken or meant to harm: each is answered, and the next good one too."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tools.harness.immich_client import HEADERS, clip_visual, faces, multipart, ocr
from tools.harness.rendered import Look, jpeg, page
from tools.harness.server import Server

TASKS: dict[str, Any] = {**clip_visual(), **faces("buffalo_s", 0.3), **ocr(min_recognition=0.3)}
GOOD = jpeg(page(["正常图片 good"], size=(320, 200), look=Look(font_size=32), margin=20))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_bomb(side: int) -> bytes:
    """Return a PNG of a few kB that says it is ``side`` x ``side``, and whose compressed data really begins like it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes(side * 50), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def animation(form: str) -> bytes:
    frames = [Image.new("RGB", (90, 60), color) for color in ("red", "green", "blue")]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)


def gradient(width: int, height: int) -> Image.Image:
    row = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.broadcast_to(row, (height, width)).copy())


def palette_with_alpha() -> Image.Image:
    image = gradient(80, 60).convert("RGB").quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


ODD_BUT_FINE: dict[str, Callable[[], tuple[bytes, int, int]]] = {
    "animated GIF": lambda: (animation("GIF"), 90, 60),
    "animated WebP": lambda: (animation("WEBP"), 90, 60),
    "CMYK JPEG": lambda: (encoded(Image.new("CMYK", (70, 50), (10, 200, 30, 5)), "JPEG"), 70, 50),
    "16-bit grey PNG": lambda: (encoded(Image.fromarray(np.full((50, 70), 40_000, np.uint16)), "PNG"), 70, 50),
    "16-bit TIFF": lambda: (encoded(Image.fromarray(np.full((50, 70), 40_000, np.uint16)), "TIFF"), 70, 50),
    "palette with alpha": lambda: (encoded(palette_with_alpha(), "PNG"), 80, 60),
    "one bit": lambda: (encoded(gradient(80, 60).convert("1"), "PNG"), 80, 60),
    "grey with alpha": lambda: (encoded(gradient(80, 60).convert("LA"), "PNG"), 80, 60),
    "1x1": lambda: (encoded(Image.new("RGB", (1, 1)), "PNG"), 1, 1),
    "1x5000": lambda: (encoded(Image.new("RGB", (1, 5000)), "PNG"), 1, 5000),
    "9000x1000": lambda: (encoded(gradient(9000, 1000).convert("RGB"), "JPEG"), 9000, 1000),
    "progressive JPEG": lambda: (encoded(gradient(300, 200).convert("RGB"), "JPEG", progressive=True), 300, 200),
}

UNREADABLE: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "text named .jpg": lambda: "这是文本, not a picture\n".encode() * 200,
    "truncated JPEG": lambda: GOOD[: len(GOOD) // 2],
    "JPEG header alone": lambda: GOOD[:200],
    "truncated PNG": lambda: encoded(gradient(300, 200), "PNG")[:300],
    "zip": lambda: b"PK\x03\x04" + bytes(1000),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:1/"/></svg>',
    "URL": lambda: b"http://127.0.0.1:1/secret.jpg",
}


@pytest.fixture(autouse=True)
def _nothing_dies_and_the_next_good_request_is_answered(client: httpx.Client, server: Server) -> Iterator[None]:
    before = {process.pid for process in server.processes()}
    yield
    response = client.post("/predict", content=multipart(TASKS, image=GOOD), headers=HEADERS)
    assert response.status_code == 200, response.text
    assert {process.pid for process in server.processes()} == before


@pytest.mark.parametrize("kind", ODD_BUT_FINE)
def test_odd_pictures_are_answered_in_their_own_size(kind: str, client: httpx.Client) -> None:
    data, width, height = ODD_BUT_FINE[kind]()
    response = client.post("/predict", content=multipart(TASKS, image=data), headers=HEADERS)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["imageWidth"], answer["imageHeight"]) == (width, height)
    assert np.linalg.norm(json.loads(answer["clip"])) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("task", [clip_visual(), faces(), ocr()], ids=["clip", "faces", "ocr"])
def test_what_cannot_be_read_is_415(kind: str, task: dict[str, Any], client: httpx.Client) -> None:
    response = client.post("/predict", content=multipart(task, image=UNREADABLE[kind]()), headers=HEADERS)
    assert (response.status_code, response.json()["code"]) == (415, "unreadable_picture")


@pytest.mark.parametrize("task", [clip_visual(), faces(), ocr()], ids=["clip", "faces", "ocr"])
def test_a_bomb_is_refused_by_its_header(task: dict[str, Any], client: httpx.Client) -> None:
    bomb = png_bomb(30_000)
    assert len(bomb) < 10_000
    response = client.post("/predict", content=multipart(task, image=bomb), headers=HEADERS)
    assert (response.status_code, response.json()["code"]) == (413, "picture_too_large")


def test_a_png_that_holds_less_than_it_says_is_415(client: httpx.Client) -> None:
    response = client.post("/predict", content=multipart(clip_visual(), image=png_bomb(5_000)), headers=HEADERS)
    assert (response.status_code, response.json()["code"]) == (415, "unreadable_picture")


def _raw_request(server: Server, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall((head + "\r\n").encode())
    return connection


def _read_answer(connection: socket.socket) -> tuple[int, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, "the connection was closed"
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split(b" ", 2)[1]), body


def test_a_body_over_the_limit_sent_slowly_is_refused_at_once(server: Server) -> None:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {HEADERS['content-type']}\r\nContent-Length: {10**10}\r\n"
    )
    with _raw_request(server, head) as connection:
        for _ in range(5):
            connection.sendall(b"x")
            time.sleep(0.05)
        status, answer = _read_answer(connection)
    assert status == 413
    assert b"body_too_large" in answer


def test_a_body_over_the_limit_without_a_length_is_refused_and_what_follows_is_thrown_away(server: Server) -> None:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {HEADERS['content-type']}\r\nTransfer-Encoding: "
        "chunked\r\n"
    )
    block = (
        b"--"
        + HEADERS["content-type"].partition("boundary=")[2].encode()
        + b'\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    )
    gateway = server.workers("immich_bento")[0]
    before = gateway.memory_info().rss
    with _raw_request(server, head) as connection:
        for _ in range(400):
            connection.sendall(b"%x\r\n%s\r\n" % (len(block), block))
            block = bytes(2**20)
        connection.sendall(b"0\r\n\r\n")
        assert _read_answer(connection)[0] == 413
        # The connection is whole: it serves the next request.
        body = multipart(clip_visual(), image=GOOD)
        connection.sendall(
            (
                f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {HEADERS['content-type']}"
                f"\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
        )
        connection.sendall(body)
        assert _read_answer(connection)[0] == 200
    # 400 MB came; at most the limit of 100 MiB was ever held (the parts twice, for a moment).
    assert gateway.memory_info().rss - before < 250 * 2**20


def test_a_sender_who_leaves_in_the_middle_harms_nobody(server: Server) -> None:
    body = multipart(TASKS, image=GOOD)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {HEADERS['content-type']}\r\nContent-Length: "
        f"{len(body)}\r\n"
    )
    for length in (0, 10, len(body) // 2, len(body) - 1):
        with _raw_request(server, head) as connection:
            connection.sendall(body[:length])
    deadline = time.monotonic() + 20
    while "immich_bento_queue_bytes 0.0" not in httpx.get(server.url + "/metrics").text:
        assert time.monotonic() < deadline, "bytes of senders who left are still counted"
        time.sleep(0.1)
