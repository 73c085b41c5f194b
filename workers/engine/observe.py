"""Look at the world: ask the outside systems what the planner decides by, changing nothing.

A look costs a few API calls and one or two database connections, no Terraform: whether a stack is as it
should be is known from the digest that was confirmed at its last apply, as long as the things it made still
answer (a placement's secret is asked for by its tenant's look). Only the daily look at a cluster in use
makes a plan, to say what is no longer as its stack has it. Databases are asked only where the cluster is
ready.

What was observed is carried from one step to the next. Each step says which parts of it it touches
(`tenant_step(touches=…)`), and these are asked anew; all of it is after `LASTS` seconds, where something else
is to be asked by now, before a step that deletes, and before a tenant is called reconciled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.domain.data_copy import CopyState
from controlplane.domain.errors import ControlPlaneError, NeedsHuman
from controlplane.domain.hostname import subdomain
from controlplane.domain.status import (
    Clients,
    ClusterStatus,
    CredentialStatus,
    DatabaseStatus,
    Part,
    PurgeStatus,
    TenantStatus,
    TransferStatus,
)
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind
from controlplane.store.cluster import ClusterRow
from controlplane.store.placement import Login
from controlplane.store.record import OnCluster
from controlplane.store.stack import StackRow
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.record import TenantRecord, endpoint_of
from controlplane.workers.engine.stacks import cluster_variables, placements_variables
from controlplane.workers.providers.ports import ClusterEndpoint, Home, SecretDescription, StackRun

log = logging.getLogger(__name__)

LASTS = 30.0


def observe_cluster(
    ctx: Context, row: ClusterRow, confirmed: StackRow | None, second: StackRow | None, on: OnCluster
) -> ClusterStatus:
    """`confirmed`: its own stack; `second`: that of its placements."""
    begun = "" if on.begun else None
    status = ctx.providers.clusters.describe(row.id)
    made = status is not None and ctx.providers.identities.role_exists(row.id)
    awake, clients = _who_keeps_awake(ctx, row)
    return ClusterStatus(
        stack_digest=confirmed.digest if confirmed is not None and made else None,
        placements_digest=begun if second is None else second.digest,
        releasing=bool(on.released),
        status=None if status is None else status.status,
        writer_status=None if status is None else status.writer_status,
        hardened=row.hardened_at is not None,
        destroyed=row.destroyed_at is not None,
        keeps_key=row.keeps_key,
        awake=awake,
        clients=clients,
    )


def _who_keeps_awake(ctx: Context, row: ClusterRow) -> tuple[bool | None, tuple[Clients, ...] | None]:
    """Asked of the server only where somebody is connected, so that the question keeps none awake. What can't
    be asked is not known: it is for people alone."""
    at = endpoint_of(row)
    if at is None or not row.ready or row.spec.seconds_until_auto_pause is None:
        return None, None
    try:
        found = ctx.providers.clusters.activity(row.id)
        connected = found is not None and found.acu > 0 and found.connections > 0
        clients = tuple(ctx.providers.databases.clients(at)) if connected else ()
    except ControlPlaneError as error:
        log.warning("who keeps %s awake is not known: %s", row.id, error)
        return None, None
    return (None, None) if found is None else (found.acu > 0, clients)


def cluster_drift(ctx: Context, row: ClusterRow, on: OnCluster) -> list[dict[str, str]]:
    """What Terraform would change now in both its stacks, by the release that the row names, [{"address",
    "action"}]."""
    if row.release is None:
        raise NeedsHuman(f"{row.id} is in use and names no release of the stacks", runbook="internal-error")
    stacks = {"cluster": cluster_variables(ctx.platform, row)}
    if on.placements:
        stacks["placements"] = placements_variables(ctx.platform, row, on.placements)
    found = [
        change
        for name, variables in stacks.items()
        for change in ctx.providers.terraform.plan(
            StackRun(name, row.id, row.release, {**variables, "operation_id": "look"})
        )
    ]
    return [{"address": change.address, "action": change.action} for change in found]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be asked, by the record. `secondary`: the target, as long as it is being made and filled."""

    hosts: frozenset[str]
    placement: str | None
    at: ClusterEndpoint | None
    purging: bool
    ends: tuple[Home, Home] | None
    secondary: Asked | None


@dataclass(frozen=True, slots=True)
class Observed:
    """What the outside systems answered. `app`: the secret's version, None where it is empty or being
    deleted. `made`: is it there? `database`: None where the cluster can't be asked. `at`: when, by
    `time.monotonic`."""

    asked: Asked
    at: float
    routes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    app: str | None = None
    made: bool = False
    database: DatabaseStatus | None = None
    transfer: TransferStatus = field(default_factory=TransferStatus)
    secondary: Observed | None = None

    def holds(self, ctx: Context, record: TenantRecord) -> bool:
        return self.asked == to_ask(ctx, record) and time.monotonic() - self.at < LASTS


def to_ask(ctx: Context, record: TenantRecord) -> Asked:
    around, home = record.around, subdomain(record.row.slug, ctx.platform.zone)
    found = record.transfer
    followed = found is not None and found.kind is TransferKind.MOVE and found.cleared_at is None
    filled = record.secondary if found is not None and found.phase.before_cut else None
    return Asked(
        hosts=frozenset({*around.routed, home, *(found.host for found in around.hostnames)}),
        placement=None if record.placement is None else record.placement.id,
        at=None if record.cluster is None or not record.cluster.ready else endpoint_of(record.cluster),
        purging=record.purging,
        ends=record.ends() if followed else None,
        secondary=None if filled is None else to_ask(ctx, filled),
    )


def observe_tenant(
    ctx: Context,
    record: TenantRecord,
    *,
    parts: Collection[Part] = tuple(Part),
    before: Observed | None = None,
) -> Observed:
    """`parts`: only these, of what was observed `before`. A connection would start a cluster that has paused,
    so a database on one that may is asked only where it is to be changed; else what was observed there last
    is taken for what there is."""
    now = before or Observed(to_ask(ctx, record), time.monotonic())
    if Part.ROUTES in parts:
        now = replace(now, routes=_routes(ctx, record, now.asked.hosts))
    if record.placement is None or record.cluster is None:
        return now
    if Part.SECRET in parts:
        app = _secret(ctx, record.placement.app_secret)
        now = replace(now, app=None if app is None else app.version_id, made=app is not None)
    if Part.DATABASE in parts:
        now = replace(now, database=_database(ctx, record))
    if Part.TRANSFER in parts:
        now = replace(now, transfer=_transfer(ctx, now.asked))
        if now.asked.secondary is not None and record.secondary is not None:
            now = replace(now, secondary=observe_tenant(ctx, record.secondary))
    return now


def status_of(record: TenantRecord, observed: Observed) -> TenantStatus:
    """The record and what was observed, in the terms that the planner decides by. Pure."""
    around, stack = record.around, record.stack
    confirmed = stack is not None and bool(stack.digest) and record.app_secret_arn is not None
    return TenantStatus(
        cluster_ready=record.cluster is not None and record.cluster.ready and record.role_arn is not None,
        secret_made=confirmed and observed.made,
        database=observed.database,
        app=_credential(record.app, observed.app),
        access_proof=None if record.app is None else record.app.access_proof,
        routes=observed.routes,
        hostnames=around.hostnames,
        transfer=None if record.transfer is None else _transfer_status(record, observed.transfer),
        secondary=None
        if observed.secondary is None or record.secondary is None
        else status_of(record.secondary, observed.secondary),
        purging=_purging(record),
    )


def _routes(ctx: Context, record: TenantRecord, hosts: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
    routes = {}
    for host in sorted(hosts):
        entry = ctx.providers.cache.read(host)
        if entry is not None and entry.payload.get("tenant_id") == record.row.id:
            routes[host] = {key: value for key, value in entry.payload.items() if key != "epoch"}
    return routes


def _database(ctx: Context, record: TenantRecord) -> DatabaseStatus | None:
    home = record.home()
    if home is None or record.cluster is None:
        return None
    last = (record.row.status or {}).get("database")
    pauses = record.cluster.spec.seconds_until_auto_pause is not None
    if pauses and not record.purging and last is not None and not _to_be_changed(ctx, record):
        return DatabaseStatus(**last)
    if not record.cluster.ready:
        return None
    found = ctx.providers.databases.observe(home.at, home.placement)
    bound = found.identity is not None and found.identity.tenant is not None  # by the same step as hardened
    return DatabaseStatus(
        found.exists, found.hardened and bound, found.logins_open, found.release, found.roles
    )


def _to_be_changed(ctx: Context, record: TenantRecord) -> bool:
    """Is the database, as it was observed last, not what the record asks for, or was that another one? Also
    where somebody distrusts it (`reprovision` takes the proof of access back)."""
    status, release = record.row.status or {}, record.row.release or ctx.release
    last, active = status["database"], record.row.spec.lifecycle is Lifecycle.ACTIVE
    login = record.app
    if record.transfer is not None or login is None or login.access_proof is None:
        return True
    if login.password_from != status["app_credential"]:
        return True
    if not active:
        return bool(last["exists"] and last["logins_open"])
    serves = last["exists"] and last["hardened"] and last["logins_open"]
    return not serves or (last["release"] or "") < (release or "")


def _transfer(ctx: Context, asked: Asked) -> TransferStatus:
    """The databases are asked as long as one of them may keep something for the copy."""
    if asked.ends is None:
        return TransferStatus()
    found = ctx.providers.moves.observe(*asked.ends)
    return TransferStatus(streaming=found.streaming, copied=found.copied)


def _transfer_status(record: TenantRecord, observed: TransferStatus) -> TransferStatus:
    there = record.restored
    return replace(
        observed,
        made=there is not None,
        ready=there is not None and there.ready,
        opened=record.transfer is not None and record.transfer.opened_at is not None,
        gone=there is None or there.destroyed_at is not None,
    )


def _purging(record: TenantRecord) -> PurgeStatus | None:
    if record.purge is None:
        return None
    copy, home = record.copy, record.leaving
    return PurgeStatus(
        placed=record.placement is not None,
        releasing=record.around.releasing,
        copied=copy is not None and copy.state is CopyState.KEPT,
        cluster_gone=home is not None and home.destroyed_at is not None,
        purged=record.row.purged_at is not None,
        copy_overdue=copy is not None and copy.overdue,
    )


def _credential(login: Login | None, version: str | None) -> CredentialStatus:
    """`version`: what the secret holds now."""
    if login is None:
        return CredentialStatus(version, None)
    return CredentialStatus(
        version, login.password_from, login.generation, login.requested, login.age, login.retire_in
    )


def _secret(ctx: Context, name: str) -> SecretDescription | None:
    """None for one that is being deleted, too."""
    found = ctx.providers.secrets.describe(name)
    return None if found is None or found.deleting else found
