"""A worker without a broker: it takes what is due straight from the registry.

The same work and the same duties as the Celery worker's (`workers/schedule/duties.py`), found by asking
instead of by being notified. It is what keeps a fleet going while Redis is down, and what the tests drive;
`python -m controlplane.workers.runtime.polling` runs it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from controlplane import task_names
from controlplane.domain.errors import ControlPlaneError
from controlplane.services import timers
from controlplane.store import duty as duties
from controlplane.store.registry import RegistryUnavailable
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.converge import where
from controlplane.workers.schedule import warm_pool
from controlplane.workers.schedule.duties import (
    DUTIES,
    WORK,
    Duty,
    Stopping,
    Work,
    lasting,
    name_of,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

IDLE = 1.0
PASS_SECONDS = 60.0
AT_MOST = 100

LONG = tuple(work for work in WORK if task_names.QUEUES[work.task] == task_names.ROLLOUTS)
SHORT = tuple(work for work in WORK if work not in LONG)
"""What may take hours must not keep a customer waiting."""

Pass = Callable[[Context, Stopping], int]
"""Do what is to be done now, until nothing is left or it is time to stop; how much that was."""


def _never() -> bool:
    return False


def work_once(ctx: Context, stopping: Stopping = _never, *, kinds: Sequence[Work] = WORK) -> int:
    """Do all the work that is due now and look after the warm pool; how much there was."""
    with ctx.registry.connection() as conn, conn.transaction():
        timers.run(conn, limit=AT_MOST)
    return _work_through(ctx, stopping, kinds) + warm_pool.tend(ctx)


def work_short(ctx: Context, stopping: Stopping = _never) -> int:
    return work_once(ctx, stopping, kinds=SHORT)


def work_long(ctx: Context, stopping: Stopping = _never) -> int:
    return _work_through(ctx, stopping, LONG)


def do_duties(ctx: Context, stopping: Stopping = _never) -> int:
    """Do the periodic duties that nobody in the fleet has begun in their interval; how many."""
    return sum(_try(name_of(duty.task), partial(_take_turn, ctx, stopping, duty)) or 0 for duty in DUTIES)


def _take_turn(ctx: Context, stopping: Stopping, duty: Duty) -> bool:
    name = name_of(duty.task)
    with ctx.registry.connection() as conn:
        mine = duties.begin(conn, name, interval=getattr(ctx.platform, duty.interval))
    if mine:
        log.info("%s: %s", name, duty.do(ctx, stopping))
    return mine


def _work_through(ctx: Context, stopping: Stopping, kinds: Sequence[Work]) -> int:
    """In rounds, so that much of one kind does not keep the others waiting until it is done."""
    total = 0
    while not stopping():
        done = sum(_try(name_of(work.task), partial(_work_at, ctx, stopping, work)) or 0 for work in kinds)
        if not done:
            break
        total += done
    return total


def _work_at(ctx: Context, stopping: Stopping, work: Work) -> int:
    with ctx.registry.connection() as conn:
        due = work.due(conn, AT_MOST)
    done = 0
    for args in due:
        if stopping():
            break
        act = partial(work.do, ctx, stopping, args)
        done += bool(_try(name_of(work.task), act, but=(RegistryUnavailable,)))
    return done


def _try(name: str, act: Callable[[], T], *, but: tuple[type[Exception], ...] = ()) -> T | None:
    """What goes wrong is logged, unless it is one of `but`, and holds up nothing else; None then."""
    try:
        return act()
    except but:
        raise
    except ControlPlaneError as error:
        log.warning("%s: %s", name, error)
    except Exception as error:  # noqa: BLE001 — the worker must outlive whatever it is
        log.error("%s: unexpected %s\n%s", name, type(error).__name__, where(error))  # noqa: TRY400
    return None


def run(
    ctx: Context,
    stopping: Callable[[float], bool],
    passes: Sequence[Pass] = (work_short, work_long, do_duties),
) -> None:
    """Make each of these passes again and again, each in a thread of its own, until `stopping(seconds)`,
    which waits that long at most, says so."""
    threads = [
        threading.Thread(target=_again_and_again, args=(ctx, stopping, act), name=act.__name__)
        for act in passes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _again_and_again(ctx: Context, stopping: Callable[[float], bool], act: Pass) -> None:
    while not stopping(0.0):
        late = lasting(PASS_SECONDS, lambda: stopping(0.0))
        if not _try("poll", partial(act, ctx, late)) and stopping(IDLE):
            return


def main(passes: Sequence[Pass] = (work_short, work_long, do_duties)) -> None:
    from controlplane.workers.runtime.wiring import context_from_environment

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ctx = context_from_environment()
    try:
        run(ctx, stop.wait, passes)
    finally:
        ctx.registry.close()


if __name__ == "__main__":
    main()
