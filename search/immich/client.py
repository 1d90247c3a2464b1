"""Immich's own HTTP API, as far as re-doing one asset needs it: its preview picture, and its job for faces.

It is asked with the keys of the settings, or in the name of a visitor, whose own rights then decide.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from errors import ErrorCode, ServiceError
from search.immich.exchange import AnswerTooLarge, ImmichHttp, Reply
from search.immich.keys import KeysOfOwners, keys_of
from search.immich.version import VERSION_PATH, KnownVersion, Version
from search.immich.visitor import Credentials, ask_as, credentials_of_key
from settings import Settings
from settings.addresses import shown_url

T = TypeVar("T")

_EDITS_SINCE: Version = (3, 2)
_SECONDS = 60.0
"""Seconds for one answer."""
_LARGEST = 2**20
"""Bytes of an answer that is no picture."""


class KeyRefused(ServiceError):
    """IMMICH_UNAVAILABLE: the key is wrong, or lacks a permission."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.IMMICH_UNAVAILABLE, message)


@dataclass(frozen=True)
class ImmichClient:
    """Immich at one address, asked by one user. Opens a connection for each call: calls are rare and far apart."""

    url: str
    credentials: Credentials = field(repr=False)
    max_bytes: int
    """Bytes of a preview, at most."""
    version: KnownVersion = field(default_factory=KnownVersion, compare=False, repr=False)
    of_visitor: bool = False
    """True: the credentials are a visitor's own. False: they are a key of the settings."""

    async def preview(self, asset_id: UUID) -> bytes:
        """Fetch the encoded preview, which is what Immich computes on: upright, no EXIF; where a picture was edited in
        Immich 3.2 and newer, the edited one.

        Raises ``ServiceError``: UNKNOWN_ASSET if Immich has no such picture for this user; BODY_TOO_LARGE; FORBIDDEN
        (of a visitor alone); IMMICH_UNAVAILABLE.
        """
        edited = "&edited=true" if await self._computes_on_edits() else ""
        try:
            path = f"/api/assets/{asset_id}/thumbnail?size=preview{edited}"
            reply = await self._ask("GET", path, most=self.max_bytes)
        except AnswerTooLarge as error:
            raise ServiceError(
                ErrorCode.BODY_TOO_LARGE,
                f"Immich's preview of the asset {asset_id} is larger than the {self.max_bytes:,} bytes of "
                "MAX_BODY_BYTES.",
            ) from error
        if reply.status in (400, 404):
            raise ServiceError(
                ErrorCode.UNKNOWN_ASSET,
                f"Immich has no preview of the asset {asset_id} for {self._who}: it was deleted, has no preview yet, "
                "or belongs to somebody whose pictures they may not see.",
            )
        self._check(reply, "the permission asset.view")
        return reply.body

    async def _computes_on_edits(self) -> bool:
        """Return whether this Immich reads, and finds faces in, what an edit has left of a picture: 3.2 and newer do.
        Written from what is known of it; not run.
        """
        found = await self.version.read(self._version)
        return found is not None and found >= _EDITS_SINCE

    async def _version(self) -> bytes:
        return (await self._ask("GET", VERSION_PATH)).body

    async def refresh_faces(self, asset_id: UUID) -> None:
        """Have Immich look for the faces of the asset again, in a job of its own: this returns when the job waits in
        its queue.

        Raises ``ServiceError``: UNKNOWN_ASSET, FORBIDDEN (of a visitor alone), IMMICH_UNAVAILABLE.
        """
        job = {"assetIds": [str(asset_id)], "name": "refresh-faces"}
        reply = await self._ask("POST", "/api/assets/jobs", content=job)
        if reply.status in (400, 404):
            raise ServiceError(
                ErrorCode.UNKNOWN_ASSET,
                f"Immich has no asset {asset_id} that {self._who} may change. Faces are for its owner to find again.",
            )
        self._check(reply, "the permissions asset.update and job.create")

    @property
    def _who(self) -> str:
        return "whoever is logged in" if self.of_visitor else "the user of IMMICH_API_KEY"

    def _check(self, reply: Reply, permission: str) -> None:
        where = f"Immich at {shown_url(self.url)}"
        if reply.status in (401, 403) and self.of_visitor:
            raise ServiceError(
                ErrorCode.FORBIDDEN, f"{where} refuses you this (status {reply.status}): it takes {permission}."
            )
        if reply.status in (401, 403):
            raise KeyRefused(
                f"{where} refuses IMMICH_API_KEY (status {reply.status}). Make a key in Immich under Account settings, "
                f"API keys, with {permission}."
            )
        if not 200 <= reply.status < 300:
            raise _unavailable(f"{where} answered with status {reply.status}. Its log may say why.")

    async def _ask(self, method: str, path: str, *, content: Any = None, most: int = _LARGEST) -> Reply:
        """Return the answer, whatever its status. Raises ``ServiceError`` IMMICH_UNAVAILABLE, ``AnswerTooLarge``."""
        http = ImmichHttp(self.url, connections=1)
        try:
            return await ask_as(http, method, path, self.credentials, content=content, most=most, seconds=_SECONDS)
        finally:
            await http.close()


@dataclass(frozen=True)
class ImmichUsers:
    """Immich with the credentials of several users: an asset is asked for by those that its owner's assets came by
    before, then by the others in order.
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
    return ImmichUsers([ImmichClient(url, credentials_of_key(key), max_bytes, version) for key in keys])


def immich_visitor(config: Settings, credentials: Credentials) -> ImmichUsers:
    """Return Immich as a visitor with ``credentials`` may ask it."""
    return ImmichUsers([ImmichClient(config.immich_url, credentials, config.max_body_bytes, of_visitor=True)])


def _unavailable(message: str) -> ServiceError:
    return ServiceError(ErrorCode.IMMICH_UNAVAILABLE, message)
