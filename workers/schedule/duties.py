"""What workers do, in two lists: the kinds of work that may be due, and the periodic duties.

Each is read by all who act on it. Of `WORK` the sweep notifies of what is due, Celery has a task for each
kind, and the polling worker looks for itself. Of `DUTIES` beat's schedule is made, Celery has a task for
each, and the polling worker asks whether the time of one has come. So what is added here is done in a fleet
with a broker and in one without, and no other list can forget it.

A duty is begun once in its interval by the whole fleet, however many workers ask (`store/duty.py`). A worker
that dies over one has cost that one turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from controlplane import task_names
from controlplane.domain.operation import ResourceKind
from controlplane.store import (
    data_copy,
    event,
    history,
    notification,
    operation,
    preview,
    rehearsal,
    rollout,
    rollout_snapshot,
)
from controlplane.store.registry import Connection
from controlplane.workers.engine import converge
from controlplane.workers.engine.context import Context
from controlplane.workers.jobs import (
    comparison,
    exports,
    intake,
    outbox,
    rehearsals,
    rollouts,
    snapshots,
)
from controlplane.workers.jobs import preview as previews
from controlplane.workers.steps import routes

Args = tuple[str, ...]
Stopping = Callable[[], bool]
"""Asked between two pieces of work: is it time to leave the rest for later?"""

PRUNE_BATCH = 500
PRUNE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work. `due`: the arguments of what may be begun now, at most so many, the most urgent
    first. `do`: false where nothing was to be done after all, since another worker has it. It raises
    Retryable where it can't say, LeaseLost where its hold ran out and another worker has done it."""

    task: str
    due: Callable[[Connection, int], list[Args]]
    do: Callable[[Context, Stopping, Args], object]


@dataclass(frozen=True, slots=True)
class Duty:
    """`interval`: the name of the setting that says how often. `do`: what is logged of it."""

    task: str
    interval: str
    do: Callable[[Context, Stopping], str]


def name_of(task: str) -> str:
    return task.rpartition(".")[2]


def lasting(seconds: float, stopping: Stopping = lambda: False) -> Stopping:
    """True once so many seconds have passed from now, or `stopping`."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until or stopping()


# ---------------------------------------------------------------------------------------- the work


def _whether(due: bool) -> list[Args]:
    return [()] if due else []


def _each(ids: list[str] | list[int]) -> list[Args]:
    return [(str(number),) for number in ids]


def _converge(ctx: Context, _: Stopping, args: Args) -> bool:
    """Where another worker died over something, that goes first."""
    kind, resource_id = args
    taken_over = converge.take_over(ctx)
    held = converge.converge(ctx, ResourceKind(kind), resource_id)
    return held is not None or taken_over is not None


def _running_rollout(conn: Connection) -> list[int]:
    running = rollout.running(conn)
    return [] if running is None else [running]


WORK = (
    Work(
        intake.TASK,
        lambda conn, limit: _each(event.due(conn, limit=limit)),
        lambda ctx, _, args: intake.handle_event(ctx, args[0]),
    ),
    Work(
        previews.TASK,
        lambda conn, limit: _each(preview.due(conn, limit=limit)),
        lambda ctx, _, args: previews.work_out(ctx, int(args[0])),
    ),
    Work(
        outbox.TASK,
        lambda conn, _: _whether(notification.due(conn)),
        lambda ctx, *_: outbox.deliver(ctx),
    ),
    Work(
        converge.TASK,
        lambda conn, limit: [(kind.value, resource) for kind, resource in operation.due(conn, limit=limit)],
        _converge,
    ),
    Work(
        snapshots.TASK,
        lambda conn, _: _whether(rollout_snapshot.is_due(conn)),
        lambda ctx, *_: snapshots.work(ctx),
    ),
    Work(
        rollouts.TASK,
        lambda conn, _: _each(_running_rollout(conn)),
        lambda ctx, stopping, args: rollouts.work(ctx, int(args[0]), stopping=stopping),
    ),
    Work(
        rehearsals.TASK,
        lambda conn, _: _whether(rehearsal.due(conn)),
        lambda ctx, *_: rehearsals.work(ctx),
    ),
    Work(
        exports.TASK,
        lambda conn, limit: _each(data_copy.due_exports(conn, limit=limit)),
        lambda ctx, _, args: exports.work(ctx, int(args[0])),
    ),
)


# -------------------------------------------------------------------------------------- the duties


def prune(ctx: Context, stopping: Stopping) -> int:
    """Remove what is older than it is kept (`store/history.py`), batch by batch, until nothing is left or
    `stopping`; how much went."""
    total = 0
    with ctx.registry.connection() as conn:
        while not stopping():
            gone = history.prune(conn, limit=PRUNE_BATCH)
            total += gone
            if not gone:
                break
    return total


def _compare(ctx: Context) -> str:
    found = comparison.compare(ctx)
    return f"{found.subscriptions} subscriptions, {found.out_of_step} were out of step"


DUTIES = (
    Duty(
        task_names.REPUBLISH, "republish_interval", lambda ctx, _: f"wrote {routes.publish_all(ctx)} routes"
    ),
    Duty(task_names.COMPARE, "compare_interval", lambda ctx, _: _compare(ctx)),
    Duty(
        task_names.PRUNE,
        "republish_interval",
        lambda ctx, stopping: f"removed {prune(ctx, lasting(PRUNE_SECONDS, stopping))} old rows",
    ),
)
