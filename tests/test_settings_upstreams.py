"""Settings of upstreams: addresses and names are told apart, and what cannot work is refused without secrets."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from settings import Settings
from settings.addresses import DnsName


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"route_faces": "upstream"}, "ROUTE_FACES=upstream needs IMMICH_API"),
        ({"immich_api": "gpu-box:3003"}, "must read like http://gpu-box"),
        ({"immich_api": "http://gpu-box:3003,ftp://b"}, "must read like http://gpu-box"),
        ({"immich_api": "http://"}, "must read like http://gpu-box"),
        ({"immich_api": "http://a:port"}, "port from 0 to 65535"),
        ({"immich_api": "http://me:hush@gpu-box"}, "UPSTREAM_HEADER"),
        ({"immich_api_ocr": "gpu-box:3003"}, "must read like http://gpu-box"),
        ({"immich_api_clip": "http://a:1", "route_clip": "upstream", "route_ocr": "upstream"}, "ROUTE_OCR=upstream"),
        ({"immich_api": "dns://ocr"}, "must read like dns://immich-bento-ocr:3003"),
        ({"immich_api": "dns://:3003"}, "must read like dns://immich-bento-ocr:3003"),
        ({"immich_api": "dns://ocr:3003?ttl=5"}, "must read like dns://immich-bento-ocr:3003"),
        ({"immich_api": "dns://ocr:99999"}, "port from 0 to 65535"),
        ({"immich_api": "dns://ocr:3003?server=hush"}, "?server=10.0.0.2"),
        ({"immich_api": "dns://me:hush@ocr:3003"}, "UPSTREAM_HEADER"),
        ({"immich_api": "http://hush..b"}, "parts of 1 to 63 characters"),
        ({"immich_api": "dns://xn--:3003"}, "parts of 1 to 63 characters"),
        ({"hf_endpoint": "http://me:hush@hf..mirror"}, "parts of 1 to 63 characters"),
        ({"modelscope_endpoint": f"http://{'hush' * 16}/"}, "parts of 1 to 63 characters"),
        ({"upstream_header": "hush"}, "Name: value"),
        ({"upstream_header": "X-Key: hush\r\nX-Other: hush"}, "Name: value"),
        ({"upstream_header": "Bad name: hush"}, "Name: value"),
        ({"upstream_header": "X-Key:"}, "Name: value"),
        ({"upstream_header": "Host: hush"}, "Host cannot be set"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_sentence_without_secrets(
    settings: dict[str, str], told: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, **settings)  # type: ignore[arg-type]
    (error,) = caught.value.errors()
    assert told in error["msg"]
    assert "hush" not in error["msg"]


def test_addresses_are_told_apart_and_their_last_slash_does_not_count() -> None:
    settings = Settings(
        _env_file=None, immich_api=" http://a:1/, https://b/ml ,http://a:1", upstream_header=SecretStr("X-Key:  a: b ")
    )
    assert settings.upstreams() == ("http://a:1", "https://b/ml")
    assert settings.upstream_header_pair == ("X-Key", "a: b")
    assert "a: b" not in repr(settings)


def test_dns_names_are_read_with_their_path_and_the_server_to_ask() -> None:
    settings = Settings(
        _env_file=None,
        immich_api="dns://OCR.photos:3003/, dns://box:80/ml/?server=[fd00::1]:5353,dns://a:1?server=10.0.0.2",
        immich_api_ocr="http://b:1",
    )
    first, second, third = settings.upstreams()
    assert first == DnsName("ocr.photos", 3003, "", None)
    assert second == DnsName("box", 80, "/ml", ("fd00::1", 5353))
    assert third == DnsName("a", 1, "", ("10.0.0.2", 53))
    assert isinstance(second, DnsName)
    assert (second.url("10.0.0.1"), second.url("fd00::2")) == ("http://10.0.0.1:80/ml", "http://[fd00::2]:80/ml")
    assert str(second) == "dns://box:80/ml"
    assert settings.upstreams(settings.immich_api_ocr) == ("http://b:1",)
    assert settings.upstreams(settings.immich_api_faces) == settings.upstreams()


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({}, []),
        ({"immich_api": "http://a:1"}, ["IMMICH_API"]),
        ({"immich_api": "http://a:1", "route_ocr": "upstream"}, []),
        ({"immich_api_ocr": "http://a:1"}, ["IMMICH_API_OCR"]),
        ({"immich_api_ocr": "http://a:1", "route_ocr": "upstream"}, []),
        (
            {"immich_api_ocr": "http://a:1", "route_ocr": "upstream", "immich_api_clip": "http://b:1"},
            ["IMMICH_API_CLIP"],
        ),
        ({"immich_api_faces": "dns://faces:3003", "immich_api": "http://a:1"}, ["IMMICH_API_FACES", "IMMICH_API"]),
    ],
)
def test_servers_that_nothing_is_routed_to_are_told(settings: dict[str, str], unused: list[str]) -> None:
    sentences = Settings(_env_file=None, **settings).unused_servers()  # type: ignore[arg-type]
    assert [sentence.split()[0] for sentence in sentences] == unused
    assert all("upstream" in sentence for sentence in sentences)
