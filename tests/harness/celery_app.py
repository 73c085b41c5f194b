"""A Celery application whose workers work on fakes: `celery -A tests.harness.celery_app worker`.

The tasks, the broker, the prefork children and the registry are the real ones; only the external systems
are a file. CONTROLPLANE_REGISTRY_URL and HARNESS_WORLD say where the two are, HARNESS_LATENCY how many
seconds a Terraform resource takes.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache

from controlplane.workers.engine.context import Context
from controlplane.workers.runtime import tasks
from controlplane.workers.runtime.celery_app import app
from tests.harness.engine import Harness

__all__ = ["app"]


@lru_cache(maxsize=1)
def _context() -> Context:
    harness = Harness(
        os.environ["CONTROLPLANE_REGISTRY_URL"],
        os.environ["HARNESS_WORLD"],
        lease=10.0,
        latency=float(os.environ.get("HARNESS_LATENCY", "0")),
    )
    return replace(harness.ctx, notify=tasks.notify)


tasks.context = _context
