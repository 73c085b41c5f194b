"""A Celery application whose workers work on fakes: `celery -A tests.workers.celery_house worker`.

The tasks, the broker, the prefork children and the registry are the real ones; only the outside world
is a file. CONTROLPLANE_REGISTRY_URL and HOUSE_WORLD say where the two are, HOUSE_LATENCY how many
seconds a Terraform resource takes.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache

from tests.workers.house import House
from workers import tasks
from workers.app import app
from workers.context import Context

__all__ = ["app"]


@lru_cache(maxsize=1)
def _context() -> Context:
    house = House(
        os.environ["CONTROLPLANE_REGISTRY_URL"],
        os.environ["HOUSE_WORLD"],
        lease=10.0,
        latency=float(os.environ.get("HOUSE_LATENCY", "0")),
    )
    return replace(house.ctx, ring=tasks.ring)


tasks.context = _context
