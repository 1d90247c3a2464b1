"""Immich's own, as the page shows it: pictures and faces, with the rights of whoever looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from errors import ErrorCode, ServiceError
from search.answers import Answer
from search.immich.exchange import Reply
from search.immich.keys import KeysOfOwners
from search.immich.visitor import Credentials, Visitors
from web.guest import Guest, unknown

_LARGEST_JSON = 4 * 2**20
"""Bytes."""
_NOT_THEIRS = (400, 401, 403, 404)
_CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")


class Face(Answer):
    """A face that Immich has found."""

    x1: float
    """Left, as a fraction of the picture's width; the others likewise."""
    y1: float
    x2: float
    y2: float
    name: str | None
    """Of the person, where Immich has been told it."""


class FacesAnswer(Answer):
    """The faces of a picture."""

    faces: Sequence[Face]
    found_at: datetime | None = None
    """Time of Immich's last look for them; null where it does not tell."""


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A line of text where Immich shows it: on an edited picture where the edit has brought it."""

    text: str
    box: Sequence[float]
    """x1, y1 … x4, y4, as fractions of the picture's width and height."""


@dataclass(slots=True)
class ImmichPictures:
    """Immich, asked in the name of guests."""

    visitors: Visitors | None
    """None: there is no IMMICH_URL."""
    max_bytes: int
    """Of a picture."""
    _keys: KeysOfOwners[Credentials] = field(default_factory=KeysOfOwners)

    async def picture(self, guest: Guest, owner: str, asset: UUID, size: str) -> tuple[bytes, str]:
        """Return the encoded thumbnail (``size`` is ``thumbnail``) or preview, and its content type; where the picture
        was edited, the edited one, as Immich's own pages show it.

        Raises ``ServiceError`` UNKNOWN_ASSET, IMMICH_UNAVAILABLE.
        """
        path = f"/api/assets/{asset}/thumbnail?size={size}&edited=true"
        reply = await self._ask(guest, owner, asset, path, self.max_bytes)
        kind = next((value for name, value in reply.headers if name == "content-type"), "")
        if not kind.startswith("image/") or "svg" in kind:
            raise _unavailable(f"sent {kind[:50] or 'nothing'} where a picture was asked for")
        return reply.body, kind

    async def faces(self, guest: Guest, owner: str, asset: UUID) -> FacesAnswer:
        """Return the faces of an asset, from left to right. Raises ``ServiceError`` UNKNOWN_ASSET,
        IMMICH_UNAVAILABLE.
        """
        reply = await self._ask(guest, owner, asset, f"/api/faces?id={asset}", _LARGEST_JSON)
        try:
            faces = [_face(one) for one in orjson.loads(reply.body)]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unavailable(f"told of faces in a form that is not known ({type(error).__name__})") from error
        return FacesAnswer(faces=sorted(faces, key=lambda face: (face.x1, face.y1)))

    async def texts(self, guest: Guest, owner: str, asset: UUID) -> Sequence[PlacedText]:
        """Return the visible lines of an asset, in no order. Raises ``ServiceError`` UNKNOWN_ASSET,
        IMMICH_UNAVAILABLE.
        """
        reply = await self._ask(guest, owner, asset, f"/api/assets/{asset}/ocr", _LARGEST_JSON)
        try:
            told = orjson.loads(reply.body)
            return [PlacedText(str(one["text"]), [float(one[corner]) for corner in _CORNERS]) for one in told]
        except (ValueError, TypeError, KeyError) as error:
            raise _unavailable(f"told of text in a form that is not known ({type(error).__name__})") from error

    async def address(self) -> str:
        """Return where people find Immich: the external domain that it is set to; '' where it is set to none."""
        return str((await self._public("/api/server/config")).get("externalDomain") or "").rstrip("/")

    async def version(self) -> str:
        """Return Immich's version. Raises ``ServiceError`` IMMICH_UNAVAILABLE."""
        found = await self._public("/api/server/version")
        return ".".join(str(found.get(part, "?")) for part in ("major", "minor", "patch"))

    async def _public(self, path: str) -> dict[str, Any]:
        reply = await self._reached().ask("GET", path, _NOBODY, most=_LARGEST_JSON)
        try:
            found = orjson.loads(reply.body) if reply.status == 200 else None
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise _unavailable(f"answered {path} with status {reply.status}")
        return found

    async def _ask(self, guest: Guest, owner: str, asset: UUID, path: str, most: int) -> Reply:
        """Ask with each of the guest's credentials until one is good: first what was good for the owner before."""
        visitors = self._reached()
        for credentials in self._keys.in_order(owner, guest.credentials):
            reply = await visitors.ask("GET", path, credentials, most=most)
            if reply.status == 200:
                if guest.user is None:
                    self._keys.keep(owner, credentials)
                return reply
            if reply.status not in _NOT_THEIRS:
                raise _unavailable(f"answered with status {reply.status}")
        raise unknown(asset)

    def _reached(self) -> Visitors:
        if self.visitors is None:
            raise ServiceError(
                ErrorCode.IMMICH_UNAVAILABLE, "The pictures are Immich's: set IMMICH_URL and start the service again."
            )
        return self.visitors


_NOBODY = Credentials((), "", False, b"")


def _face(told: dict[str, Any]) -> Face:
    width, height = float(told["imageWidth"]) or 1.0, float(told["imageHeight"]) or 1.0
    person = told.get("person") or {}
    return Face(
        x1=told["boundingBoxX1"] / width,
        y1=told["boundingBoxY1"] / height,
        x2=told["boundingBoxX2"] / width,
        y2=told["boundingBoxY2"] / height,
        name=person.get("name") or None,
    )


def _unavailable(what: str) -> ServiceError:
    return ServiceError(ErrorCode.IMMICH_UNAVAILABLE, f"Immich {what}. Its log may say why.")
