"""The image, built once, and one container of it that most tests ask."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.base import NoImage, build
from tools.harness.podman import Container, podman
from tools.harness.rendered import mixed_pages

KEY = "a key of tests"


@pytest.fixture(scope="session")
def image() -> str:
    """Build the image and return its name; IMMICH_BENTO_TEST_IMAGE names one that is there already."""
    if shutil.which("podman") is None:
        pytest.skip("skipped: no podman")
    given = os.environ.get("IMMICH_BENTO_TEST_IMAGE")
    try:
        return given or build()
    except (NoImage, subprocess.TimeoutExpired) as error:
        pytest.skip(f"skipped: {error}")


@pytest.fixture(scope="session")
def volume(image: str) -> Iterator[str]:
    """Give the name of a volume that begins empty."""
    name = f"immich-bento-test-{os.getpid()}"
    podman("volume", "create", name)
    yield name
    podman("volume", "rm", "-f", name, check=False)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with two pages of text."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, page in enumerate(mixed_pages()[:2]):
        (folder / f"page-{number}.jpg").write_bytes(page.data)
    folder.chmod(0o755)
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)  # pytest's own folders are closed to others
    return folder


def options(volume: str, pictures: Path) -> list[str]:
    """Return how compose.yaml runs it: read-only, as user 1000, without capabilities, with small models."""
    settings = {
        "CLIP_MODEL": "tiny",
        "OCR_MODEL": "PP-OCRv6_small",
        "RECOGNITION_MODEL": "buffalo_s",
        "API_AUTH_KEY": KEY,
        "OFFLINE": "true",
    }
    return [
        *("--read-only", "--read-only-tmpfs=false", "--user", "1000:1000", "--cap-drop", "ALL"),
        *("-v", f"{volume}:/cache", "-v", f"{pictures}:/pictures:ro"),
        *(word for name, value in settings.items() for word in ("-e", f"{name}={value}")),
    ]


@pytest.fixture(scope="module")
def container(image: str, volume: str, pictures: Path) -> Iterator[Container]:
    """Run a container and wait until it is ready."""
    with Container(image, options(volume, pictures)) as running:
        running.wait_until_ready()
        yield running
