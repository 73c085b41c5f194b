"""A harness (the engine on a simulated world) with a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.store.registry import Registry
from tests.harness.engine import Harness


@pytest.fixture
def harness(registry: Registry, database_url: str) -> Iterator[Harness]:
    opened = Harness(database_url)
    yield opened
    opened.close()
