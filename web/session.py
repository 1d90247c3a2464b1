"""The cookie of whoever gave the service's key: it names its end, and is signed by the key. Nothing is kept of it, so
that every process of the gateway knows it, and another key ends all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from functools import lru_cache

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

COOKIE = "immich_bento_page"
LASTS = 7 * 24 * 3600
"""Seconds."""
PATH = "/ai"
_SALT = b"immich-bento: the cookie of the page"


def issue(key: SecretStr, *, now: float | None = None) -> str:
    """Return a new value of the cookie, good for a week. ``now``: seconds since 1970."""
    end = int((time.time() if now is None else now) + LASTS)
    content = f"{end}.{secrets.token_urlsafe(12)}"
    return f"{content}.{_signature(content, key)}"


def is_valid(value: str, key: SecretStr | None, *, now: float | None = None) -> bool:
    """Return whether ``value`` was issued with this key, and its end has not come. Compared in constant time."""
    content, _, signature = value.rpartition(".")
    end = content.partition(".")[0]
    if key is None or not (end.isascii() and end.isdigit()) or len(value) > 200:
        return False
    if not hmac.compare_digest(signature.encode(), _signature(content, key).encode()):
        return False
    return (time.time() if now is None else now) < int(end)


def give(response: Response, request: Request, key: SecretStr) -> None:
    """Set the cookie in ``response``; over https it is never sent back without."""
    response.set_cookie(
        COOKIE,
        issue(key),
        max_age=LASTS,
        path=PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def take(response: Response) -> None:
    """Have the browser forget the cookie."""
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")


def _signature(content: str, key: SecretStr) -> str:
    return hmac.new(_signing_key(key.get_secret_value().strip()), content.encode(), "sha256").hexdigest()


@lru_cache(maxsize=4)
def _signing_key(key: str) -> bytes:
    # Slow on purpose (30 ms, once): whoever got hold of a cookie could otherwise try keys at home, millions a second.
    return hashlib.scrypt(key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32)
