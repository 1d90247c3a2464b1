"""No request is lost: thousands, from many callers, with pauses in which idle connections are closed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest
from PIL import Image

from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import Look, jpeg, page
from tools.harness.server import Server

CALLERS = 32
PAUSES = (1, 4, 5, 6, 8)
FEWER_PAUSES = (1, 5)
"""Seconds between bursts: Immich's clients drop idle connections after 4, BentoML's servers after 5."""


def _good_requests() -> list[bytes]:
    """Return one request of each task, on pictures small enough that thousands take a minute."""
    text = jpeg(page(["发票 A-1"], size=(160, 64), look=Look(font_size=24), margin=8))
    scene = jpeg(Image.effect_noise((120, 90), 60).convert("RGB"))
    return [
        multipart(clip_visual(), image=scene),
        multipart(clip_textual(language="zh-CN"), text="雪地里的狗"),
        multipart(clip_textual(), text="a dog in the snow"),
        multipart(clip_visual(), image=text),
        multipart(faces("buffalo_s", 0.7), image=scene),
        multipart(ocr(max_resolution=64), image=text),
        multipart({**clip_visual(), **ocr(max_resolution=64)}, image=text),
    ]


async def _burst(url: str, bodies: list[tuple[bytes, int]]) -> Counter[str]:
    """Send all bodies from ``CALLERS`` callers, each on its own kept-alive connection; count what did not end as
    expected.
    """
    outcomes: Counter[str] = Counter()
    queue = iter(bodies)

    async def caller(client: httpx.AsyncClient) -> None:
        for body, expected in queue:
            try:
                response = await client.post("/predict", content=body, headers=HEADERS)
                outcomes[
                    "as expected"
                    if response.status_code == expected
                    else f"{response.status_code}: {response.text[:200]}"
                ] += 1
            except httpx.HTTPError as error:
                outcomes[repr(error)] += 1

    # 4 s, as undici in Immich: a connection that the client keeps longer than the server would be lost by the client's
    # own fault.
    limits = httpx.Limits(max_connections=CALLERS, keepalive_expiry=4)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        await asyncio.gather(*(caller(client) for _ in range(CALLERS)))
    return outcomes


async def _bursts(url: str, bodies: list[tuple[bytes, int]], pauses: Sequence[int]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    size = -(-len(bodies) // (len(pauses) + 1))
    for number in range(len(pauses) + 1):
        outcomes += await _burst(url, bodies[number * size : (number + 1) * size])
        if number < len(pauses):
            await asyncio.sleep(pauses[number])
    return outcomes


@pytest.mark.parametrize(
    ("requests", "pauses", "one_in_ten_is_bad"),
    [
        pytest.param(500, FEWER_PAUSES, True, id="500, one in ten bad"),
        pytest.param(5000, PAUSES, True, id="5000, one in ten bad", marks=pytest.mark.slow),
        pytest.param(5000, PAUSES, False, id="5000, all good", marks=pytest.mark.slow),
    ],
)
def test_all_requests_from_32_callers_are_answered_as_they_should(
    server: Server, requests: int, pauses: Sequence[int], one_in_ten_is_bad: bool
) -> None:
    good = _good_requests()
    broken = jpeg(Image.effect_noise((200, 200), 60).convert("RGB"))[:3000]
    bad = [multipart(task, image=broken) for task in (clip_visual(), faces("buffalo_s"), ocr(max_resolution=64))]
    chance = random.Random(7)
    bodies = [
        (chance.choice(bad), 415) if one_in_ten_is_bad and number % 10 == 0 else (chance.choice(good), 200)
        for number in range(requests)
    ]
    before = {process.pid for process in server.processes()}
    assert asyncio.run(_bursts(server.url, bodies, pauses)) == {"as expected": requests}
    assert {process.pid for process in server.processes()} == before
