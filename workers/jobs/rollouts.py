"""The executor of rollouts: takes targets, migrates their databases, records what came of it.

    take (claim | next wave | end) → migrate, several at once, each under its database's lock → record

It is not the engine's loop, and holds no tenant's lease: a tenant can be suspended, moved or given a
domain while its database is being migrated, and a migration that fails parks the target and not the
tenant. What they share is the database, which has a lock of its own, and the tenant's release, which
the executor raises when the database has it and the engine publishes (docs/adr/0006-fleet-migrations.md).

There is no cursor here either. Whatever a killed process had claimed is claimed anew when its lease has
run out, and the database knows which files it has.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from controlplane.domain.errors import ControlPlaneError, LeaseLost, Retryable
from controlplane.domain.job import Lane, backoff
from controlplane.domain.placement import Placement
from controlplane.domain.release import MigrationFailed, Release
from controlplane.domain.rollout import AT_ONCE, RolloutState, Spec, Target
from controlplane.services import rollouts
from controlplane.services.rollouts import Failure, Next
from controlplane.store import release, rollout, rollout_target
from controlplane.store.registry import Connection, RegistryUnavailable
from controlplane.store.rollout_target import Outcome
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.heartbeat import Hold
from controlplane.workers.jobs import snapshots
from controlplane.workers.providers.ports import Bounds, ClusterEndpoint

log = logging.getLogger(__name__)

SLICE = 60.0  # seconds, so that others have their turn
AGAIN = 1.0  # seconds until a rollout of which nothing can be started is looked at again
IDLE = 0.2  # seconds between polls where nothing can be started
LONGEST_PAUSE = 30.0  # seconds before a target is tried again


@dataclass(frozen=True, slots=True)
class Done:
    """`error` None: the database has the release now."""

    target: Target
    seconds: float
    error: Exception | None = None


def handle(ctx: Context, hold: Hold) -> float | None:
    """A slice of one share of the rollout; it is due again as long as that goes on."""
    rollout_id, over = int(hold.job.subject.partition("/")[0]), time.monotonic() + SLICE
    work(ctx, rollout_id, stopping=lambda: hold.lost() or time.monotonic() > over)
    with ctx.registry.connection() as conn:
        row = rollout.get(conn, rollout_id)
    return max(AGAIN, row.due_in) if row.state is RolloutState.RUNNING else None


def work(
    ctx: Context,
    rollout_id: int | None = None,
    *,
    threads: int = AT_ONCE,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Work on the rollout (None: the one that runs) until it is over, nothing can be started for a
    moment, or `stopping()`; how many targets were finished. What has been begun is finished first. Raises
    RegistryUnavailable."""
    with ctx.registry.connection() as conn:
        rollout_id = rollout_id or rollout.running(conn)
        if rollout_id is None:
            return 0
        row = rollout.get(conn, rollout_id)
        number = release.load(conn, row.release)
    return _Executor(ctx, rollout_id, number, row.spec, threads).run(stopping)


class _Executor:
    """One process's share of one rollout. Everything but `_migrate` runs in the caller's thread."""

    def __init__(self, ctx: Context, rollout_id: int, wanted: Release, spec: Spec, threads: int) -> None:
        self._ctx = ctx
        self._id = rollout_id
        self._release = wanted
        self._spec = spec
        self._threads = min(threads, spec.concurrency)
        # Where the spec allows more than this process has threads, a few are claimed ahead, so that no
        # thread waits for the registry. They count as running for everybody.
        self._ahead = min(self._threads // 2, spec.concurrency - self._threads)
        self._running: dict[Future[Done], Target] = {}
        self._lost = threading.Event()
        self._snapshot_plans = snapshots.plans(ctx)

    def run(self, stopping: Callable[[], bool]) -> int:
        over = threading.Event()
        heartbeat = threading.Thread(target=self._keep, args=(over,), name=f"rollout-{self._id}", daemon=True)
        heartbeat.start()
        try:
            with (
                ThreadPoolExecutor(self._threads, thread_name_prefix="migrate") as pool,
                self._ctx.registry.connection() as conn,
            ):
                return self._turns(conn, pool, lambda: stopping() or self._lost.is_set())
        finally:
            over.set()
            heartbeat.join(timeout=self._ctx.platform.lease)

    def _turns(self, conn: Connection, pool: ThreadPoolExecutor, late: Callable[[], bool]) -> int:
        finished, ended = 0, list[Done]()
        while True:
            good = [done for done in ended if done.error is None]
            for done in ended:
                try:
                    if done.error is not None:
                        self._record_trouble(conn, done, done.error)
                except LeaseLost as error:
                    log.warning("rollout %s: %s", self._id, error)
            taken = self._take(conn, pool, good, stop=late())
            finished += len(good)
            at_once = taken in {Next.CLAIMED, Next.AGAIN, Next.HELD}
            if not self._running and not at_once:
                return finished
            ended = self._finished(0.0 if at_once else IDLE)

    def _take(self, conn: Connection, pool: ThreadPoolExecutor, good: Sequence[Done], *, stop: bool) -> Next:
        taken = rollouts.take(
            conn,
            self._id,
            holder=self._ctx.holder,
            seconds=self._ctx.platform.lease,
            room=0 if stop else self._threads + self._ahead - len(self._running),
            done=[_outcome(done) for done in good],
            snapshot_plans=self._snapshot_plans,
        )
        for target in taken.targets:
            self._running[pool.submit(self._migrate, target)] = target
        return taken.next

    def _finished(self, timeout: float) -> list[Done]:
        """What has ended; waits for the first where no thread is free, else `timeout` seconds at most.
        While some that are claimed wait for a thread there is no hurry to report: several are reported at
        once."""
        done: set[Future[Done]] = set()
        while True:
            left = self._running.keys() - done
            if done and len(left) <= self._threads:
                break
            ended, _ = wait(left, None if len(left) >= self._threads else timeout, FIRST_COMPLETED)
            done |= ended
            if not ended or self._lost.is_set():
                break
        for future in done:
            del self._running[future]
        return [future.result() for future in done]

    # ------------------------------------------------------------------------------- in a thread

    def _migrate(self, target: Target) -> Done:
        began = time.monotonic()
        try:
            placed = Placement(target.tenant_id, target.number, target.cluster_id)
            credential = self._ctx.providers.secrets.read(placed.migrator_secret)
            self._check(target)
            self._ctx.providers.databases.bring_to(
                ClusterEndpoint(**target.endpoint),
                credential,
                self._release,
                Bounds(self._spec.lock_timeout, self._spec.statement_timeout),
            )
        except Exception as error:  # noqa: BLE001 — whatever it is, it must end on the target
            return Done(target, time.monotonic() - began, error)
        return Done(target, time.monotonic() - began)

    def _check(self, target: Target) -> None:
        if self._lost.is_set():
            raise LeaseLost(f"{target.tenant_id}: the lease was lost")

    # ----------------------------------------------------------------------------------- records

    def _record_trouble(self, conn: Connection, done: Done, error: Exception) -> None:
        target = done.target
        if isinstance(error, LeaseLost):
            raise error
        message = str(error) if isinstance(error, ControlPlaneError) else f"unexpected {type(error).__name__}"
        log.warning("rollout %s: %s: %s", self._id, target.tenant_id, message)
        if isinstance(error, Retryable) and target.attempts < self._spec.attempts:
            pause = backoff(target.attempts, jitter=random.random())  # noqa: S311 — spreads load
            after = max(error.after or 0.0, min(pause, LONGEST_PAUSE))
            rollout_target.put_back(conn, self._id, _outcome(done), after=after, error=message)
            return
        file, statement, said = "", "", message
        if isinstance(error, MigrationFailed):
            file, statement, said = error.file, error.statement, error.error
        rollouts.record_failure(conn, self._id, Failure(_outcome(done), file, statement, said))

    # ------------------------------------------------------------------------------------ leases

    def _keep(self, over: threading.Event) -> None:
        """Renew what is held. A registry that can't be reached for a whole lease ends the claims: others
        may have them by now."""
        renewed = time.monotonic()
        while not over.wait(self._ctx.platform.heartbeat):
            held = [(target.tenant_id, target.fencing_token) for target in list(self._running.values())]
            before = time.monotonic()
            try:
                if held:
                    with self._ctx.registry.connection() as conn:
                        rollout_target.renew(conn, self._id, held, seconds=self._ctx.platform.lease)
            except RegistryUnavailable as error:
                log.warning("rollout %s: leases not renewed: %s", self._id, error)
                if before - renewed > self._ctx.platform.lease - self._ctx.platform.heartbeat:
                    self._lost.set()
                    return
            else:
                renewed = before


def _outcome(done: Done) -> Outcome:
    return Outcome(done.target.tenant_id, done.target.fencing_token, done.seconds)


def main() -> None:
    """A polling worker for what may take hours and for nothing else."""
    from controlplane.workers.runtime import polling

    polling.main({Lane.LONG: 1})


if __name__ == "__main__":
    main()
