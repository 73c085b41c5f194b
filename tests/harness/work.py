"""The workers of a test: they work when they are told to, in the test's own thread."""

from __future__ import annotations

from collections.abc import Collection

from controlplane.domain.job import Job, JobKind, Lane
from controlplane.store.registry import exists
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.run import claim, drain, run
from controlplane.workers.jobs.handlers import HANDLERS
from controlplane.workers.schedule.duties import DUTIES

ASKED_FOR = [kind for kind in JobKind if kind not in DUTIES]
"""What is not done by the clock."""


def work_once(ctx: Context, kinds: Collection[JobKind] = ASKED_FOR) -> int:
    """Do all that is due now, and what the clock does every few seconds; how much there was."""
    DUTIES[JobKind.TIMERS].do(ctx)
    done = 0
    while now := sum(drain(ctx, HANDLERS, lane, kinds=kinds) for lane in Lane):
        done += now
    return done + DUTIES[JobKind.POOL].do(ctx) + DUTIES[JobKind.NOTIFICATIONS].do(ctx)


def do_one(ctx: Context, kind: JobKind | None = None, subject: str | None = None) -> Job | None:
    """Claim one job, of this kind and subject, and do it; where it goes over to the long lane, there too."""
    kinds, done = ASKED_FOR if kind is None else [kind], None
    for lane in Lane:
        job = claim(ctx, lane, kinds, subject=subject if done is None else done.subject)
        if job is not None:
            run(ctx, HANDLERS, job)
            done = job
    return done


def is_due(ctx: Context, lane: Lane) -> bool:
    """Does a job of the lane wait that may be begun now?"""
    with ctx.registry.connection() as conn:
        return exists(
            conn, "SELECT FROM job WHERE state = 'waiting' AND lane = %s AND due_at <= now()", [lane]
        )


def do_duties(ctx: Context) -> int:
    """All that the clock asks for now."""
    return sum(drain(ctx, HANDLERS, lane, kinds=list(DUTIES)) for lane in Lane)
