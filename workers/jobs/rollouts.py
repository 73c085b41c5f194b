"""The executor of rollouts: begins members, migrates their databases, records what came of it.

    take (begin | next wave | end) → migrate, several at once, each under its database's lock → record

A member is a job of its own (`store/job.py`), begun by a share of its rollout (`handle`), which works on
sixteen at once, and records several that are done in the round trip in which it begins the next. One that is
to be tried again waits as any job does, and one whose worker died is taken over as any is: by a share that
has room, or by any other slot (`go_on`).

It is not the engine's loop, and holds no tenant's lock: a tenant can be suspended, moved or given a
domain while its database is being migrated, and a migration that fails parks the member and not the
tenant. What they share is the database, which has a lock of its own, and the tenant's release, which
the executor raises when the database has it and the engine publishes (docs/adr/0006-fleet-migrations.md).

There is no cursor here either. The database knows which files it has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

from controlplane.domain.errors import NeedsHuman, Pending, Retryable
from controlplane.domain.job import Job, JobKind, Lane, Trouble
from controlplane.domain.placement import Placement
from controlplane.domain.release import MigrationFailed, Release
from controlplane.domain.rollout import AT_ONCE, Member, RolloutState, Spec, member_of
from controlplane.services import rollouts
from controlplane.store import release, rollout, rollout_member
from controlplane.store.registry import Connection
from controlplane.store.rollout_member import Outcome
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.engine.run import LOOK_FOR_THE_DEAD, Handler, claim, record, run
from controlplane.workers.jobs import snapshots
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint

log = logging.getLogger(__name__)

SLICE = 60.0  # seconds, so that others have their turn
AGAIN = 1.0  # seconds until a rollout of which nothing can be started is looked at again
IDLE = 0.2  # seconds between polls where nothing can be started


def handle(ctx: Context, hold: Hold) -> float | None:
    """A slice of one share of the rollout; it is due again as long as that goes on."""
    rollout_id, over = int(hold.job.subject.partition("/")[0]), time.monotonic() + SLICE
    work(ctx, rollout_id, stopping=lambda: hold.lost() or time.monotonic() > over)
    with ctx.registry.connection() as conn:
        row = rollout.get(conn, rollout_id)
    return max(AGAIN, row.due_in) if row.state is RolloutState.RUNNING else None


def work(
    ctx: Context,
    rollout_id: int,
    *,
    threads: int = AT_ONCE,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Work on the rollout until it is over, nothing can be started for a moment, or `stopping()`; how many
    members that it began are done. What has been begun is finished first. Raises RegistryUnavailable."""
    with ctx.registry.connection() as conn:
        wanted, spec = _asked(conn, rollout_id)
    return _Executor(ctx, rollout_id, wanted, spec, threads).run(stopping)


class _Executor:
    """One process's share of one rollout. Everything but `_migrate` and `go_on` runs in the caller's
    thread."""

    def __init__(self, ctx: Context, rollout_id: int, wanted: Release, spec: Spec, threads: int) -> None:
        self._ctx, self._id, self._wanted, self._spec = ctx, rollout_id, wanted, spec
        self._threads = min(threads, spec.concurrency)
        # Where the spec allows more than this process has threads, a few are begun ahead, so that no
        # thread waits for the registry. They count as running for everybody.
        self._ahead = min(self._threads // 2, spec.concurrency - self._threads)
        self._running: set[Future[Outcome | None]] = set()
        self._holds: dict[int, ExitStack] = {}
        self._looked = float("-inf")
        self._snapshot_plans = snapshots.plans(self._ctx)

    def run(self, stopping: Callable[[], bool]) -> int:
        try:
            with (
                ThreadPoolExecutor(self._threads, thread_name_prefix="migrate") as pool,
                self._ctx.registry.connection() as conn,
            ):
                return self._turns(conn, pool, stopping)
        finally:  # what is not recorded by now is taken over
            for holding in self._holds.values():
                holding.close()

    def _turns(self, conn: Connection, pool: ThreadPoolExecutor, late: Callable[[], bool]) -> int:
        finished, ended = 0, list[Outcome]()
        while True:
            good = [done for done in ended if done.error is None]
            for done in ended:
                if done.error is not None:
                    record(self._ctx, MEMBER, done.job, done.error)
            stop = late()
            again = self._take(conn, pool, good, stop=stop)
            for done in ended:
                self._holds.pop(done.job.fencing_token).close()
            finished += len(good)
            if not stop:
                self._claim(pool)
            if not self._running and not again:
                return finished
            ended = self._finished(0.0 if again else IDLE)

    def _take(
        self, conn: Connection, pool: ThreadPoolExecutor, good: Sequence[Outcome], *, stop: bool
    ) -> bool:
        taken = rollouts.take(
            conn,
            self._id,
            holder=self._ctx.holder,
            seconds=self._ctx.platform.lease,
            release=self._wanted.number,
            room=0 if stop else self._threads + self._ahead - len(self._running),
            done=good,
            snapshot_plans=self._snapshot_plans,
        )
        for job, member in taken.begun:
            holding = self._holds[job.fencing_token] = ExitStack()
            hold = holding.enter_context(self._ctx.heartbeat.holding(job))
            self._running.add(pool.submit(_migrate, self._ctx, hold, member, self._wanted, self._spec))
        return taken.again

    def _claim(self, pool: ThreadPoolExecutor) -> None:
        """Into free threads, what is to be tried again and what others left behind, so that sixteen of a
        process that died do not wait for one another."""
        if time.monotonic() - self._looked < LOOK_FOR_THE_DEAD:
            return
        self._looked = time.monotonic()
        while len(self._running) < self._threads and (job := claim(self._ctx, Lane.LONG, [JobKind.MEMBER])):
            self._running.add(pool.submit(run, self._ctx, {JobKind.MEMBER: MEMBER}, job))

    def _finished(self, timeout: float) -> list[Outcome]:
        """What has ended; waits for the first where no thread is free, else `timeout` seconds at most.
        While some that are begun wait for a thread there is no hurry to report: several are reported at
        once. What was claimed records its end itself."""
        ended: set[Future[Outcome | None]] = set()
        while True:
            left = self._running - ended
            if ended and len(left) <= self._threads:
                break
            found, _ = wait(left, None if len(left) >= self._threads else timeout, FIRST_COMPLETED)
            ended |= found
            if not found:
                break
        self._running -= ended
        return [done for future in ended if (done := future.result()) is not None]


# --------------------------------------------------------------------------------- one of them


def _migrate(ctx: Context, hold: Hold, member: Member, wanted: Release, spec: Spec) -> Outcome:
    """Bring its database to the release. What time may repair is given up after as many attempts as the
    rollout allows."""
    placed = Placement(member.placement, member.tenant_id, member.cluster_id)
    began, failed = time.monotonic(), None
    try:
        hold.check()
        bounds = Bounds(spec.lock_timeout, spec.statement_timeout)
        ctx.providers.databases.bring_to(ClusterEndpoint(**member.endpoint), placed, wanted, bounds)
    except Exception as error:  # noqa: BLE001 — whatever it is, it must end on the member's job
        passing = isinstance(error, Retryable) and not isinstance(error, Pending)
        lasts = passing and hold.job.attempts >= spec.attempts
        failed = NeedsHuman(str(error), runbook="tenant-migration") if lasts else error
    return Outcome(hold.job, time.monotonic() - began, failed)


def go_on(ctx: Context, hold: Hold) -> None:
    """Try one again, or do what its worker died over, in the slot that claimed it."""
    rollout_id, _ = member_of(hold.job.subject)
    with ctx.registry.connection() as conn:
        member = rollouts.go_on(conn, hold.job, snapshot_plans=snapshots.plans(ctx))
        wanted, spec = _asked(conn, rollout_id)
    if member is not None:
        done = _migrate(ctx, hold, member, wanted, spec)
        if done.error is not None:
            raise done.error
        with ctx.registry.connection() as conn:
            rollout_member.finish(conn, rollout_id, [done], release=wanted.number)
    hold.ended = True


def _asked(conn: Connection, rollout_id: int) -> tuple[Release, Spec]:
    row = rollout.get(conn, rollout_id)
    return release.load(conn, row.release), row.spec


def trouble(conn: Connection, job: Job, found: Trouble) -> None:
    if found.after is not None:
        rollout_member.put_back(conn, job, error=found.message if found.counts else None)
    elif isinstance(found.error, MigrationFailed):
        file, statement = found.error.file, found.error.statement
        rollouts.record_failure(conn, job, error=found.error.error, file=file, statement=statement)
    else:
        rollouts.record_failure(conn, job, error=found.message)


MEMBER = Handler(go_on, trouble)


def main() -> None:
    """A polling worker for what may take hours and for nothing else."""
    from controlplane.workers.runtime import polling

    polling.main({Lane.LONG: 1})


if __name__ == "__main__":
    main()
