"""Two users of a fake Immich, and a search bar before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.immich_search.home import Home
from tests.fake_immich_search import FakeSearchImmich, User


@pytest.fixture
def anna() -> User:
    return User("anna")


@pytest.fixture
def ben() -> User:
    return User("ben")


@pytest.fixture
def immich(anna: User, ben: User) -> Iterator[FakeSearchImmich]:
    with FakeSearchImmich(anna, ben) as fake:
        yield fake


@pytest.fixture
def home(immich: FakeSearchImmich, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(immich, monkeypatch)
