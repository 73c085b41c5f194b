"""What happens by the clock: one job for each duty, that is due again when its interval has passed.

The job is in the same queue as all others, so a duty is done once in its interval by the whole fleet,
whoever claims it, and a worker that dies over it is taken over as over anything else. One that fails
waits longer, as what fails does, is never given up, and holds up no other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.domain.job import JobKind
from controlplane.services import timers
from controlplane.store import audit, history, job
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.jobs import comparison, outbox
from controlplane.workers.schedule import warm_pool
from controlplane.workers.steps import routes

log = logging.getLogger(__name__)

TIMERS_AT_MOST = 500
PRUNE_BATCH = 500
PRUNE_SECONDS = 20.0
SEAL_AT_MOST = 5_000


@dataclass(frozen=True, slots=True)
class Duty:
    """`interval`: the name of the setting that says how often. `do`: how much it was. `says`: what is logged
    of that."""

    interval: str
    do: Callable[[Context], int]
    says: str


def run_timers(ctx: Context) -> int:
    with ctx.registry.connection() as conn:
        return timers.run(conn, ctx.catalogue, zone=ctx.platform.zone, limit=TIMERS_AT_MOST)


def prune(ctx: Context) -> int:
    """Remove what is older than it is kept (`store/history.py`), batch by batch, until nothing is left or
    the time for it is over."""
    until, total = time.monotonic() + PRUNE_SECONDS, 0
    with ctx.registry.connection() as conn:
        while time.monotonic() < until:
            gone = history.prune(conn, limit=PRUNE_BATCH)
            total += gone
            if not gone:
                break
    return total


def seal(ctx: Context) -> int:
    with ctx.registry.connection() as conn:
        return audit.seal(conn, limit=SEAL_AT_MOST)


DUTIES = {
    JobKind.TIMERS: Duty("duty_interval", run_timers, "{} tenants are to be looked at"),
    JobKind.POOL: Duty("duty_interval", warm_pool.tend, "{} clusters to be made, retired or tried again"),
    JobKind.NOTIFICATIONS: Duty("duty_interval", outbox.deliver, "{} notifications were tried"),
    JobKind.REPUBLISH: Duty("republish_interval", routes.publish_all, "wrote {} routes"),
    JobKind.COMPARE: Duty(
        "compare_interval",
        lambda ctx: comparison.compare(ctx).out_of_step,
        "{} contracts were out of step",
    ),
    JobKind.PRUNE: Duty("republish_interval", prune, "removed {} old rows"),
    JobKind.SEAL: Duty("duty_interval", seal, "sealed {} rows of the audit trail"),
}


def handler(kind: JobKind) -> Callable[[Context, Hold], float]:
    duty = DUTIES[kind]

    def do(ctx: Context, _: Hold) -> float:
        count = duty.do(ctx)
        if count:
            log.info("%s: %s", kind, duty.says.format(count))
        return float(getattr(ctx.platform, duty.interval))

    return do


def ensure(ctx: Context) -> None:
    """That there is a job for each; whoever starts a worker asks."""
    with ctx.registry.connection() as conn:
        for kind in DUTIES:
            job.keep_due(conn, kind)
