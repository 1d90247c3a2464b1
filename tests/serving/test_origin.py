"""Forms of other sites, which browsers send on their behalf."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from errors import ErrorCode, ServiceError
from serving.origin import refuse_other_sites

HOST = {"host": "nas:3003"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-mode": "cors"},  # as undici in Immich
        {"origin": "http://nas:3003"},
        {"origin": "http://NAS:3003"},
        {"sec-fetch-site": "same-origin", "origin": "http://nas:3003"},
        {"sec-fetch-site": "none"},
    ],
)
def test_programs_and_pages_of_this_service_are_answered(headers: dict[str, str]) -> None:
    refuse_other_sites(Headers(HOST | headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://nas"},
        {"origin": "http://nas:3003.evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://[bad"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://nas:3003"},
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ServiceError) as error:
        refuse_other_sites(Headers(HOST | headers))
    assert error.value.code is ErrorCode.FOREIGN_SITE
