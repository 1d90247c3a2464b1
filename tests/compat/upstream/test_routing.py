"""Requests of which some tasks are answered here and others by another server: splitting, merging, falling back, keys,
loops.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from compat.immich.api import ImmichServer, create_app
from compat.upstream.routing import can_answer, open_upstreams
from models.catalog import load_catalog
from serving.body import open_intake
from serving.guesses import Guesses
from settings import Settings
from tests.compat.fake_runners import FakeRunners
from tests.compat.immich.asking import picture
from tests.fake_upstream import FakeUpstream, expected_vector
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.server import free_port

CATALOG = load_catalog()


ALL_UPSTREAM: dict[str, Any] = {"route_clip": "upstream", "route_faces": "upstream", "route_ocr": "upstream"}


PICTURE = picture(100, 50)


HERE = {"clip": "[0.1,-0.25,1e-7]"}
"""What the fake runners answer to clip visual."""


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


def post_all(
    bodies: Sequence[bytes], headers: dict[str, str] | None = None, **overrides: Any
) -> tuple[list[httpx.Response], FakeRunners, dict[str, Any]]:
    """Return the answers to ``bodies``, the runners that were asked, and what ``/upstreams`` says then."""
    settings = Settings(_env_file=None, **overrides)
    runners = FakeRunners()

    async def scenario() -> tuple[list[httpx.Response], dict[str, Any]]:
        api = ImmichServer(
            CATALOG,
            settings,
            open_intake(settings),
            Guesses(),
            runners,
            open_upstreams(settings),
        )
        await asyncio.sleep(0.05)  # the first look
        try:
            transport = httpx.ASGITransport(app=create_app(api))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                sent = [
                    await client.post("/predict", content=body, headers={**HEADERS, **(headers or {})})
                    for body in bodies
                ]
                return sent, (await client.get("/upstreams")).json()
        finally:
            if api.upstreams:
                await api.upstreams.close()

    responses, state = asyncio.run(scenario())
    return responses, runners, state


def post(body: bytes, headers: dict[str, str] | None = None, **overrides: Any) -> tuple[httpx.Response, FakeRunners]:
    (response,), runners, _ = post_all([body], headers, **overrides)
    return response, runners


def test_a_request_is_split_and_its_answers_merged_with_one_size(upstream: FakeUpstream) -> None:
    asked = {**clip_visual(), **faces("some-model", 0.123), **ocr("another-model")}
    response, runners = post(
        multipart(asked, image=PICTURE), immich_api=upstream.url, route_faces="upstream", route_ocr="upstream"
    )
    assert response.status_code == 200
    answer = response.json()
    assert (answer["imageWidth"], answer["imageHeight"]) == (100, 50)  # the fake says 1 and 1
    assert answer["clip"] == HERE["clip"]
    assert answer["facial-recognition"][0]["embedding"] == expected_vector({"image": PICTURE})
    assert answer["ocr"]["text"] == ["发票"]
    assert set(answer) == {"clip", "facial-recognition", "ocr", "imageWidth", "imageHeight"}
    assert len(runners.jobs) == 1
    (received,) = upstream.received  # one request for both tasks
    assert received.entries == {**faces("some-model", 0.123), **ocr("another-model")}
    assert received.parts["image"] == PICTURE


def test_a_request_that_goes_upstream_as_a_whole_is_passed_on_as_it_was_written(upstream: FakeUpstream) -> None:
    raw = (
        b'{ "clip" : {"textual":{"modelName":"unheard-of",'
        b'"options":{"language":null,"new":[1e400,0.10]}}, "later":{}} }'
    )
    response, runners = post(multipart(raw_entries=raw, text="雪地里的狗"), immich_api=upstream.url, **ALL_UPSTREAM)
    assert (response.status_code, runners.jobs) == (200, [])
    assert response.json() == {"clip": expected_vector({"text": "雪地里的狗".encode()})}
    (received,) = upstream.received
    assert received.parts == {"entries": raw, "text": "雪地里的狗".encode()}
    assert response.headers["x-request-id"] == received.headers["x-request-id"]


def test_each_task_goes_to_the_servers_that_are_named_for_it_and_the_rest_to_the_others() -> None:
    asked = {**clip_visual(), **faces(), **ocr()}
    with FakeUpstream() as some, FakeUpstream() as readers:
        responses, runners, state = post_all(
            [multipart(asked, image=PICTURE)], immich_api=some.url, immich_api_ocr=readers.url, **ALL_UPSTREAM
        )
        (of_some,), (of_readers,) = some.received, readers.received
    assert responses[0].status_code == 200
    assert set(responses[0].json()) == {"clip", "facial-recognition", "ocr", "imageWidth", "imageHeight"}
    assert runners.jobs == []
    assert (of_some.entries, of_readers.entries) == ({**clip_visual(), **faces()}, ocr())
    assert [(one["upstream"], one["up"]) for one in state["upstreams"]] == [(1, True), (2, True)]


def test_a_task_whose_own_servers_are_down_fails_alone(upstream: FakeUpstream) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    bodies = [multipart(ocr(), image=PICTURE), multipart(faces(), image=PICTURE)]
    responses, _, _ = post_all(
        bodies, immich_api_faces=upstream.url, immich_api_ocr=away, immich_api=away, **ALL_UPSTREAM
    )
    assert [response.status_code for response in responses] == [502, 200]


def test_the_log_names_all_servers_that_answered(upstream: FakeUpstream, caplog: pytest.LogCaptureFixture) -> None:
    with FakeUpstream() as readers, caplog.at_level("INFO", logger="serving.exchange"):
        post(
            multipart({**faces(), **ocr()}, image=PICTURE),
            immich_api=upstream.url,
            immich_api_ocr=readers.url,
            **ALL_UPSTREAM,
        )
        (line,) = [record.fields for record in caplog.records if record.message == "POST /predict"]  # type: ignore[attr-defined]
        assert sorted(line["upstream"].split(",")) == sorted([upstream.name, readers.name])


def test_what_is_local_stays_local(upstream: FakeUpstream) -> None:
    response, runners = post(multipart(clip_visual(), image=PICTURE), immich_api=upstream.url, route_faces="upstream")
    assert (response.json()["clip"], len(runners.jobs), upstream.received) == (HERE["clip"], 1, [])


def test_local_and_upstream_tasks_run_at_the_same_time() -> None:
    with FakeUpstream(lambda received: "slow") as upstream:
        settings = Settings(_env_file=None, immich_api=upstream.url, route_faces="upstream")
        runners = FakeRunners()
        runners.delay = 0.1

        async def scenario() -> tuple[int, int]:
            api = ImmichServer(CATALOG, settings, open_intake(settings), Guesses(), runners, open_upstreams(settings))
            assert api.upstreams is not None
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=create_app(api)), base_url="http://test"
            ) as client:
                body = multipart({**clip_visual(), **faces()}, image=PICTURE)
                request = asyncio.create_task(client.post("/predict", content=body, headers=HEADERS))
                while not runners.running or not upstream.in_flight:
                    await asyncio.sleep(0.001)
                both = runners.running, upstream.in_flight
                assert (await request).status_code == 200
            await api.upstreams.close()
            return both

        assert asyncio.run(asyncio.wait_for(scenario(), 10)) == (1, 1)


@pytest.mark.parametrize(
    ("entries", "image", "status", "code"),
    [
        (b"{", PICTURE, 422, "invalid_request"),
        (b"[]", PICTURE, 422, "invalid_request"),
        (b'{"facial-recognition":"yes"}', PICTURE, 422, "invalid_request"),
        (b'{"video":{}}', PICTURE, 422, "unknown_task"),
        (b'{"ocr":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", PICTURE, 422, "invalid_request"),
        (json.dumps(faces()).encode(), b"no picture", 415, "unreadable_picture"),
        (json.dumps(faces()).encode(), picture(100, 101), 413, "picture_too_large"),
        (json.dumps(faces()).encode(), b"x" * 20_000, 413, "body_too_large"),
        (json.dumps(faces()).encode(), None, 400, "missing_input"),
    ],
)
def test_what_is_malformed_does_not_reach_an_upstream(
    entries: bytes, image: bytes | None, status: int, code: str, upstream: FakeUpstream
) -> None:
    limits: dict[str, Any] = {"max_picture_pixels": 10_000, "max_body_bytes": 20_000 if len(entries) < 1000 else 10**7}
    response, _ = post(multipart(raw_entries=entries, image=image), immich_api=upstream.url, **ALL_UPSTREAM, **limits)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert upstream.received == []


def test_a_local_task_asked_wrongly_fails_before_an_upstream_is_troubled(upstream: FakeUpstream) -> None:
    response, _ = post(
        multipart({**clip_visual("nope"), **faces()}, image=PICTURE), immich_api=upstream.url, route_faces="upstream"
    )
    assert (response.status_code, response.json()["code"], upstream.received) == (422, "unknown_model", [])


def test_what_an_upstream_says_of_a_request_is_the_answer_also_of_a_mixed_one() -> None:
    with FakeUpstream(lambda received: "415") as upstream:
        response, _ = post(
            multipart({**clip_visual(), **faces()}, image=PICTURE), immich_api=upstream.url, route_faces="upstream"
        )
    assert (response.status_code, response.json()) == (415, {"detail": "It says 415.", "code": "unreadable_picture"})


def test_while_upstreams_are_down_their_tasks_are_502_and_local_ones_go_on() -> None:
    bodies = [
        multipart(faces(), image=PICTURE),
        multipart({**clip_visual(), **faces()}, image=PICTURE),
        multipart(clip_visual(), image=PICTURE),
    ]
    url = f"http://127.0.0.1:{free_port()}"
    responses, _, state = post_all(bodies, immich_api=url, route_faces="upstream")
    assert [response.status_code for response in responses] == [502, 502, 200]
    assert responses[0].json()["code"] == "upstream_unavailable"
    assert url.removeprefix("http://") in responses[0].json()["detail"]
    assert state == {
        "routes": {"clip": "local", "facial-recognition": "upstream", "ocr": "local"},
        "fallback": False,
        "upstreams": [{"upstream": 1, "up": False, "in_flight": 0, "reason": "it does not answer GET /ping"}],
        "waiting": 0,
    }


def test_with_fallback_they_are_answered_here_as_far_as_names_are_known_here() -> None:
    bodies = [
        multipart({**clip_visual(), **faces()}, image=PICTURE),
        multipart(faces("known-to-the-other-only"), image=PICTURE),
    ]
    options: dict[str, Any] = {
        "immich_api": f"http://127.0.0.1:{free_port()}",
        "upstream_fallback": True,
        **ALL_UPSTREAM,
    }
    (answered, unknown), runners, _ = post_all(bodies, **options)
    assert answered.status_code == 200
    assert set(answered.json()) == {"clip", "facial-recognition", "imageHeight", "imageWidth"}
    assert len(runners.jobs) == 2
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_model")


def test_fallback_is_for_servers_that_are_down_not_for_errors_that_they_answer() -> None:
    with FakeUpstream(lambda received: "500") as upstream:
        response, runners = post(
            multipart(faces(), image=PICTURE), immich_api=upstream.url, upstream_fallback=True, route_faces="upstream"
        )
    assert (response.status_code, runners.jobs) == (502, [])


def test_a_request_that_another_gateway_passed_on_is_not_passed_on_again(upstream: FakeUpstream) -> None:
    bodies = [multipart(faces(), image=PICTURE), multipart(clip_visual(), image=PICTURE)]
    (looping, local), _, _ = post_all(
        bodies, {"X-Immich-Bento-Hop": "1"}, immich_api=upstream.url, route_faces="upstream"
    )
    assert (looping.status_code, looping.json()["code"]) == (502, "upstream_unavailable")
    assert "Another gateway" in looping.json()["detail"]
    assert local.status_code == 200
    assert upstream.received == []


def test_the_log_says_which_upstream_answered_and_what_was_asked_of_it(
    upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="serving.exchange"):
        post(
            multipart({**clip_textual("x"), **faces()}, image=PICTURE, text="a"),
            immich_api=upstream.url,
            **ALL_UPSTREAM,
        )
    (line,) = [record.fields for record in caplog.records if record.message == "POST /predict"]  # type: ignore[attr-defined]
    assert (line["task"], line["upstream"], line["status"]) == ("clip.textual+facial-recognition", upstream.name, 200)


class TestAuthRequired:
    """AUTH_REQUIRED=all: /predict wants the key as well."""

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 401),
            ({"api-key": "wrong"}, 401),
            ({"api-key": "secret"}, 200),
            ({"x-auth-token": "secret"}, 200),
            ({"authorization": "Bearer secret"}, 200),
        ],
    )
    def test_a_request_needs_the_key(self, headers: dict[str, str], status: int) -> None:
        body = multipart(clip_visual(), image=PICTURE)
        assert post(body, headers, auth_required="all", api_auth_key=SecretStr("secret"))[0].status_code == status
        assert post(body, headers, api_auth_key=SecretStr("secret"))[0].status_code == 200

    def test_without_a_key_nobody_is_let_in(self) -> None:
        assert post(multipart(clip_visual(), image=PICTURE), auth_required="all")[0].status_code == 403

    def test_it_is_judged_before_the_body_is_read(self) -> None:
        assert post(b"not a body at all", auth_required="all", api_auth_key=SecretStr("secret"))[0].status_code == 401


def test_upstream_s_own_wish_for_a_key_is_met_by_the_header() -> None:
    with FakeUpstream(lambda received: "good" if received.headers.get("x-auth-token") == "hush" else "401") as upstream:
        options: dict[str, Any] = {"immich_api": upstream.url, **ALL_UPSTREAM}
        body = multipart(faces(), image=PICTURE)
        assert post(body, **options, upstream_header=SecretStr("X-Auth-Token: hush"))[0].status_code == 200
        without = post(body, **options)[0]
    assert (without.status_code, "UPSTREAM_HEADER" in without.json()["detail"]) == (502, True)


def test_the_service_is_ready_unless_nothing_at_all_can_be_answered() -> None:
    async def ready(**overrides: Any) -> bool:
        settings = Settings(_env_file=None, immich_api=f"http://127.0.0.1:{free_port()}", **overrides)
        pool = open_upstreams(settings)
        await asyncio.sleep(0.05)
        try:
            return can_answer(pool, settings)
        finally:
            if pool:
                await pool.close()

    assert asyncio.run(ready())
    assert asyncio.run(ready(route_faces="upstream"))
    assert asyncio.run(ready(**ALL_UPSTREAM, upstream_fallback=True))
    assert not asyncio.run(ready(**ALL_UPSTREAM))
