"""A worker of the fleet: `celery -A tests.faults.fleet_app worker`.

Tasks, broker, prefork children, registry and every duration are the product's own; only the outside
world is a file. CONTROLPLANE_REGISTRY_URL, CONTROLPLANE_BROKER_URL and FLEET_WORLD say where they are.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache

from controlplane.settings import Settings
from tests.workers.house import House
from workers import tasks
from workers.app import app
from workers.context import Context

__all__ = ["app"]

LATENCY = 0.2
"""Seconds that each of Terraform's resources takes: what a kill should hit must last."""


@lru_cache(maxsize=1)
def _context() -> Context:
    house = House(os.environ["CONTROLPLANE_REGISTRY_URL"], os.environ["FLEET_WORLD"], latency=LATENCY)
    settings = Settings.from_environment(os.environ, require=())
    platform = replace(house.ctx.platform, lease=settings.lease_seconds, heartbeat=settings.heartbeat_seconds)
    return replace(house.ctx, platform=platform, ring=tasks.ring)


tasks.context = _context
