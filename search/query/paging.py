"""Cursors: where the next page of a search begins. Opaque to callers, and good for the search that they came from
alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from errors import ErrorCode, ServiceError

_DIGEST_BYTES = 8
_PLACE_BYTES = 4


def cursor(place: int, identity: str) -> str:
    """Return the cursor of the page after ``place`` hits of the search that ``identity`` tells apart from others."""
    return base64.urlsafe_b64encode(place.to_bytes(_PLACE_BYTES, "big") + _digest(identity)).decode().rstrip("=")


def start(cursor: str | None, identity: str) -> int:
    """Return how many hits came before this page. Raises ``ServiceError`` INVALID_REQUEST for a cursor that is broken
    or another search's.
    """
    if cursor is None:
        return 0
    try:
        read = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        read = b""
    if len(read) != _PLACE_BYTES + _DIGEST_BYTES or read[_PLACE_BYTES:] != _digest(identity):
        raise ServiceError(
            ErrorCode.INVALID_REQUEST,
            "The cursor is not of this search: send the same query, mode and owner, or leave the cursor out.",
        )
    return int.from_bytes(read[:_PLACE_BYTES], "big")


def _digest(identity: str) -> bytes:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
