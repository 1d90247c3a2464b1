"""Immich's own HTTP API, as far as re-doing one asset needs it: its preview picture, and its job for faces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import httpx

from errors import ErrorCode, ServiceError
from search.immich.keys import KeysOfOwners, keys_of
from search.immich.version import VERSION_PATH, KnownVersion, Version
from settings import Settings
from settings.addresses import shown_url

T = TypeVar("T")

_EDITS_SINCE: Version = (3, 2)
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Seconds: for the connection, and for each further silence."""


class KeyRefused(ServiceError):
    """IMMICH_UNAVAILABLE: the key is wrong, or lacks a permission."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.IMMICH_UNAVAILABLE, message)


@dataclass(frozen=True)
class ImmichClient:
    """Immich at one address, with one key. Opens a connection for each call: calls are rare and far apart."""

    url: str
    key: str = field(repr=False)
    max_bytes: int
    """Bytes of a preview, at most."""
    version: KnownVersion = field(default_factory=KnownVersion, compare=False, repr=False)

    async def preview(self, asset_id: UUID) -> bytes:
        """Fetch the encoded preview, which is what Immich computes on: upright, no EXIF; where a picture was edited in
        Immich 3.2 and newer, the edited one.

        Raises ``ServiceError``: UNKNOWN_ASSET if Immich has no such picture for this key; BODY_TOO_LARGE;
        IMMICH_UNAVAILABLE.
        """
        parameters = {"size": "preview", **({"edited": "true"} if await self._computes_on_edits() else {})}
        async with self._ask("GET", f"/api/assets/{asset_id}/thumbnail", params=parameters) as response:
            if response.status_code in (400, 404):
                raise ServiceError(
                    ErrorCode.UNKNOWN_ASSET,
                    f"Immich has no preview of the asset {asset_id} for this key: it was deleted, has no preview yet, "
                    "or belongs to somebody whose pictures the user of IMMICH_API_KEY may not see.",
                )
            self._check(response, "the permission asset.view")
            picture = bytearray()
            async for piece in response.aiter_bytes():
                picture += piece
                if len(picture) > self.max_bytes:
                    raise ServiceError(
                        ErrorCode.BODY_TOO_LARGE,
                        f"Immich's preview of the asset {asset_id} is larger than the {self.max_bytes:,} bytes of "
                        "MAX_BODY_BYTES.",
                    )
            return bytes(picture)

    async def _computes_on_edits(self) -> bool:
        """Return whether this Immich reads, and finds faces in, what an edit has left of a picture: 3.2 and newer do.
        Written from what is known of it; not run.
        """
        found = await self.version.read(self._version)
        return found is not None and found >= _EDITS_SINCE

    async def _version(self) -> bytes:
        async with self._ask("GET", VERSION_PATH) as response:
            return await response.aread()

    async def refresh_faces(self, asset_id: UUID) -> None:
        """Have Immich look for the faces of the asset again, in a job of its own: this returns when the job waits in
        its queue.

        Raises ``ServiceError``: UNKNOWN_ASSET, IMMICH_UNAVAILABLE.
        """
        async with self._ask(
            "POST", "/api/assets/jobs", json={"assetIds": [str(asset_id)], "name": "refresh-faces"}
        ) as response:
            if response.status_code in (400, 404):
                raise ServiceError(
                    ErrorCode.UNKNOWN_ASSET,
                    f"Immich has no asset {asset_id} that the user of IMMICH_API_KEY may change.",
                )
            self._check(response, "the permissions asset.update and job.create")

    def _check(self, response: httpx.Response, permission: str) -> None:
        if response.status_code in (401, 403):
            raise KeyRefused(
                f"Immich at {shown_url(self.url)} refuses IMMICH_API_KEY (status {response.status_code}). Make a key "
                f"in Immich under Account settings, API keys, with {permission}."
            )
        if not response.is_success:
            raise _unavailable(
                f"Immich at {shown_url(self.url)} answered with status {response.status_code}. Its log may say why."
            )

    @asynccontextmanager
    async def _ask(self, method: str, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Send a request, and yield the response once its head has come.

        Raises ``ServiceError`` IMMICH_UNAVAILABLE if anything goes wrong with the connection, while the body comes too.
        """
        try:
            async with (
                httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client,
                client.stream(method, self.url + path, headers={"x-api-key": self.key}, **content) as response,
            ):
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unavailable(
                f"Immich at {shown_url(self.url)} cannot be asked ({_reason(error)}). Is IMMICH_URL right, and is "
                "it running?"
            ) from error


@dataclass(frozen=True)
class ImmichUsers:
    """Immich with the keys of several users: an asset is asked for by the key that its owner's assets came by before,
    then by the others in order.
    """

    clients: Sequence[ImmichClient]
    """At least one."""
    _good: KeysOfOwners[ImmichClient] = field(default_factory=KeysOfOwners, compare=False, repr=False)

    async def preview(self, asset_id: UUID, owner: str) -> bytes:
        """Fetch the preview as ``ImmichClient.preview`` does. ``owner``: the id of the asset's user."""
        return await self._by_any(owner, lambda client: client.preview(asset_id))

    async def refresh_faces(self, asset_id: UUID, owner: str) -> None:
        """Queue the job as ``ImmichClient.refresh_faces`` does. ``owner``: the id of the asset's user."""
        await self._by_any(owner, lambda client: client.refresh_faces(asset_id))

    async def _by_any(self, owner: str, ask: Callable[[ImmichClient], Awaitable[T]]) -> T:
        refusal: ServiceError | None = None
        for client in self._good.in_order(owner, self.clients):
            try:
                result = await ask(client)
            except ServiceError as error:
                if error.code is not ErrorCode.UNKNOWN_ASSET and not isinstance(error, KeyRefused):
                    raise
                refusal = refusal or error
            else:
                self._good.keep(owner, client)
                return result
        assert refusal is not None  # noqa: S101 - there is at least one client
        raise refusal


def immich_users(config: Settings) -> ImmichUsers:
    """Return Immich as the settings name it. Raises ``ServiceError`` IMMICH_UNAVAILABLE where they do not."""
    keys = keys_of(config)
    if not config.immich_url or not keys:
        raise _unavailable(
            "Re-doing an asset of Immich needs IMMICH_URL and IMMICH_API_KEY: set both and start the service again."
        )
    return _immich(config.immich_url, keys, config.max_body_bytes)


@lru_cache(maxsize=1)
def _immich(url: str, keys: tuple[str, ...], max_bytes: int) -> ImmichUsers:
    """Return the same object as before, with what it has learned, as long as the settings are the same."""
    version = KnownVersion()
    return ImmichUsers([ImmichClient(url, key, max_bytes, version) for key in keys])


def _reason(error: Exception) -> str:
    """Return what ``error`` says; of an address that is none only that, since the text may hold a piece of a
    password.
    """
    return type(error).__name__ if isinstance(error, httpx.InvalidURL) else f"{type(error).__name__}: {error}"


def _unavailable(message: str) -> ServiceError:
    return ServiceError(ErrorCode.IMMICH_UNAVAILABLE, message)
