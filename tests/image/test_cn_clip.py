"""CN-CLIP in the image, by its name alone: fetched from a hub on loopback into an empty volume, converted, served.

As compose.yaml runs it: read-only, as user 1000, without capabilities.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.catalog import ModelKind, load_catalog
from tests.cnclip_reference import TINY, official_checkpoint, random_model
from tests.e2e.clip_vectors import ask, assert_torch_answers_so, blotches, picture_bodies, text_bodies
from tests.models import broken_checkpoints
from tools.harness.fake_hub import Web, fake_hub
from tools.harness.immich_client import HEADERS
from tools.harness.podman import Container, podman
from tools.tiny.cn_clip import ARCHITECTURES

pytestmark = [pytest.mark.slow, pytest.mark.image]

NAME = "RN50"
PUBLISHED = load_catalog().find(ModelKind.CLIP, NAME).checkpoint
assert PUBLISHED is not None
assert PUBLISHED.huggingface is not None
FILE = PUBLISHED.file
REPOSITORY = PUBLISHED.huggingface
PATH = f"/{REPOSITORY}/resolve/main/{FILE}"
PROBE = "bytes=0-65535"
"""What both hubs are asked for first, to see which is the faster."""
PATIENCE = 300.0


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(ARCHITECTURES[NAME])


@pytest.fixture(scope="module")
def checkpoint(model: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return official_checkpoint(model, tmp_path_factory.mktemp("checkpoint") / FILE).read_bytes()


@pytest.fixture
def hub() -> Iterator[Web]:
    with fake_hub() as served:
        yield served


@pytest.fixture
def empty_volume(image: str) -> Iterator[str]:
    name = f"immich-bento-cn-clip-{os.getpid()}"
    podman("volume", "create", name)
    yield name
    podman("volume", "rm", "-f", name, check=False)


def container(image: str, hub: Web, *volume: str, **settings: str) -> Container:
    """Return a container that has to fetch its CLIP model from ``hub``."""
    settings = {
        "CLIP_MODEL": NAME,
        "PRECISION": "fp32",
        "HF_ENDPOINT": hub.url,
        "MODELSCOPE_ENDPOINT": f"{hub.url}/ms",
        "SEARCH_ENABLED": "false",
        **settings,
    }
    options = ["--read-only", "--read-only-tmpfs=false", "--user", "1000:1000", "--cap-drop", "ALL", *volume]
    options += [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    return Container(image, options, on_host=True)


def until(condition: Callable[[], bool], running: Container) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, running.log
        time.sleep(0.1)


def percent_fetched(running: Container) -> float:
    head = f'immich_bento_model_fetch_percent{{model="{NAME}",task="clip_image"}} '
    for line in httpx.get(running.url + "/metrics", timeout=10).text.splitlines():
        if line.startswith(head):
            return float(line.removeprefix(head))
    return 0.0


def test_an_empty_volume_and_a_name_are_all_that_it_takes(
    image: str, hub: Web, model: Any, checkpoint: bytes, empty_volume: str
) -> None:
    """The hub is slow and cuts connections, the container is killed in the middle, eight callers ask at once."""
    hub.add_repository(REPOSITORY, {FILE: checkpoint})
    hub.cut_every, hub.rate = 50_000_000, len(checkpoint) // 12
    pictures = blotches()
    bodies = [*picture_bodies(NAME, pictures), *text_bodies(NAME)]
    with container(image, hub, "-v", f"{empty_volume}:/cache") as running:
        running.wait_until_ready(path="/ping")
        until(lambda: percent_fetched(running) >= 20, running)
        running.kill()
        running.start_again()
        running.wait_until_ready(path="/ping")
        with httpx.Client(base_url=running.url, timeout=PATIENCE) as client, ThreadPoolExecutor(8) as callers:
            vectors = list(callers.map(lambda body: ask(client, body), bodies))
        seconds = running.wait_until_ready()
        print(f"cn-clip: {NAME} answered and ready {seconds:.0f} s after the second start; the hub takes 12 s")
        assert running.run("sh", "-c", "id -u; find /cache -name '*.pt' -o -name '*.partial'").stdout == "1000\n"
        assert running.run("touch", "/app/x", check=False).returncode != 0
    found = np.array(vectors, np.float32)
    assert_torch_answers_so(model, ARCHITECTURES[NAME].image_size, pictures, (found[:4], found[4:]))
    asked = [part for part in hub.gets(PATH) if part != PROBE]
    begun = [0 if part is None else int(part.removeprefix("bytes=").rstrip("-")) for part in asked]
    assert begun[0] == 0
    assert min(begun[1:]) > 0, "what was fetched is not fetched again"
    assert begun == sorted(begun)

    with container(image, hub, "-v", f"{empty_volume}:/cache", OFFLINE="true") as later:
        later.wait_until_ready()
        with httpx.Client(base_url=later.url, timeout=PATIENCE) as client:
            assert ask(client, bodies[0]) == pytest.approx(vectors[0], abs=1e-6)


def test_two_containers_over_one_volume_fetch_once(image: str, hub: Web, checkpoint: bytes, empty_volume: str) -> None:
    hub.add_repository(REPOSITORY, {FILE: checkpoint})
    hub.rate = len(checkpoint) // 8
    body, volume = text_bodies(NAME)[0], ("-v", f"{empty_volume}:/cache")
    with container(image, hub, *volume) as one, container(image, hub, *volume) as other:
        vectors = []
        for running in (one, other):
            running.wait_until_ready(PATIENCE)
            with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:
                vectors.append(ask(client, body))
    assert vectors[0] == vectors[1]
    assert [part for part in hub.gets(PATH) if part != PROBE] == [None]


def test_a_volume_that_becomes_full_is_told_and_gone_on_with(image: str, hub: Web, checkpoint: bytes) -> None:
    hub.add_repository(REPOSITORY, {FILE: checkpoint})
    hub.rate = len(checkpoint) // 12
    tmpfs = ("--tmpfs", "/cache:size=720m,mode=1777")
    with container(image, hub, *tmpfs, MODEL_RETRY_AFTER="3") as running:
        running.wait_until_ready(path="/ping")
        until(lambda: percent_fetched(running) >= 20, running)
        running.run("dd", "if=/dev/zero", "of=/cache/filler", "bs=1M", check=False)
        until(lambda: "the disk: is full" in running.log, running)
        running.run("rm", "/cache/filler")
        running.wait_until_ready(PATIENCE)
        with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:
            ask(client, text_bodies(NAME)[0])
    assert [part for part in hub.gets(PATH) if part != PROBE].count(None) == 1, "a restart goes on"


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (broken_checkpoints.hostile, "was not opened for safety"),
        (broken_checkpoints.compressed, "is compressed or encrypted"),
        (broken_checkpoints.of_other_shapes, "does not fit any architecture of CN-CLIP: its visual.proj has the shape"),
        (None, "bytes whose digest is sha256:"),
    ],
    ids=["code", "compressed", "shapes", "other bytes"],
)
def test_what_is_no_checkpoint_is_refused_in_a_sentence(
    image: str,
    hub: Web,
    empty_volume: str,
    tmp_path: Path,
    write: Callable[[Path, Any], None] | None,
    complaint: str,
) -> None:
    if write is None:
        hub.add_repository(REPOSITORY, {FILE: b"what the hub's list tells of" * 1000})
        hub.files[PATH] = b"what the hub then delivers.." * 1000
    else:
        write(tmp_path / FILE, random_model(TINY))
        hub.add_repository(REPOSITORY, {FILE: (tmp_path / FILE).read_bytes()})
    with container(image, hub, "-v", f"{empty_volume}:/cache") as running:
        running.wait_until_ready(path="/ping")
        refused = httpx.post(running.url + "/predict", content=text_bodies(NAME)[0], headers=HEADERS, timeout=PATIENCE)
        assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
        assert complaint in refused.json()["detail"]
        assert httpx.get(running.url + "/readyz", timeout=10).status_code == 503
        assert running.run("sh", "-c", "find / -name 'hostile-was-here' 2>/dev/null; true").stdout == ""
        assert "Traceback" not in running.log
