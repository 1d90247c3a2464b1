"""The real gateway in front of other servers: a second instance of this service, and fakes that do everything wrong."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.calls import wait_for
from tests.fake_upstream import FakeUpstream, Received, expected_vector
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import Look, jpeg, page
from tools.harness.server import Server
from tools.harness.tiny_clip import tiny_clip_folder

CALLERS = 16
SCENE = jpeg(Image.effect_noise((120, 90), 60).convert("RGB"))
TEXT = jpeg(page(["发票 A-1"], size=(160, 64), look=Look(font_size=24), margin=8))
LARGE = jpeg(Image.effect_noise((400, 300), 60).convert("RGB"), quality=95)


@dataclass(frozen=True)
class Case:
    """A request, and what may be answered to it."""

    body: bytes
    right: Callable[[httpx.Response], bool]


def post_all(url: str, cases: Sequence[Case], pauses: Sequence[float] = ()) -> Counter[str]:
    """Send all from ``CALLERS`` callers in ``len(pauses) + 1`` bursts; count what was wrong."""

    async def burst(client: httpx.AsyncClient, outcomes: Counter[str], some: Sequence[Case]) -> None:
        queue = iter(some)

        async def caller() -> None:
            for case in queue:
                response = await client.post("/predict", content=case.body, headers=HEADERS)
                outcomes["right" if case.right(response) else f"{response.status_code}: {response.text[:200]}"] += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def bursts() -> Counter[str]:
        outcomes: Counter[str] = Counter()
        size = -(-len(cases) // (len(pauses) + 1))
        limits = httpx.Limits(max_connections=CALLERS, keepalive_expiry=4)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            for number, pause in enumerate((*pauses, 0)):
                await burst(client, outcomes, cases[number * size : (number + 1) * size])
                await asyncio.sleep(pause)
        return outcomes

    return asyncio.run(bursts())


def post(url: str, body: bytes) -> httpx.Response:
    return httpx.post(url + "/predict", content=body, headers=HEADERS, timeout=60)


def alike(one: Any, other: Any) -> bool:
    """Return whether both are equal but for the last digits of numbers, which depend on the batch."""
    if isinstance(one, str) and one.startswith("["):
        return isinstance(other, str) and alike(json.loads(one), json.loads(other))
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(alike(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    return bool(one == (pytest.approx(other, abs=1e-3) if isinstance(other, float) else other))


def figure(server: Server, line: str) -> str | None:
    """Return the value of one line of ``/metrics``."""
    found = [
        text.rpartition(" ")[2]
        for text in httpx.get(server.url + "/metrics").text.splitlines()
        if text.startswith(line)
    ]
    return found[0] if found else None


# --- a second instance of this service
# --------------------------------------------------------------------------------------


def test_200_requests_are_answered_by_two_real_services_as_by_one(server: Server, tmp_path: Path) -> None:
    tiny_clip_folder(tmp_path / "models/clip/ViT-B-16")
    asked = [
        multipart(clip_visual(), image=SCENE),
        multipart(clip_textual(language="zh-CN"), text="雪地里的狗"),
        multipart(faces("buffalo_s", 0.1), image=SCENE),
        multipart(ocr(max_resolution=64), image=TEXT),
        multipart({**clip_visual(), **ocr(max_resolution=64), **faces("buffalo_s")}, image=TEXT),
        multipart(ocr("no-such-model"), image=TEXT),
        multipart(faces("buffalo_s"), image=SCENE[:3000]),
    ]
    directly = [post(server.url, body) for body in asked]
    assert [response.status_code for response in directly] == [200, 200, 200, 200, 200, 422, 415]

    def same_as(expected: httpx.Response) -> Callable[[httpx.Response], bool]:
        return lambda response: response.status_code == expected.status_code and alike(response.json(), expected.json())

    cases = [Case(body, same_as(expected)) for body, expected in zip(asked, directly, strict=True)]
    environment = {
        "CLIP_MODEL": "ViT-B-16",
        "IMMICH_API": server.url,
        "ROUTE_FACES": "upstream",
        "ROUTE_OCR": "upstream",
    }
    with Server(tmp_path, environment) as gateway:
        often = [*cases, *(cases[:2] + cases[5:]) * 2]  # faces and text take their time
        chosen = [often[number % len(often)] for number in range(200)]
        assert post_all(gateway.url, chosen, pauses=(1.5,)) == {"right": 200}
        assert figure(gateway, "immich_bento_models_loaded") in (None, "0.0", "1.0")  # CLIP's alone
        assert 'immich_bento_models_loaded{runner="ocr"} 1.0' not in httpx.get(gateway.url + "/metrics").text
        counted = [
            figure(gateway, f'immich_bento_upstream_requests_total{{outcome="{outcome}"')
            for outcome in ("answered", "refused")
        ]
        assert counted == [f"{sum(1 for case in chosen if case in some):.1f}" for some in (cases[2:5], cases[5:])]
        assert "Traceback" not in gateway.log


# --- servers that do everything wrong
# ---------------------------------------------------------------------------------------

STATUS = {
    **dict.fromkeys(("good", "close", "slow"), 200),
    **dict.fromkeys(
        ("reset", "reset early", "half", "half head", "garbage", "empty", "not http", "500", "503", "404"), 502
    ),
    "hang": 504,
    "415": 415,
    "422": 422,
}
"""Answer of the gateway to each way in which a fake behaves."""
OFTEN = {"good": 60, "close": 20, "slow": 6, "hang": 0.7}
SECRET = "hush-hush"


def behaviour(received: Received) -> str:
    """Return what the upstream is to do, told by what follows the picture in its file, or by the text."""
    return (received.parts.get("image", b"").rpartition(b"#")[2] or received.parts.get("text", b"good")).decode()


def reset_idle(received: Received) -> str:
    return behaviour(received) if received.parts else "good"


@pytest.fixture(scope="module")
def fakes() -> Iterator[tuple[FakeUpstream, FakeUpstream]]:
    with FakeUpstream(reset_idle, idle=1) as one, FakeUpstream(reset_idle, idle=5) as other:
        yield one, other


@pytest.fixture(scope="module")
def gateway(fakes: tuple[FakeUpstream, FakeUpstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {
        "IMMICH_API": ",".join(fake.url for fake in fakes),
        "ROUTE_CLIP": "upstream",
        "ROUTE_FACES": "upstream",
        "ROUTE_OCR": "upstream",
        "UPSTREAM_TIMEOUT": "1",
        "UPSTREAM_RETRY_AFTER": "0.2",
        "UPSTREAM_HEADER": f"X-Key: {SECRET}",
    }
    with Server(tmp_path_factory.mktemp("gateway"), environment) as running:
        yield running


def hostile_case(how: str, number: int) -> Case:
    image = LARGE + f"{number}#{how}".encode()
    status = STATUS[how]

    def right(response: httpx.Response) -> bool:
        answer = response.json()
        if response.status_code == 200:
            sizes = (answer.pop("imageWidth"), answer.pop("imageHeight"))
            return status == 200 and sizes == (400, 300) and answer == {"clip": expected_vector({"image": image})}
        if response.status_code == 502 and "No upstream can be asked" in answer["detail"]:
            return True  # both were down in that moment
        return response.status_code == status and len(answer["detail"]) > 10 and SECRET not in response.text

    return Case(multipart(clip_visual("whatever"), image=image), right)


@pytest.mark.slow
def test_1800_requests_to_servers_that_do_everything_wrong_end_as_documented_in_flat_memory(
    gateway: Server, fakes: tuple[FakeUpstream, FakeUpstream]
) -> None:
    chance = random.Random(11)
    kinds = chance.choices(list(STATUS), [OFTEN.get(how, 1.5) for how in STATUS], k=1800)
    cases = [hostile_case(how, number) for number, how in enumerate(kinds)]
    (process,) = gateway.workers("immich_bento")
    assert set(post_all(gateway.url, cases[:300])) == {"right"}
    before = process.memory_info().rss
    assert post_all(gateway.url, cases[300:], pauses=(1.0, 2.0)) == {"right": 1500}
    grown = (process.memory_info().rss - before) / 2**20
    assert grown < 30, f"{grown:.0f} MB"  # one in ten pictures kept would be 15 MB and more
    behaved = fakes[0].behaved + fakes[1].behaved
    assert set(STATUS) <= set(behaved), behaved
    assert min(fake.behaved["good"] for fake in fakes) > 200
    state = httpx.get(gateway.url + "/upstreams").json()
    assert [upstream["in_flight"] for upstream in state["upstreams"]] == [0, 0]
    assert SECRET not in gateway.log + str(state)
    assert "Traceback" not in gateway.log


def test_one_of_two_upstreams_is_killed_and_no_request_is_lost(
    gateway: Server, fakes: tuple[FakeUpstream, FakeUpstream]
) -> None:
    wait_for(lambda: all(upstream["up"] for upstream in httpx.get(gateway.url + "/upstreams").json()["upstreams"]))
    stays, dies = fakes
    before = len(stays.received), len(dies.received)
    cases = [
        Case(
            multipart(clip_textual(), text="slow" if number % 3 == 0 else "good"),
            lambda response: response.status_code == 200,
        )
        for number in range(400)
    ]

    def kill() -> None:
        wait_for(lambda: len(dies.received) > before[1] + 50 and dies.in_flight > 0)
        dies.die()

    killer = threading.Thread(target=kill)
    killer.start()
    assert post_all(gateway.url, cases) == {"right": 400}
    killer.join()
    assert len(stays.received) > before[0] + 100
    assert figure(gateway, 'immich_bento_upstream_up{upstream="2"}') == "0.0"
    assert figure(gateway, 'immich_bento_upstream_up{upstream="1"}') == "1.0"
    assert httpx.get(gateway.url + "/readyz").status_code == 200
    dies.begin()
    wait_for(lambda: figure(gateway, 'immich_bento_upstream_up{upstream="2"}') == "1.0")


def test_with_every_upstream_gone_all_is_told_at_once_and_mends_by_itself(
    gateway: Server, fakes: tuple[FakeUpstream, FakeUpstream]
) -> None:
    for fake in fakes:
        fake.die()
    body = multipart(faces("any"), image=SCENE)
    post(gateway.url, body)  # finds out
    began = time.monotonic()
    for _ in range(20):
        response = post(gateway.url, body)
        assert (response.status_code, response.json()["code"]) == (502, "upstream_unavailable")
        assert all(fake.name in response.json()["detail"] for fake in fakes)
    assert time.monotonic() - began < 40  # UPSTREAM_TIMEOUT, a second of each of the two, would take that alone
    assert httpx.get(gateway.url + "/readyz").status_code == 503
    assert httpx.get(gateway.url + "/ping").status_code == 200
    for fake in fakes:
        fake.begin()
    wait_for(lambda: httpx.get(gateway.url + "/readyz").status_code == 200)
    assert post(gateway.url, multipart(faces("any"), image=SCENE + b"#good")).status_code == 200


def test_two_gateways_that_name_each_other_do_not_pass_a_request_round(gateway: Server) -> None:
    response = httpx.post(
        gateway.url + "/predict",
        content=multipart(faces(), image=SCENE),
        headers={**HEADERS, "X-Immich-Bento-Hop": "1"},
        timeout=10,
    )
    assert (response.status_code, "Another gateway" in response.json()["detail"]) == (502, True)
