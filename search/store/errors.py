"""The error of a database that cannot be used."""

from __future__ import annotations

from errors import ErrorCode, ServiceError


class SearchUnavailable(ServiceError):
    """SEARCH_UNAVAILABLE: there is no database, or not one that search can use. The message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.SEARCH_UNAVAILABLE, message)

    def __reduce__(self) -> tuple[type[SearchUnavailable], tuple[str]]:
        return type(self), (self.message,)
