"""The keys by which users of Immich have let this service in, and which of them is good for whose pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from settings import Settings, names

K = TypeVar("K")


def keys_of(config: Settings) -> tuple[str, ...]:
    """Return the distinct keys that IMMICH_API_KEY and IMMICH_API_KEYS name, in order."""
    secrets = [secret.get_secret_value() for secret in (config.immich_api_key, config.immich_api_keys) if secret]
    return names(*secrets)


class KeysOfOwners(Generic[K]):
    """By which of several keys an owner's pictures could be had before: it is the first to try."""

    def __init__(self) -> None:
        self._good: dict[str, K] = {}

    def in_order(self, owner: str, keys: Iterable[K]) -> list[K]:
        """Return ``keys``, the one that was good for ``owner`` before the others."""
        good = self._good.get(owner)
        return sorted(keys, key=lambda one: one != good)

    def keep(self, owner: str, key: K) -> None:
        """Note that a picture of ``owner`` was had by ``key``."""
        self._good[owner] = key
