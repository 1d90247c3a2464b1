"""The databases of search's tests, for those of the page over them."""

from __future__ import annotations

from tests.search.conftest import database, embedded_server, immich_database, postgresql

__all__ = ["database", "embedded_server", "immich_database", "postgresql"]
