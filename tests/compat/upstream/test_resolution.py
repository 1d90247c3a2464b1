"""The addresses of a DNS name, asked of a DNS server on loopback."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from pathlib import Path

import dns.asyncresolver
import dns.nameserver
import pytest

from compat.upstream import resolution
from compat.upstream.resolution import NoAddress, Resolved, resolve
from settings.addresses import DnsName
from tests.fake_dns import FakeDns


@pytest.fixture
def server() -> Iterator[FakeDns]:
    with FakeDns(ttl=7) as running:
        yield running


def named(name: str, server: FakeDns) -> DnsName:
    return DnsName(name, 3003, "", ("127.0.0.1", server.port))


def test_both_families_of_addresses_are_found(server: FakeDns) -> None:
    server.addresses["ocr"] = ["10.0.0.2", "10.0.0.1", "fd00::1"]
    assert asyncio.run(resolve(named("ocr", server))) == Resolved(("10.0.0.1", "10.0.0.2", "fd00::1"), 7)


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["fd00::1"]])
def test_one_family_is_enough(addresses: list[str], server: FakeDns) -> None:
    server.addresses["ocr"] = addresses
    assert asyncio.run(resolve(named("ocr", server))).addresses == tuple(addresses)


def test_an_answer_that_is_too_long_for_udp_comes_by_tcp(server: FakeDns) -> None:
    server.fault = "cut"
    server.addresses["ocr"] = [f"10.0.{number // 200}.{number % 200}" for number in range(600)]
    assert len(asyncio.run(resolve(named("ocr", server))).addresses) == 600
    assert server.asked["ocr A tcp"] == 1


@pytest.mark.parametrize(
    ("addresses", "fault", "told"),
    [
        (None, "", "its name is not known"),
        ([], "", "its name has no address"),
        (["10.0.0.1"], "error", "the DNS server answers with an error"),
        (["10.0.0.1"], "silent", "the DNS server does not answer in time"),
    ],
)
def test_a_name_without_an_address_is_told_apart(
    addresses: list[str] | None, fault: str, told: str, server: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolution, "_WITHIN", 0.3)
    server.fault = fault  # type: ignore[assignment]
    if addresses is not None:
        server.addresses["ocr"] = addresses
    with pytest.raises(NoAddress) as caught:
        asyncio.run(resolve(named("ocr", server)))
    assert str(caught.value) == told


def test_a_short_name_is_looked_for_as_the_system_would(
    server: FakeDns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod of Kubernetes: ``ndots:5``, and the namespace's domain first."""
    file = tmp_path / "resolv.conf"
    file.write_text(
        textwrap.dedent("""\
            search photos.svc.cluster.local svc.cluster.local
            nameserver 127.0.0.1
            options ndots:5
        """)
    )

    class OnItsPort(dns.asyncresolver.Resolver):
        def __init__(self) -> None:
            super().__init__(filename=str(file))
            self.nameservers = [dns.nameserver.Do53Nameserver("127.0.0.1", server.port)]

    monkeypatch.setattr(dns.asyncresolver, "Resolver", OnItsPort)
    server.addresses["immich-bento-ocr.photos.svc.cluster.local"] = ["10.0.0.1"]
    assert asyncio.run(resolve(DnsName("immich-bento-ocr", 3003, "", None))).addresses == ("10.0.0.1",)
    server.addresses["ocr.elsewhere.svc.cluster.local"] = ["10.0.0.2"]
    assert asyncio.run(resolve(DnsName("ocr.elsewhere", 3003, "", None))).addresses == ("10.0.0.2",)
