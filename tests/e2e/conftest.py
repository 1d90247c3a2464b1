"""One running service for the tests that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield the service with a tiny CLIP of 512 numbers, buffalo_s and PP-OCRv6_small: real answers, no download."""
    folder = tmp_path_factory.mktemp("service")
    tiny_clip_folder(folder / "models" / "clip" / "ViT-B-16")
    with Server(folder, {"CLIP_MODEL": "ViT-B-16"}) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client
