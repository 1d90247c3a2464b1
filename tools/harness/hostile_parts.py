"""The parts of hostile requests: connections from addresses of their own, heads, pictures that cost much."""

from __future__ import annotations

import io
import socket
import struct
from urllib.parse import urlsplit

import httpx
from PIL import Image

from tools.harness.immich_client import HEADERS
from tools.harness.rendered import Look, jpeg, page

GOOD_CLIENT = "127.0.0.2"
ADDRESS = "127.0.0.9"
"""Of hostile clients."""
MB = 2**20


def client_at(address: str, url: str, timeout: float = 300) -> httpx.Client:
    """Return a client that connects from ``address``. ``timeout``: seconds."""
    return httpx.Client(base_url=url, timeout=timeout, transport=httpx.HTTPTransport(local_address=address))


def connect(url: str, address: str = ADDRESS) -> socket.socket:
    """Return a connection from ``address`` to the host and port of ``url``."""
    target = urlsplit(url)
    host, port = target.hostname or "127.0.0.1", target.port or 80
    return socket.create_connection((host, port), timeout=30, source_address=(address, 0))


def head_of(length: int, *more: str) -> bytes:
    """Return the head of a request for ``/predict`` that announces ``length`` bytes."""
    lines = [
        "POST /predict HTTP/1.1",
        "Host: x",
        f"Content-Type: {HEADERS['content-type']}",
        f"Content-Length: {length}",
    ]
    return ("\r\n".join([*lines, *more]) + "\r\n\r\n").encode()


def strip(width: int = 20_000, height: int = 50) -> bytes:
    """Return a picture of 15 kB that costs OCR much: its short side is what is enlarged."""
    file = io.BytesIO()
    Image.new("L", (width, height), 255).save(file, "JPEG", quality=20)
    return file.getvalue()


def big_tiff(tags: int = 90_000) -> bytes:
    """Return a BigTIFF whose directory has many entries."""
    entries = b"".join(struct.pack("<HHQQ", 256 + number % 60_000, 3, 1, 1) for number in range(tags))
    return b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", tags) + entries + struct.pack("<Q", 0)


def long_lines(width: int = 1440, height: int = 1080) -> bytes:
    """Return a page of an ordinary size that is full of low lines, each as long as the page is wide."""
    text = "in low lines much text stands on one page and takes long to read "
    look = Look(font_size=9, line_pitch=1.25)
    return jpeg(page([text * (width // 250)] * (height // 11), size=(width, height), look=look, margin=4))
