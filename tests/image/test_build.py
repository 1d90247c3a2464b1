"""Two builds of one commit give one image, layer by layer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.image.base import build
from tools.harness.podman import podman
from tools.image.build import image_tag

pytestmark = [pytest.mark.slow, pytest.mark.image]

NAMES = ("immich-bento-once", "immich-bento-again")


def layers(image: str) -> list[str]:
    (facts,) = json.loads(podman("image", "inspect", image).stdout)
    found: list[str] = facts["RootFS"]["Layers"]
    return found


def files(image: str) -> dict[str, Any]:
    """Return size and digest of each file of ``image``, by its path."""
    code = (
        "import hashlib, os, json, stat; found = {}\n"
        "for folder, _, names in os.walk('/'):\n"
        "  if folder.startswith(('/proc', '/sys', '/dev')): continue\n"
        "  for name in names:\n"
        "    path = os.path.join(folder, name)\n"
        "    if stat.S_ISREG(os.lstat(path).st_mode):\n"
        "      found[path] = hashlib.sha256(open(path, 'rb').read()).hexdigest()\n"
        "print(json.dumps(found))"
    )
    run = ("run", "--rm", "--user", "0:0", "--entrypoint", "python", image, "-c", code)
    found: dict[str, Any] = json.loads(podman(*run).stdout)
    return found


@pytest.mark.usefixtures("image")  # which skips where nothing can be built
def test_the_same_inputs_give_the_same_image() -> None:
    # Neither takes layers of a cache: podman's may be of a build that gave its files another date.
    once, again = (
        build("--name", name, "--opt", "no-cache").replace(image_tag("cpu"), image_tag("cpu", name)) for name in NAMES
    )
    try:
        if layers(again) != layers(once):
            one, other = files(once), files(again)
            differing = sorted(path for path in {*one, *other} if one.get(path) != other.get(path))
            raise AssertionError(f"{len(differing)} files differ, if not their dates or rights alone: {differing[:40]}")
    finally:
        podman("rmi", "-f", once, again, check=False)
