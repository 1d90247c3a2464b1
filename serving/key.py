"""The one key of this service (``API_AUTH_KEY``), as the clients of several protocols send it."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from pydantic import SecretStr
from starlette.datastructures import Headers

from errors import ErrorCode, ServiceError


def require_key(headers: Headers, key: SecretStr | None) -> None:
    """Return if the request may be answered: one of its ``api-key``, ``X-Auth-Token`` and ``Authorization: Bearer`` is
    ``key``.

    Compared in constant time. Space around ``key`` does not count, since HTTP cannot carry it.
    Raises ``ServiceError``: KEY_NOT_SET without a ``key``, whatever was sent; UNAUTHORIZED otherwise.
    """
    if key is None or not key.get_secret_value().strip():
        raise ServiceError(
            ErrorCode.KEY_NOT_SET,
            "This route needs a key, and the service has none: set API_AUTH_KEY and start the service again.",
        )
    sent = list(sent_keys(headers))
    if not any(is_key(one, key) for one in sent):
        what = "is wrong" if sent else "is missing"
        raise ServiceError(
            ErrorCode.UNAUTHORIZED, f"The key {what}. Send the service's API_AUTH_KEY in the header `api-key`."
        )


def is_key(given: bytes, key: SecretStr) -> bool:
    """Return whether ``given`` is ``key``, in UTF-8. Compared in constant time; space around either does not count, and
    an empty ``key`` is nobody's.
    """
    expected = key.get_secret_value().strip().encode()
    return bool(expected) and hmac.compare_digest(given.strip(), expected)


def sent_keys(headers: Headers) -> Iterator[bytes]:
    """Yield what ``headers`` give as keys, as the bytes that were sent: Starlette reads headers as Latin-1, whatever
    they are.
    """
    for name in ("api-key", "x-auth-token"):
        for value in headers.getlist(name):
            yield value.encode("latin-1")
    yield from bearer_keys(headers)


def bearer_keys(headers: Headers) -> Iterator[bytes]:
    """Yield what ``Authorization: Bearer`` gives, as the bytes that were sent."""
    for value in headers.getlist("authorization"):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer":
            yield credentials.strip().encode("latin-1")
