"""The sweep: ring whatever is due.

It is why nothing hangs on a message: an event whose ring was lost, an operation whose worker died, a
retry whose time has come and a look that is due are all found here, in the registry, every few seconds.
One sweep runs at a time over the whole fleet (an advisory lock), and it rings at most a bounded number
of each, oldest first; the rest is still there at the next sweep. The warm pool is looked after in the
same pass.
"""

from __future__ import annotations

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
    route,
)
from workers import converge, exports, intake, notices, pool, rehearsals, rollouts, snapshots
from workers import preview as previews
from workers.context import Context

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


def sweep(ctx: Context) -> Swept:
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
    for event_id in events:
        ctx.ring(intake.TASK, [event_id])
    for kind, resource_id in operations:
        ctx.ring(converge.TASK, [kind, resource_id])
    for preview_id in waiting:
        ctx.ring(previews.TASK, [str(preview_id)])
    for export_id in wanted:
        ctx.ring(exports.TASK, [str(export_id)])
    if untold:
        ctx.ring(notices.TASK, [])
    if running is not None:
        ctx.ring(rollouts.TASK, [str(running)])
    if rehearsing:
        ctx.ring(rehearsals.TASK, [])
    if snapping:
        ctx.ring(snapshots.TASK, [])
    return Swept(
        events=len(events),
        operations=len(operations),
        looks=looks,
        previews=len(waiting),
        rollouts=int(running is not None),
        pool=pool.tend(ctx),
        notices=int(untold),
        exports=len(wanted),
    )


def republish(ctx: Context) -> int:
    """The full pass that mends a flushed or evicted cache: write every route that the cache does not
    have as it should be; how many were written. Entries that are newer in the cache stay. Old history
    goes in the same pass."""
    with ctx.registry.connection() as conn:
        history.prune(conn, limit=AT_MOST)
        return ctx.providers.cache.publish_many(route.all_routes(conn))
