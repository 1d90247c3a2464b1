"""The address of a request's sender, by which shares and turns are given."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

_IPV6_NETWORK = 64
"""Bits: a household or a machine is given a network of this size, and every address in it."""
_NOBODY = "local"
"""The client of a request over a Unix socket."""


def client_address(request: Request) -> str:
    """Return the address that ``request`` came from; of an IPv6 address, the /64 network that it is in.

    Behind a proxy that ``TRUSTED_PROXIES`` names it is the one that the proxy says (``X-Forwarded-For``): uvicorn has
    put it into the request by then. Anything else that a header claims is ignored.
    """
    if request.client is None:
        return _NOBODY
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return request.client.host[:100]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))
