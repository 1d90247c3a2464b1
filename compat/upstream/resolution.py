"""The addresses that a DNS name has now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from settings.addresses import DnsName

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

_WITHIN = 5.0
"""Seconds for one look, both families of addresses together."""


class NoAddress(Exception):
    """A name has no address, or nobody says which. The message tells why in a few words."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The addresses of a DNS name."""

    addresses: tuple[str, ...]
    """IPv4 and IPv6, at least one, in a fixed order."""
    ttl: int
    """Seconds for which the DNS server says so."""


async def resolve(name: DnsName) -> Resolved:
    """Return the addresses of ``name``, A and AAAA records. Short names are looked for in the domains that
    ``/etc/resolv.conf`` lists, unless ``name`` says which server is asked. Raises ``NoAddress``.
    """
    # Not at the top: most services follow no name.
    import dns.exception
    import dns.resolver

    try:
        answers = await _resolver(name).resolve_name(name.name, search=name.server is None, lifetime=_WITHIN)
    except dns.resolver.NXDOMAIN:
        raise NoAddress("its name is not known") from None
    except dns.resolver.NoAnswer:
        raise NoAddress("its name has no address") from None
    except dns.exception.Timeout:
        raise NoAddress("the DNS server does not answer in time") from None
    except dns.resolver.NoResolverConfiguration:
        raise NoAddress("/etc/resolv.conf names no DNS server") from None
    except (dns.exception.DNSException, OSError):
        raise NoAddress("the DNS server answers with an error") from None
    ttls = [answer.rrset.ttl for answer in answers.values() if answer.rrset is not None]
    return Resolved(tuple(sorted(answers.addresses())), min(ttls))


def _resolver(name: DnsName) -> Resolver:
    import dns.asyncresolver
    import dns.nameserver

    if name.server is None:
        return dns.asyncresolver.Resolver()  # reads the file anew, as it may have changed
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(*name.server)]
    return resolver
