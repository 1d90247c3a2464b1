"""The databases of search's tests, for those of the page over them, and an Immich."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from search.store.database import Database
from tests.fake_immich_search import FakeSearchImmich
from tests.search.conftest import database, embedded_server, immich_database, postgresql
from tests.web.library import Library

__all__ = ["database", "embedded_server", "immich_database", "postgresql"]


@pytest.fixture
def library(immich_database: Database) -> Iterator[Library]:
    with FakeSearchImmich() as immich:
        yield Library(immich_database, immich)
