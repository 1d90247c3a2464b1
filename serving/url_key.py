"""``URL_KEY``: a secret first step of the path, by which a stock Immich 3.0 and newer can show that it may ask."""

from __future__ import annotations

import hmac

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

_NOWHERE = "/without-the-key"
"""The path that a request without the key is given, which nothing is at."""
_LOOKED_AT = "immich_bento.url_key"
_GUARDED = frozenset({"/", "/ping", "/predict"})
"""Paths that Immich asks of a machine-learning server."""


class UrlKey:
    """An ASGI app before another. With a key, ``/<key>/predict`` is what ``/predict`` is without one, and so is every
    other path; ``/predict``, ``/ping`` and ``/`` themselves are answered 404, as behind any wrong key.

    Before another ``UrlKey`` it is the one that looks.
    """

    def __init__(self, app: ASGIApp, key: SecretStr | None) -> None:
        self._app = app
        self._key = key.get_secret_value().encode() if key is not None else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._key and scope["type"] == "http" and _LOOKED_AT not in scope:
            scope = {**scope, **self._path_behind_the_key(scope), _LOOKED_AT: True}
        await self._app(scope, receive, send)

    def _path_behind_the_key(self, scope: Scope) -> dict[str, str | bytes]:
        """Return what of the scope is another one: behind this, the key is in no path that a log might tell."""
        path: str = scope["path"]
        first, slash, rest = path.removeprefix("/").partition("/")
        is_right = hmac.compare_digest(first.encode(errors="replace"), self._key)  # in constant time, for any path
        if is_right and slash:
            raw: bytes = scope.get("raw_path") or path.encode(errors="replace")
            return {"path": f"/{rest}", "raw_path": b"/" + raw[1:].partition(b"/")[2]}
        if is_right or path in _GUARDED:
            return {"path": _NOWHERE, "raw_path": _NOWHERE.encode()}
        return {}
