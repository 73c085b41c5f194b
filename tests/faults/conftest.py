"""A house (the engine on a simulated world) with a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.store.registry import Registry
from tests.engine.house import House


@pytest.fixture
def house(registry: Registry, database_url: str) -> Iterator[House]:
    opened = House(database_url)
    yield opened
    opened.close()
