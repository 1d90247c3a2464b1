"""The proxy before Immich: whether its two search locations and the page lead here."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from immich_bento.doctor.finding import Finding, good, skipped, wrong

_SNIPPETS = "Add the locations of deploy/proxy/ (docs/containers.md) to the proxy, and reload it."
_LOCATIONS = (("POST", "/api/search/smart"), ("POST", "/api/search/metadata"), ("GET", "/ai"))
_MARK = "x-request-id"
"""A header of every answer of this service, and of none of Immich's."""


def check_proxy(url: str | None) -> Iterator[Finding]:
    """Yield whether each location of the proxy at ``url`` leads here; ``url`` None: that it was not looked at."""
    if url is None:
        yield skipped(
            "proxy", "not looked at", "`--proxy https://photos.example.org` looks whether its locations lead here."
        )
        return
    with httpx.Client(base_url=url.rstrip("/"), timeout=10, follow_redirects=True) as client:
        for method, path in _LOCATIONS:
            yield _check(client, method, path)


def _check(client: httpx.Client, method: str, path: str) -> Finding:
    subject = f"proxy {path}"
    try:
        answer = client.request(method, path, json={} if method == "POST" else None)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return wrong(subject, f"no answer ({type(error).__name__})", "Check the address, and that the proxy runs.")
    if _MARK in answer.headers:
        return good(subject, "leads to this service")
    return wrong(subject, f"leads elsewhere (status {answer.status_code})", _SNIPPETS)
