"""The sweep: ring whatever is due and not rung already.

It is why nothing hangs on a message: an event whose ring was lost, an operation whose worker died, a
retry whose time has come and a look that is due are all found here, in the registry, every few seconds.
One sweep runs at a time over the whole fleet (an advisory lock), and it rings at most a bounded number
of each, oldest first; the rest is still there at the next sweep. What waits in the broker is not rung
again (`workers/doorbell.py`), so that a long backlog holds each ring once: at every moment those that have
been due the longest. The warm pool is looked after in the same pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.services import timers
from controlplane.store import (
    data_copy,
    event,
    history,
    notice,
    operation,
    preview,
    rehearsal,
    rollout,
    rollout_snapshot,
)
from workers import converge, exports, intake, notices, pool, publishing, rehearsals, rollouts, snapshots
from workers import preview as previews
from workers.context import Context
from workers.doorbell import Rung

_ADVISORY_LOCK = 0x7C9_0003
AT_MOST = 500


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each were rung; `pool`: what was recorded for the warm pool. `skipped`: another sweep
    was under way."""

    events: int = 0
    operations: int = 0
    looks: int = 0
    previews: int = 0
    rollouts: int = 0
    pool: int = 0
    notices: int = 0
    exports: int = 0
    skipped: bool = False


def sweep(ctx: Context, unheard: Callable[[list[Rung]], list[Rung]] = list) -> Swept:
    """`unheard`: which of these rings wait in no queue; all, where there is no queue to look into."""
    with ctx.registry.connection() as conn, conn.transaction():
        row = conn.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", [_ADVISORY_LOCK]).fetchone()
        if row is None or not row["mine"]:
            return Swept(skipped=True)
        looks = timers.run(conn, limit=AT_MOST)
        events = event.due(conn, limit=AT_MOST)
        operations = operation.due(conn, limit=AT_MOST)
        waiting = preview.due(conn, limit=AT_MOST)
        untold = notice.due(conn)
        wanted = data_copy.due_exports(conn, limit=AT_MOST)
        running = rollout.running(conn)
        rehearsing = rehearsal.due(conn)
        snapping = rollout_snapshot.is_due(conn)
    due: list[Rung] = [
        *((intake.TASK, (event_id,)) for event_id in events),
        *((converge.TASK, (kind, resource_id)) for kind, resource_id in operations),
        *((previews.TASK, (str(preview_id),)) for preview_id in waiting),
        *((exports.TASK, (str(export_id),)) for export_id in wanted),
        *([(notices.TASK, ())] if untold else []),
        *([(rollouts.TASK, (str(running),))] if running is not None else []),
        *([(rehearsals.TASK, ())] if rehearsing else []),
        *([(snapshots.TASK, ())] if snapping else []),
    ]
    rung = Counter[str]()
    for task, args in unheard(due):
        ctx.ring(task, list(args))
        rung[task] += 1
    return Swept(
        events=rung[intake.TASK],
        operations=rung[converge.TASK],
        looks=looks,
        previews=rung[previews.TASK],
        rollouts=rung[rollouts.TASK],
        pool=pool.tend(ctx),
        notices=rung[notices.TASK],
        exports=rung[exports.TASK],
    )


def republish(ctx: Context) -> int:
    """The full pass that mends a flushed or evicted cache: write every route that the cache does not
    have as it should be; how many were written. Old history goes in the same pass."""
    with ctx.registry.connection() as conn:
        history.prune(conn, limit=AT_MOST)
    return publishing.publish_all(ctx)
