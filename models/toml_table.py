"""A table of a catalog file, read key by key and strictly."""

from __future__ import annotations

import re
from typing import Any

from models.paths import UnsafeName, checked_name

_SHA256 = re.compile(r"[0-9a-f]{64}")


class CatalogError(ValueError):
    """A catalog file that cannot be used; the message names the file, the entry and what is wrong."""


class Table:
    """A TOML table that is read key by key; what has not been asked for when ``end`` is called is unknown."""

    def __init__(self, data: object, place: str) -> None:
        if not isinstance(data, dict):
            raise CatalogError(f"{place}: a table is expected, not {data!r}.")
        self.data: dict[str, Any] = data
        self.place = place
        self._read: set[str] = set()

    def error(self, what: str) -> CatalogError:
        return CatalogError(f"{self.place}: {what}.")

    def end(self) -> None:
        unknown = sorted(set(self.data) - self._read)
        if unknown:
            raise self.error(f"unknown key{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}")

    def _get(self, key: str) -> object:
        if key not in self.data:
            raise self.error(f"`{key}` is missing")
        self._read.add(key)
        return self.data[key]

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"`{key}` must be a text that is not empty, not {value!r}")
        return value

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if key in self.data else None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(f"`{key}` must be a list of texts, not {value!r}")
        return tuple(value)

    def size(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self.error(f"`{key}` must be a whole number above 0, not {value!r}")
        return value

    def optional_size(self, key: str) -> int | None:
        return self.size(key) if key in self.data else None

    def sha256(self) -> str:
        value = self.text("sha256")
        if not _SHA256.fullmatch(value):
            raise self.error(f"`sha256` must be 64 digits of 0-9a-f, not {value!r}")
        return value

    def relative_path(self, key: str) -> str:
        try:
            return checked_name(self.text(key))
        except UnsafeName as error:
            raise self.error(f"`{key}`: {error}") from error

    def table(self, key: str) -> Table:
        return Table(self._get(key), f"{self.place}: {key}")

    def tables(self, key: str) -> list[Table]:
        """Return the tables of a list, or one table on its own as a list."""
        value = self._get(key)
        items = value if isinstance(value, list) else [value]
        return [Table(item, f"{self.place}: {key}") for item in items]
