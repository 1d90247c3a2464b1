"""The one key: who may ask, by which header, and what is said to those who may not."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import Headers

from errors import ErrorCode, ServiceError
from serving import key as auth
from serving.key import require_key


def headers(*pairs: tuple[str, str | bytes]) -> Headers:
    """Return headers as Starlette makes them of what was sent."""
    return Headers(
        raw=[(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]
    )


def refused(sent: Headers, key: str | None) -> ServiceError:
    with pytest.raises(ServiceError) as error:
        require_key(sent, SecretStr(key) if key is not None else None)
    return error.value


@pytest.mark.parametrize(
    "sent",
    [
        ("api-key", "s3cret"),
        ("API-KEY", "s3cret"),
        ("X-Auth-Token", "s3cret"),
        ("Authorization", "Bearer s3cret"),
        ("Authorization", "bearer  s3cret "),
    ],
)
def test_each_of_three_headers_may_carry_the_key(sent: tuple[str, str]) -> None:
    require_key(headers(sent), SecretStr("s3cret"))


def test_one_right_key_among_wrong_ones_is_enough() -> None:
    require_key(
        headers(("api-key", "old"), ("api-key", "s3cret"), ("authorization", "Bearer other")), SecretStr("s3cret")
    )


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [("api-key", "")],
        [("api-key", "s3cre")],
        [("api-key", "s3crets")],
        [("api-key", "S3cret")],
        [("authorization", "s3cret")],
        [("authorization", "Basic s3cret")],
        [("authorization", "Bearer")],
        [("cookie", "api-key=s3cret")],
        [("api-key", "s3cret, s3cret")],
        [("api-key", b"s3cret\xff")],
    ],
)
def test_no_key_and_wrong_keys_are_401(sent: list[tuple[str, Any]]) -> None:
    error = refused(headers(*sent), "s3cret")
    assert (error.code, error.code.status) == (ErrorCode.UNAUTHORIZED, 401)
    assert "s3cret" not in error.message


def test_missing_and_wrong_are_told_apart() -> None:
    assert "missing" in refused(headers(), "s3cret").message
    assert "wrong" in refused(headers(("api-key", "x")), "s3cret").message


@pytest.mark.parametrize("key", [None, "", "  \n"])
@pytest.mark.parametrize("sent", ["", "mt_photos_ai_extra", "  \n"])
def test_without_a_key_set_everyone_gets_403_and_the_name_of_the_setting(key: str | None, sent: str) -> None:
    error = refused(headers(("api-key", sent)), key)
    assert (error.code, error.code.status) == (ErrorCode.KEY_NOT_SET, 403)
    assert "API_AUTH_KEY" in error.message


def test_a_key_from_a_file_with_a_line_break_at_its_end_works() -> None:
    require_key(headers(("api-key", "s3cret")), SecretStr("s3cret\n"))


def test_a_key_beyond_ascii_is_compared_by_its_utf_8() -> None:
    require_key(headers(("api-key", "密钥é")), SecretStr("密钥é"))
    refused(headers(("api-key", "密钥é".encode("gb18030"))), "密钥é")


@given(
    key=st.text(st.characters(min_codepoint=33, codec="utf-8"), min_size=1).filter(str.strip),
    sent=st.text(st.characters(codec="utf-8")),
)
def test_only_the_key_itself_opens(key: str, sent: str) -> None:
    given_headers = headers(("api-key", sent))
    if sent == key.strip():
        require_key(given_headers, SecretStr(key))
    else:
        assert refused(given_headers, key).code is ErrorCode.UNAUTHORIZED


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(auth, "hmac", type("", (), {"compare_digest": staticmethod(compare_digest)}))
    refused(headers(("api-key", "x"), ("x-auth-token", "y")), "s3cret")
    assert compared == [(b"x", b"s3cret"), (b"y", b"s3cret")]
