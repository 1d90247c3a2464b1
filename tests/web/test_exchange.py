"""Exchanges without a log line of their own have a time limit and errors all the same."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.responses import Response

from errors import ErrorCode, ServiceError
from web.exchange import quietly


async def never() -> Response:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def refused() -> Response:
    raise ServiceError(ErrorCode.UNKNOWN_ASSET, "There is none.")


async def answered() -> Response:
    return Response("a picture")


def test_what_is_answered_quietly_is_answered_in_time_or_told_so(caplog: pytest.LogCaptureFixture) -> None:
    late = asyncio.run(quietly(never, seconds=0.01))
    assert (late.status_code, json.loads(bytes(late.body))["code"]) == (ErrorCode.TIMEOUT.status, "timeout")
    unknown = asyncio.run(quietly(refused, seconds=60))
    assert (unknown.status_code, json.loads(bytes(unknown.body))["detail"]) == (404, "There is none.")
    assert asyncio.run(quietly(answered, seconds=60)).body == b"a picture"
    assert caplog.records == []
