"""Addresses and headers as people write them in settings: checked, and taken apart. Imports nothing of the project."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

from pydantic import SecretStr

_FRAMING_HEADERS = {
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "upgrade",
    "x-immich-bento-hop",
}
_DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class DnsName:
    """``dns://name:port/path?server=address:port``: every address that a DNS name has is a server by itself."""

    name: str
    port: int
    path: str
    """Before ``/predict``: empty, or with a slash at its beginning and none at its end."""
    server: tuple[str, int] | None
    """Address and port of the DNS server to ask; None: as the system does."""

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"dns://{self.name}:{self.port}{self.path}"

    def url(self, address: str) -> str:
        """Return where the server at ``address``, an IPv4 or IPv6 address of the name, is asked."""
        return f"http://{f'[{address}]' if ':' in address else address}:{self.port}{self.path}"


def upstream(address: str) -> str | DnsName:
    """Return an address of ``IMMICH_API`` as a URL without a slash at its end, or as a DNS name to follow.

    Raises ``ValueError`` where it is neither. Never repeats it: it may hold a password.
    """
    if not address.startswith("dns://"):
        check_url(address)
        return address.rstrip("/")
    parts = _split(address)
    servers = parse_qs(parts.query, keep_blank_values=True).pop("server", [])
    if (
        not parts.hostname
        or not parts.port
        or parts.fragment
        or re.search(r"\s", address)
        or parts.query != (f"server={servers[0]}" if servers else "")
    ):
        raise ValueError("a DNS name must read like dns://immich-bento-ocr:3003, with a port.")
    server = _dns_server(servers[0]) if servers else None
    return DnsName(parts.hostname, parts.port, parts.path.rstrip("/"), server)


def _dns_server(text: str) -> tuple[str, int]:
    parts = _split(f"//{text}")
    try:
        return str(ipaddress.ip_address(parts.hostname or "")), parts.port or _DNS_PORT
    except ValueError:
        raise ValueError("the DNS server must be an address, such as ?server=10.0.0.2:53.") from None


def _split(url: str, *, credentials: bool = False) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # which quotes what it could not read
        raise ValueError("an address must read like http://gpu-box:3003, with a port from 0 to 65535.") from None
    try:
        (parts.hostname or "").encode("idna").decode("idna")
    except UnicodeError:  # which quotes it
        raise ValueError("the host of an address must have a name of parts of 1 to 63 characters each.") from None
    if "@" in parts.netloc and not credentials:
        raise ValueError(
            "an address holds a user name or password. Send those by UPSTREAM_HEADER (`Authorization: Basic …`)."
        )
    return parts


def check_url(url: str, *, credentials: bool = False) -> None:
    """Raise ``ValueError`` unless ``url`` is where a server may be. Never repeats it: it may hold a password.

    ``credentials``: it may hold a user and a password, in which ``/`` is written ``%2F``.
    """
    parts = _split(url, credentials=credentials)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or re.search(r"\s", url)
    ):
        raise ValueError("an address must read like http://gpu-box:3003, without a query.")


def split_header(text: str) -> tuple[str, str]:
    """Return name and value of ``Name: value``.

    Raises ``ValueError``, which does not repeat it: the value is a secret.
    """
    name, _, value = (part.strip() for part in text.partition(":"))
    if (
        not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
        or not value
        or not (value.isascii() and value.isprintable())
    ):
        raise ValueError("it must read `Name: value`, in printable ASCII characters.")
    if name.lower() in _FRAMING_HEADERS:
        raise ValueError(f"the header {name} cannot be set.")
    return name, value


def shown_url(url: str, key: SecretStr | None = None) -> str:
    """Return ``url`` as messages and logs may show it: without user name and password, query and fragment, and without
    ``key``, a step of its path.
    """
    scheme, _, rest = url.rpartition("://")
    try:
        # A password with a slash in it would end the host too early: everything before the last @ goes.
        parts = urlsplit(f"{scheme}://{rest.rpartition('@')[2]}")
    except ValueError:
        return "the address"
    path = parts.path if key is None else f"{parts.path}/".replace(f"/{key.get_secret_value()}/", "/").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
