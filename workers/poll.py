"""A worker without a broker: it takes what is due straight from the registry.

The same passes as the Celery worker's, found by asking instead of by being rung. It is what keeps a
fleet converging while Redis is down, and what the tests drive; `python -m workers.poll` runs it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

from controlplane.domain.errors import Retryable
from controlplane.services import timers
from controlplane.store import data_copy, event, preview
from workers import exports, intake, notices, pool, rollouts
from workers import preview as previews
from workers.context import Context
from workers.converge import converge

log = logging.getLogger(__name__)

IDLE = 1.0


def work_once(ctx: Context) -> int:
    """Handle every event, preview and operation that is due now, deliver notices and look after the warm
    pool; how many there were."""
    with ctx.registry.connection() as conn:
        with conn.transaction():
            timers.run(conn, limit=100)
        events, waiting = event.due(conn, limit=100), preview.due(conn, limit=100)
        wanted = data_copy.due_exports(conn, limit=100)
    done = sum(intake.handle_event(ctx, event_id) is not None for event_id in events)
    done += sum(previews.work_out(ctx, preview_id) for preview_id in waiting)
    done += sum(exports.work(ctx, export_id) for export_id in wanted)
    done += notices.deliver(ctx)
    while converge(ctx) is not None:
        done += 1
    return done + pool.tend(ctx)


def run(ctx: Context, stopping: Callable[[float], bool]) -> None:
    """Work until `stopping(seconds)`, which waits that long at most, says so. Rollouts have a thread of
    their own: a long migration must not keep a customer waiting."""
    migrating = threading.Thread(target=rollouts.run, args=(ctx, stopping), name="rollouts")
    migrating.start()
    try:
        _converge(ctx, stopping)
    finally:
        migrating.join()


def _converge(ctx: Context, stopping: Callable[[float], bool]) -> None:
    while not stopping(0.0):
        try:
            done = work_once(ctx)
        except Retryable as error:
            log.warning("poll: %s", error)
            done = 0
        if not done and stopping(IDLE):
            return


def main() -> None:
    from workers.bootstrap import context_from_environment

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ctx = context_from_environment()
    try:
        run(ctx, stop.wait)
    finally:
        ctx.registry.close()


if __name__ == "__main__":
    main()
