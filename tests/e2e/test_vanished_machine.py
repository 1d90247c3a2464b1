"""A machine that vanishes without a word while it works on a request: one whose cable is pulled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from compat.upstream.pool import UpstreamPool
from tests.e2e.calls import wait_for
from tests.fake_upstream import FakeUpstream
from tools.harness.server import ROOT

pytestmark = pytest.mark.slow

NAME = f"bento{os.getpid()}"
URL = "http://10.219.77.2:3999"
_THERE = f"ip netns exec {NAME}"
LAY = (
    f"ip netns add {NAME}",
    f"ip link add {NAME}a type veth peer name {NAME}b",
    f"ip link set {NAME}b netns {NAME}",
    f"ip addr add 10.219.77.1/30 dev {NAME}a",
    f"ip link set {NAME}a up",
    f"{_THERE} ip addr add 10.219.77.2/30 dev {NAME}b",
    f"{_THERE} ip link set {NAME}b up",
)
PULL = f"{_THERE} ip link set {NAME}b down"
SERVE = """
import time
from tests.fake_upstream import FakeUpstream
with FakeUpstream(lambda received: "hang", host="10.219.77.2", port=3999):
    time.sleep(600)
"""


def run(command: str) -> bool:
    return subprocess.run(command.split(), capture_output=True, check=False).returncode == 0


def answers() -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(URL + "/ping", timeout=2).status_code == 200
    return False


@pytest.fixture
def machine() -> Iterator[None]:
    """Yield while a server that never answers a picture runs in a network of its own."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("there is no `ip` here")
    try:
        if not all(map(run, LAY)):
            pytest.skip("networks cannot be made here: it takes the rights of root")
        command = [*_THERE.split(), sys.executable, "-c", SERVE]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                wait_for(answers, 60)
                yield
            finally:
                process.kill()
    finally:
        run(f"ip link del {NAME}a")
        run(f"ip netns del {NAME}")


@pytest.mark.usefixtures("machine")
def test_what_it_worked_on_is_answered_by_another_long_before_the_time_for_an_answer_is_over() -> None:
    parts = {"entries": b'{"clip":{"textual":{"modelName":"x"}}}', "text": b"dog"}

    async def scenario() -> str:
        pool = UpstreamPool((URL, other.url), task="clip", timeout=600, concurrency=4, retry_after=60)
        try:
            asked = asyncio.create_task(pool.ask(parts, ["clip"], {}))
            while pool.state(with_urls=False)["upstreams"][0]["in_flight"] == 0:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)
            assert await asyncio.to_thread(run, PULL)
            return (await asyncio.wait_for(asked, 300)).upstream
        finally:
            await pool.close()

    with FakeUpstream() as other:
        assert asyncio.run(scenario()) == other.name
