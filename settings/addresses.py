"""Addresses and headers as people write them in settings: checked, and taken apart. Imports nothing of the project."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

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


def check_url(url: str) -> None:
    """Raise ``ValueError`` unless ``url`` is where a server may be. Never repeats it: it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # which quotes what it could not read
        raise ValueError("an address must read like http://gpu-box:3003, with a port from 0 to 65535.") from None
    if "@" in parts.netloc:
        raise ValueError(
            "an address holds a user name or password. Send those by UPSTREAM_HEADER (`Authorization: Basic …`)."
        )
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
