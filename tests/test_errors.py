"""Each error has one status, and says when to try again."""

from __future__ import annotations

import pytest

from errors import ErrorCode, ServiceError


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_status_of_an_error(code: ErrorCode) -> None:
    assert 400 <= code.status <= 504


@pytest.mark.parametrize("code", ErrorCode)
def test_exactly_what_is_unavailable_for_now_says_when_to_try_again(code: ErrorCode) -> None:
    if code.status == 503:
        assert code.retry_after is not None
        assert code.retry_after >= 1
    else:
        assert code.retry_after is None


def test_the_statuses_are_those_of_the_contract() -> None:
    named = {
        ErrorCode.UNREADABLE_PICTURE: 415,
        ErrorCode.PICTURE_TOO_LARGE: 413,
        ErrorCode.BODY_TOO_LARGE: 413,
        ErrorCode.QUEUE_FULL: 503,
    }
    named |= {
        ErrorCode.INVALID_REQUEST: 422,
        ErrorCode.MISSING_INPUT: 400,
        ErrorCode.SIZE_MISMATCH: 422,
        ErrorCode.MODEL_UNAVAILABLE: 503,
    }
    assert {code: code.status for code in named} == named
    assert [code for code in ErrorCode if code.status == 500] == [ErrorCode.INTERNAL]


def test_a_message_can_always_be_sent() -> None:
    error = ServiceError(ErrorCode.MODEL_UNAVAILABLE, "it lacks 权重 a\ud800")
    assert error.message == str(error) == "it lacks 权重 a?"
