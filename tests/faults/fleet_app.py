"""A worker of the fleet: `celery -A tests.faults.fleet_app worker`.

Slots, broker, prefork children, registry and every duration are the product's own; only the outside
world is a file. CONTROLPLANE_REGISTRY_URL, CONTROLPLANE_BROKER_URL and FLEET_WORLD say where they are.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Self

import celery.worker.request

from controlplane.services import billing
from controlplane.settings import LeaseSettings
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.jobs import intake
from controlplane.workers.providers.terraform import locks
from controlplane.workers.runtime import tasks
from controlplane.workers.runtime.celery_app import app
from tests.harness.engine import Harness

__all__ = ["app"]

LATENCY = 0.2
"""Seconds that each of Terraform's resources takes: what a kill should hit must last."""


@lru_cache(maxsize=1)
def _context() -> Context:
    latency = float(os.environ.get("FLEET_LATENCY", str(LATENCY)))
    settings = LeaseSettings.from_environment()
    lease, every = settings.lease_seconds, settings.heartbeat_seconds
    url, world = os.environ["CONTROLPLANE_REGISTRY_URL"], os.environ["FLEET_WORLD"]
    ctx = Harness(url, world, lease=lease, latency=latency).ctx
    return replace(
        ctx,
        platform=replace(ctx.platform, heartbeat=every),
        heartbeat=Heartbeat(ctx.registry, ctx.holder, seconds=lease, every=every, lanes=tasks.lanes()),
        notify=tasks.notify,
    )


class _WrongClock(datetime):
    """A clock that is FLEET_SKEW seconds ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        skewed = datetime.now(tz) + timedelta(seconds=SKEW)
        return cls.fromtimestamp(skewed.timestamp(), tz)


def _set_clock_wrong() -> None:
    """Wherever a worker reads the wall clock. What it decides by is the registry's."""
    real = time.time
    for module in (intake, locks, billing, celery.worker.request):
        module.datetime = _WrongClock  # type: ignore[attr-defined]
    time.time = lambda: real() + SKEW


SKEW = float(os.environ.get("FLEET_SKEW", "0"))
if SKEW:
    _set_clock_wrong()
tasks.context = _context
