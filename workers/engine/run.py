"""One job from its claim to its end, whatever its kind.

    claim → handler → finish | put back | park

A handler does the work and writes what came of it, under the job's guard; what it raises is judged here, for
all kinds by one judge (`domain/job.py`), and ends on the job. A worker that dies leaves the job running; when
its lease has run out another takes it over, before it takes anything that waits.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.domain.errors import ControlPlaneError, LeaseLost, Retryable
from controlplane.domain.job import CLAIMS_UNTIL_OLDEST, Job, JobKind, Lane, Trouble, judge
from controlplane.store import job as jobs
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold

log = logging.getLogger(__name__)

DEATHS_UNTIL_BACKOFF = 3
LOOK_FOR_THE_DEAD = 1.0  # seconds between two looks
_claims = itertools.count(1)

Stopping = Callable[[], bool]
"""Asked between two pieces of work: is it time to leave the rest for later?"""


def never() -> bool:
    return False


def nothing(_conn: Connection, _job: Job, _trouble: Trouble) -> None:
    """The job says it all."""


@dataclass(frozen=True, slots=True)
class Handler:
    """`run`: do it; what it returns is the seconds until it is to be done again, None where it is done.
    `trouble`: what is written beside the job when it failed, in the same transaction."""

    run: Callable[[Context, Hold], float | None]
    trouble: Callable[[Connection, Job, Trouble], None] = nothing


Handlers = Mapping[JobKind, Handler]


def drain(
    ctx: Context,
    handlers: Handlers,
    lane: Lane,
    *,
    stopping: Stopping = never,
    kinds: Collection[JobKind] | None = None,
) -> int:
    """Do what is due in the lane until nothing is, or `stopping`; how many jobs that were. `kinds`: no
    others. A kind that is not known here is left to others: a newer release asked for it. Raises
    RegistryUnavailable; every other failure is recorded on its job."""
    known = [kind for kind in handlers if kinds is None or kind in kinds]
    count, looked = 0, float("-inf")
    while not stopping():
        dead = time.monotonic() - looked > LOOK_FOR_THE_DEAD
        looked = time.monotonic() if dead else looked
        job = claim(ctx, lane, known, dead=dead)
        if job is None:
            break
        if not count:
            ctx.notify(lane)  # there may be more than this slot can take
        run(ctx, handlers, job)
        count += 1
    return count


def claim(
    ctx: Context,
    lane: Lane,
    kinds: Collection[JobKind],
    *,
    subject: str | None = None,
    dead: bool = True,
) -> Job | None:
    """A job whose holder died, where one is looked for, else the next that is due."""
    asked: dict[str, Any] = {"holder": ctx.holder, "seconds": ctx.platform.lease}
    asked |= {"kinds": kinds, "subject": subject}
    with ctx.registry.connection() as conn:
        job = jobs.take_over(conn, lane, **asked) if dead else None
        if job is None:
            oldest = next(_claims) % CLAIMS_UNTIL_OLDEST == 0
            job = jobs.claim(conn, lane, **asked, oldest=oldest)
    return job


def run(ctx: Context, handlers: Handlers, job: Job) -> None:
    """Whatever it asked for is committed when this ends, and its lanes are notified."""
    with jobs.caused_by() as lanes:
        _run(ctx, handlers[job.kind], job)
    for lane in lanes:
        ctx.notify(lane)


def _run(ctx: Context, handler: Handler, job: Job) -> None:
    with ctx.heartbeat.holding(job) as hold:
        try:
            _spare_the_workers(job)
            again = handler.run(ctx, hold)
            if not hold.ended:
                with ctx.registry.connection() as conn:
                    if again is None:
                        jobs.finish(conn, job)
                    else:
                        jobs.put_back(conn, job, after=again, anew=True)
        except RegistryUnavailable as error:
            log.warning("%s given up: %s", _name(job), error)
            raise
        except Exception as error:  # noqa: BLE001 — whatever it is, it must end on the job
            record(ctx, handler, job, error)


def _spare_the_workers(job: Job) -> None:
    """What kills every worker that takes it (out of memory, say) waits longer each time, as what fails
    does: it must not cost a worker with every lease."""
    if job.orphan and job.attempts > DEATHS_UNTIL_BACKOFF:
        raise Retryable(f"its worker died {job.attempts - 1} times")


def record(ctx: Context, handler: Handler, job: Job, error: Exception) -> None:
    """What becomes of a job that failed, on the job and beside it; nothing where another holder has it."""
    if isinstance(error, LeaseLost):
        log.warning("%s given up: %s", _name(job), error)
        return
    trouble = judge(error, job, jitter=random.random())  # noqa: S311 — spreads load, guards nothing
    if isinstance(error, ControlPlaneError):
        log.log(logging.WARNING if trouble.counts else logging.INFO, "%s: %s", _name(job), trouble.message)
    else:
        log.error("%s: %s\n%s", _name(job), trouble.message, where(error))
    try:
        with ctx.registry.connection() as conn, conn.transaction():
            jobs.guard(conn, job)
            handler.trouble(conn, job, trouble)
            if trouble.after is None:
                jobs.park(conn, job, trouble)
            else:
                jobs.put_back(
                    conn,
                    job,
                    after=trouble.after,
                    error=trouble.message if trouble.counts else None,
                    counts=trouble.counts,
                )
    except LeaseLost:
        log.warning("%s: outcome not recorded, another holder has taken over", _name(job))


def _name(job: Job) -> str:
    return f"{job.kind} {job.subject}, attempt {job.attempts}"


def where(error: Exception) -> str:
    """Where it happened, without the values: a message of an unknown exception may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-12:])
