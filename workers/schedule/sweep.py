"""The sweep: notify of whatever is due and not announced already.

It is why nothing hangs on a message: an event whose wake-up was lost, an operation whose worker died, a
retry whose time has come and an observation that is due are all found here, in the registry, every few
seconds. One sweep runs at a time over the whole fleet (an advisory lock), and it notifies of at most a
bounded number of each, oldest first; the rest is still there at the next sweep. What waits in the broker is
not sent again (`workers/runtime/queue_probe.py`), so that a long backlog holds each wake-up once: at every
moment those that have been due the longest. The warm pool is looked after in the same pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from controlplane import task_names
from controlplane.services import timers
from controlplane.workers.engine.context import Context
from controlplane.workers.runtime.queue_probe import Message
from controlplane.workers.schedule import warm_pool as pool
from controlplane.workers.schedule.duties import WORK

_ADVISORY_LOCK = 0x7C9_0003
AT_MOST = 500


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each were notified of; `pool`: what was recorded for the warm pool. `skipped`: another
    sweep was under way."""

    events: int = 0
    operations: int = 0
    observations: int = 0
    previews: int = 0
    rollouts: int = 0
    pool: int = 0
    notifications: int = 0
    exports: int = 0
    skipped: bool = False


def sweep(ctx: Context, missing: Callable[[list[Message]], list[Message]] = list) -> Swept:
    """`missing`: which of these wake-ups wait in no queue; all, where there is no queue to look into."""
    with ctx.registry.connection() as conn, conn.transaction():
        row = conn.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", [_ADVISORY_LOCK]).fetchone()
        if row is None or not row["mine"]:
            return Swept(skipped=True)
        observations = timers.run(conn, limit=AT_MOST)
        due = [(work.task, args) for work in WORK for args in work.due(conn, AT_MOST)]
    notified = Counter[str]()
    for task, args in missing(due):
        ctx.notify(task, list(args))
        notified[task] += 1
    return Swept(
        events=notified[task_names.HANDLE_EVENT],
        operations=notified[task_names.CONVERGE],
        observations=observations,
        previews=notified[task_names.PREVIEW],
        rollouts=notified[task_names.ROLLOUT],
        pool=pool.tend(ctx),
        notifications=notified[task_names.DELIVER_NOTIFICATIONS],
        exports=notified[task_names.EXPORT],
    )
