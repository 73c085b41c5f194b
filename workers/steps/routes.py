"""Routes: decided in the registry, then written into the cache.

The registry is the truth, and the cache is not trusted: every process of the data plane can sign an entry,
since the key that verifies is the key that signs. A row is there before its entry, so an entry that is newer
than its host's row, *read after it*, was not written by this registry. It is taken back. Two things can
have put it there:

- The registry was restored from a backup: it has forgotten what it drew since. Then the entry is a little
  beyond the registry's sequence, at most EPOCH_STEP, and the route gets an epoch beyond it, so that data
  planes take it at once.
- Somebody forged it. Nothing from outside may drive the sequence of all tenants up, or one entry would stop
  every route. So the registry's entry is written over it as it is, with the lower epoch; data planes ask
  the control plane, whose word stands above an epoch of the cache.

A registry that lags further behind than EPOCH_STEP is reported as forged and recovers all the same. An entry
forged within the step moves the sequence by at most the step, and a full pass as a whole by no more than
that: MAX_EPOCH is 280 million steps away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from controlplane.domain.errors import Invalid, Retryable
from controlplane.domain.notification import NotificationKind
from controlplane.domain.status import Part
from controlplane.domain.steps import StepName
from controlplane.store import audit, notification, route, tenant
from controlplane.store.registry import Connection
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.goal import tombstone
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import ConfigCache, PublishedConfig
from controlplane.workers.steps.registry import tenant_step

log = logging.getLogger(__name__)

ACTOR = "publishing"
RUNBOOK_FORGED = "forged-entry"
ROUNDS = 8

Recording = Callable[[], AbstractContextManager[Connection]]


@tenant_step(
    StepName.ANNOUNCE,
    'publishes the host as "provisioning": 503 with `Retry-After` instead of 404',
    again="the epoch is drawn when the route changes, and an older one loses",
    touches=(Part.ROUTES,),
)
def announce(work: TenantWork) -> None:
    with work.recording() as conn:
        tenant.mark_started(conn, work.record.row.id)
    publish_route(work, work.goal.announcement[work.step.target])


@tenant_step(
    StepName.PUBLISH,
    "the signed TenantConfig, then the invalidation",
    again="epochs",
    touches=(Part.ROUTES,),
)
def publish(work: TenantWork) -> None:
    payload = work.goal.routes[work.step.target]
    publish_route(work, payload)
    if payload["status"] == "active":
        with work.recording() as conn:
            tenant.mark_ready(conn, work.record.row.id)


@tenant_step(
    StepName.WITHDRAW,
    "takes a host's entry away and leaves a tombstone: 404 from then on; if it redirected, its slug is free",
    again="epochs",
    touches=(Part.ROUTES,),
)
def withdraw(work: TenantWork) -> None:
    host = work.step.target
    with work.recording() as conn:
        epoch = route.decide(conn, host, work.record.row.id, tombstone(work.record, host))
        if host in work.goal.released:
            tenant.release_slug(conn, work.record.row.id, work.goal.released[host])
    if not work.ctx.providers.cache.remove(host, epoch=epoch):
        take_back(work.ctx.providers.cache, work.recording, host)


def publish_route(work: TenantWork, payload: Mapping[str, Any]) -> None:
    host = payload["host"]
    with work.recording() as conn:
        epoch = route.decide(conn, host, work.record.row.id, payload)
    if not work.ctx.providers.cache.publish({**payload, "epoch": epoch}):
        take_back(work.ctx.providers.cache, work.recording, host)


def publish_all(ctx: Context) -> int:
    """Write every route that the cache does not have as it should be, and take back the hosts whose entry is
    newer than the registry's; how many were written. What is wrong with one host (Invalid for a route that is
    no TenantConfig, Retryable for an entry that kept changing) is raised once all others are written."""
    newer: list[str] = []
    failed: list[Invalid | Retryable] = []
    written = 0
    with ctx.registry.connection() as conn:
        believed = route.newest_epoch(conn) + route.EPOCH_STEP
        try:
            written = ctx.providers.cache.publish_many(route.all_routes(conn), newer=newer)
        except (Invalid, Retryable) as error:
            failed.append(error)
    for host in newer:
        try:
            take_back(ctx.providers.cache, recording_of(ctx), host, believed=believed)
            written += 1
        except Retryable as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return written


def recording_of(ctx: Context) -> Recording:
    @contextmanager
    def recording() -> Iterator[Connection]:
        with ctx.registry.connection() as conn, conn.transaction():
            yield conn

    return recording


def take_back(cache: ConfigCache, recording: Recording, host: str, *, believed: int | None = None) -> None:
    """Make the cache's entry of a host that the registry routes what the registry says, though it is newer.

    `believed`: the highest epoch that is not forged; EPOCH_STEP beyond the sequence if None. Raises
    Retryable where other writers kept coming in between.
    """
    for _ in range(ROUNDS):
        entry = cache.read(host)
        with recording() as conn:
            payload, epoch = route.get(conn, host, lock=True)
            newest = route.newest_epoch(conn)
            forged = None
            if entry is not None and entry.epoch > epoch:
                if entry.epoch > (newest + route.EPOCH_STEP if believed is None else believed):
                    forged = entry.epoch
                else:
                    epoch = route.redraw(conn, host, beyond=entry.epoch)
                _report(conn, entry, payload, newest=newest, drawn=epoch if forged is None else None)
        if cache.publish({**payload, "epoch": epoch}, instead_of=forged):
            return
    raise Retryable(f"other writers changed the cache's entry for {host} {ROUNDS} times in between")


def _report(
    conn: Connection, entry: PublishedConfig, payload: Mapping[str, Any], *, newest: int, drawn: int | None
) -> None:
    """A believed entry that says what the registry says has led nobody astray: it is logged. Of any
    other a person must know."""
    decided = {**payload, "epoch": entry.epoch}
    changed = sorted(key for key in {*entry.payload, *decided} if entry.payload.get(key) != decided.get(key))
    found = f"{entry.host}: the cache held epoch {entry.epoch}, and the registry has drawn {newest}"
    cause = "it is forged with a key of ours, or of before the registry was restored from a backup"
    if drawn is not None and not changed:
        log.warning("%s: %s; drew %d", found, cause, drawn)
        return
    other = f"; it differs in {', '.join(changed)}"[:300] if changed else ""
    reason = f"{found}{other}: {cause}. The registry's entry is put in its place"
    log.error("%s", reason)
    tenant_id = str(payload["tenant_id"])
    notification.add(
        conn,
        tenant_id,
        NotificationKind.NEEDS_ATTENTION,
        once=f"{RUNBOOK_FORGED} {entry.host} {datetime.now(UTC).date()}",
        reason=reason,
        runbook=RUNBOOK_FORGED,
    )
    detail = {"host": entry.host, "epoch": entry.epoch, "newest": newest, "drawn": drawn, "differs": changed}
    audit.append(conn, actor=ACTOR, action="route.forged", resource=tenant_id, detail=detail)
