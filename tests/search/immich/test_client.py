"""Asking Immich itself for a preview and for its job for faces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from errors import ErrorCode, ServiceError
from search.immich.client import ImmichClient, immich_users
from search.immich.visitor import credentials_of_key
from settings import Settings
from tests.fake_immich import FakeImmich
from tools.harness.server import free_port

ASSET, KEY = uuid4(), credentials_of_key("key")


@pytest.fixture
def immich() -> Iterator[FakeImmich]:
    with FakeImmich() as fake:
        fake.previews[str(ASSET)] = b"x" * 1000
        yield fake


def client(immich: FakeImmich, *, key: str = "immich-key", limit: int = 10_000) -> ImmichClient:
    settings = Settings(_env_file=None, immich_url=immich.url + "/", immich_api_key=key, max_body_bytes=limit)
    (one,) = immich_users(settings).clients
    return one


def refused(api: ImmichClient, asset: UUID = ASSET) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(api.preview(asset))
    return caught.value


def test_a_preview_comes_as_immich_keeps_it(immich: FakeImmich) -> None:
    assert asyncio.run(client(immich).preview(ASSET)) == b"x" * 1000
    assert immich.requests == [f"GET /api/assets/{ASSET}/thumbnail?size=preview"]


def test_an_asset_that_immich_does_not_show_is_unknown(immich: FakeImmich) -> None:
    error = refused(client(immich), uuid4())
    assert error.code is ErrorCode.UNKNOWN_ASSET
    immich.status = 404
    assert refused(client(immich)).code is ErrorCode.UNKNOWN_ASSET


def test_a_preview_beyond_the_limit_is_not_read_to_its_end(immich: FakeImmich) -> None:
    assert refused(client(immich, limit=999)).code is ErrorCode.BODY_TOO_LARGE
    assert asyncio.run(client(immich, limit=1000).preview(ASSET))


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_an_immich_in_trouble_is_unavailable(immich: FakeImmich, status: int) -> None:
    immich.status = status
    error = refused(client(immich))
    assert error.code is ErrorCode.IMMICH_UNAVAILABLE
    assert str(status) in error.message


def test_a_key_that_immich_refuses_says_which_setting_to_mend(immich: FakeImmich) -> None:
    error = refused(client(immich, key="wrong"))
    assert error.code is ErrorCode.IMMICH_UNAVAILABLE
    assert "IMMICH_API_KEY" in error.message
    assert "wrong" not in error.message


def test_an_immich_that_is_not_there_is_unavailable() -> None:
    error = refused(ImmichClient(f"http://127.0.0.1:{free_port()}", KEY, 1000))
    assert error.code is ErrorCode.IMMICH_UNAVAILABLE
    assert "IMMICH_URL" in error.message


@pytest.mark.parametrize(
    "url", ["http://me:SECRET@127.0.0.1:1", "http://me:SECRET@", "http://me:SEC/RET@host:x", "http://127.0.0.1:SECRET@"]
)
def test_what_an_address_holds_beside_its_host_is_not_told(url: str) -> None:
    message = refused(ImmichClient(url, KEY, 1000)).message
    assert "SEC" not in message
    assert "IMMICH_URL" in message


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://host"])
def test_an_address_that_is_none_is_said_to_be_wrong(url: str) -> None:
    assert "IMMICH_URL" in refused(ImmichClient(url, KEY, 1000)).message


def test_without_an_address_and_a_key_both_settings_are_named() -> None:
    with pytest.raises(ServiceError, match="IMMICH_URL and IMMICH_API_KEY"):
        immich_users(Settings(_env_file=None, immich_url="", immich_api_key=None))


def test_faces_are_left_to_immichs_own_job(immich: FakeImmich) -> None:
    asyncio.run(client(immich).refresh_faces(ASSET))
    assert immich.jobs == [{"assetIds": [str(ASSET)], "name": "refresh-faces"}]


def test_an_asset_is_asked_for_by_the_key_of_whoever_may_see_it(immich: FakeImmich) -> None:
    config = Settings(_env_file=None, immich_url=immich.url, immich_api_key="ann", immich_api_keys="bob, immich-key")
    users = immich_users(config)
    owner = str(uuid4())
    assert asyncio.run(users.preview(ASSET, owner)) == b"x" * 1000
    assert len(immich.requests) == 3
    asyncio.run(users.refresh_faces(ASSET, owner))
    assert len(immich.requests) == 4
    with pytest.raises(ServiceError) as unknown:
        asyncio.run(users.preview(uuid4(), owner))
    assert unknown.value.code is ErrorCode.UNKNOWN_ASSET
    immich.status = 500
    with pytest.raises(ServiceError, match="500"):
        asyncio.run(users.preview(ASSET, owner))
    assert len(immich.requests) == 8


@pytest.mark.parametrize(
    ("version", "expected"), [((2, 5, 6), b"x" * 1000), ((3, 1, 0), b"x" * 1000), ((3, 2, 0), b"e")]
)
def test_an_edited_picture_comes_as_immich_computes_on_it(
    immich: FakeImmich, version: tuple[int, int, int], expected: bytes
) -> None:
    immich.edited[str(ASSET)], immich.version = b"e", version
    assert asyncio.run(client(immich).preview(ASSET)) == expected


def test_immich_is_asked_for_its_version_once_for_many_pictures(immich: FakeImmich) -> None:
    config = Settings(_env_file=None, immich_url=immich.url, immich_api_key="immich-key")
    for _ in range(3):
        assert asyncio.run(immich_users(config).preview(ASSET, "owner"))
    assert immich.version_requests == 1
