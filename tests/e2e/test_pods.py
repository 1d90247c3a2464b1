"""A rolling update, an autoscaler and deaths, played to the real gateway under 64 callers: no request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.pods import LightPod, RealPod, Workload, addresses, memory
from tests.fake_dns import FakeDns
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, multipart, ocr
from tools.harness.rendered import jpeg, page
from tools.harness.server import Server, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")

CALLERS = 64
LEAST, MOST = 2, 8
PER_POD = 3
"""Requests that a pod is thought to bear, as in deploy/kubernetes/autoscaling."""
PICTURE = jpeg(page(["pods"], size=(320, 240)))
BODIES = (
    multipart(clip_visual(), image=PICTURE),
    multipart(clip_textual(), text="dog"),
    multipart(ocr(), image=PICTURE),
    multipart({**clip_visual(), **ocr()}, image=PICTURE),
)
KEYS = ({"clip"}, {"clip"}, {"ocr"}, {"clip", "ocr"})
"""Of the answers to ``BODIES``."""


@dataclass
class Load:
    """Callers who ask one request after another."""

    url: str
    calm: bool = False
    """They pause for seconds between two requests."""
    over: bool = False
    made: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    """Seconds."""

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS, keepalive_expiry=4)
        async with httpx.AsyncClient(base_url=self.url, timeout=120, limits=limits) as client:
            await asyncio.gather(*(self._caller(client, number) for number in range(CALLERS)))

    async def _caller(self, client: httpx.AsyncClient, number: int) -> None:
        turn = number
        while not self.over:
            turn += 1
            began = time.monotonic()
            reason = await self._ask(client, turn % len(BODIES))
            self.longest = max(self.longest, time.monotonic() - began)
            self.made += 1
            if reason:
                self.lost[reason] += 1
            await asyncio.sleep(random.uniform(1, 3) if self.calm else 0)

    @staticmethod
    async def _ask(client: httpx.AsyncClient, kind: int) -> str:
        """Return what is wrong with the answer; empty: nothing."""
        try:
            response = await client.post("/predict", content=BODIES[kind], headers=HEADERS)
        except httpx.HTTPError as error:
            return repr(error)
        if response.status_code != 200:
            return f"{response.status_code} {response.text[:300]}"
        answer: dict[str, Any] = response.json()
        vector = json.loads(answer.get("clip", "[0,0]"))
        whole = KEYS[kind] <= set(answer) and len(vector) in (2, 512)  # of a light pod, of a real one
        return "" if whole else f"a wrong answer: {response.text[:300]}"


def work(gateway: Server, task: str) -> float:
    """Return how many requests there are for the pods of ``task``, as deploy/kubernetes/autoscaling asks Prometheus."""
    text = httpx.get(gateway.url + "/metrics", timeout=30).text
    lines = re.findall(r"^immich_bento_upstream_(?:in_flight|waiting)(\{[^}]*\}) (\S+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in lines if f'task="{task}"' in labels)


def autoscale(gateway: Server, workload: Workload, task: str) -> None:
    workload.scale(min(max(math.ceil(work(gateway, task) / PER_POD), LEAST), MOST))


@contextlib.contextmanager
def stage(folder: Path, real: int) -> Iterator[tuple[Server, Workload, Workload]]:
    """Yield a gateway with the pods for CLIP, ``real`` of which are real at first, and those for text."""
    port, hosts = free_port(), addresses()
    with (
        FakeDns() as dns,
        Workload("immich-bento-clip", dns, lambda: LightPod(next(hosts), port)) as clip,
        Workload("immich-bento-ocr", dns, lambda: LightPod(next(hosts), port)) as text,
    ):
        for number in range(real):
            clip.add(RealPod(next(hosts), port, folder / f"pod-{number}"))
        clip.scale(LEAST)
        text.scale(LEAST)
        environment = {
            "ROUTE_CLIP": "upstream",
            "ROUTE_OCR": "upstream",
            "IMMICH_API_CLIP": f"dns://{clip.name}:{port}?server={dns.address}",
            "IMMICH_API_OCR": f"dns://{text.name}:{port}?server={dns.address}",
            "UPSTREAM_RETRY_AFTER": "1",
        }
        with Server(folder / "gateway", environment) as gateway:
            yield gateway, clip, text


def play(gateway: Server, act: Callable[[Load], None]) -> Load:
    """Have the callers ask while ``act`` runs."""
    load = Load(gateway.url)

    async def scenario() -> None:
        calling = asyncio.create_task(load.run())
        try:
            await asyncio.to_thread(act, load)
        finally:
            load.over = True
            await calling

    asyncio.run(scenario())
    return load


def test_pods_that_come_drain_and_die_lose_no_request(tmp_path: Path) -> None:
    with stage(tmp_path, real=1) as (gateway, clip, text):
        (real, *_) = clip.pods

        def act(load: Load) -> None:
            for _ in range(4):
                autoscale(gateway, clip, "clip")
                autoscale(gateway, text, "ocr")
                time.sleep(0.5)
            text.kill(text.pods[0])
            clip.roll()
            text.roll()
            autoscale(gateway, clip, "clip")
            clip.kill(clip.pods[0])
            time.sleep(3)
            load.calm = True
            time.sleep(3)
            autoscale(gateway, text, "ocr")
            time.sleep(1)

        load = play(gateway, act)
        assert load.lost == {}
        assert load.made > 2 * CALLERS
        assert real not in clip.pods
        assert text.most > LEAST
        assert len(text.pods) < text.most, "they go again when there is less to do"
        assert "Traceback" not in gateway.log


@pytest.mark.slow
def test_five_minutes_of_updates_scaling_and_deaths_lose_no_request(tmp_path: Path) -> None:
    with stage(tmp_path, real=2) as (gateway, clip, text):
        ends = time.monotonic() + 300
        before: list[float] = []

        def act(load: Load) -> None:
            chance = random.Random(18)
            round_ = 0
            while time.monotonic() < ends:
                round_ += 1
                load.calm = round_ % 3 == 0
                for workload, task in ((clip, "clip"), (text, "ocr")):
                    autoscale(gateway, workload, task)
                    time.sleep(1)
                workload = chance.choice((clip, text))
                if round_ % 4 == 0:
                    workload.roll()
                else:
                    workload.kill(chance.choice(workload.pods))
                time.sleep(1)
                if round_ == 4:
                    before.append(memory(gateway))

        load = play(gateway, act)
        kinds = [(one.name, one.started, one.drained, one.died, one.most) for one in (clip, text)]
        grown = memory(gateway) - before[0]
        print(f"{load.made} requests, {load.longest:.1f} s at most, lost {dict(load.lost)}; {kinds}; {grown:.0f} MiB")  # noqa: T201
        assert load.lost == {}
        assert all(one.most > LEAST and one.drained > 3 and one.died > 3 for one in (clip, text))
        assert grown < 60
        assert "Traceback" not in gateway.log
