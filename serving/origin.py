"""The origin of a request: whether a browser sends it on behalf of another site's page."""

from __future__ import annotations

from starlette.datastructures import Headers

from errors import ErrorCode, ServiceError

_OWN = ("same-origin", "none")
"""Values of ``Sec-Fetch-Site`` (Fetch Metadata) of a page of ours, and of what a person typed or opened."""


def refuse_other_sites(headers: Headers) -> None:
    """Raise ``ServiceError`` FOREIGN_SITE if a browser sent the request from a page of another site.

    Any page may make a browser POST a form to any address that the browser reaches. Browsers say so
    (``Sec-Fetch-Site``, ``Origin``); Immich and scripts send neither header.
    """
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None:
        foreign = site.strip().lower() not in _OWN
    else:
        foreign = origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()
    if foreign:
        raise ServiceError(
            ErrorCode.FOREIGN_SITE,
            "A page of another site sent this request through a browser, which is not answered here. Send it from a "
            "program, without the headers Origin and Sec-Fetch-Site.",
        )
