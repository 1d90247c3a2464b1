"""What all tests share: property tests without a clock, and Pillow's warnings silent as they are in the service."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    # runners.pictures.header sets this once for a process; pytest sets the filters anew for each test.
    config.addinivalue_line("filterwarnings", r"ignore:::PIL\..*")
