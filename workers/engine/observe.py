"""Look at the world: gather what the planner decides by, changing nothing.

A look costs a few API calls and one or two database connections, no Terraform: whether a stack is as it
should be is known from the digest that was confirmed at its last apply, as long as the things it made
still answer. Databases are asked only where the cluster is ready.
"""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain.data_copy import CopyState
from controlplane.domain.errors import NeedsHuman, NotFound
from controlplane.domain.hostname import subdomain
from controlplane.domain.move import MoveKind, MoveStatus
from controlplane.domain.placement import Placement
from controlplane.domain.purge import PurgeState
from controlplane.domain.status import (
    ClusterStatus,
    CredentialStatus,
    DatabaseStatus,
    PurgeStatus,
    RestoreStatus,
    TenantStatus,
)
from controlplane.domain.tenant import Lifecycle
from controlplane.services import purges
from controlplane.store import (
    cluster,
    data_copy,
    hostname,
    move,
    placement,
    purge,
    restore,
    route,
    stack,
    tenant,
)
from controlplane.store.cluster import ClusterRow
from controlplane.store.registry import Connection
from controlplane.workers.engine.context import Context
from controlplane.workers.engine.goal import TenantRecord
from controlplane.workers.providers.ports import ClusterEndpoint, SecretDescription


def endpoint_of(row: ClusterRow) -> ClusterEndpoint | None:
    return None if row.endpoint is None else ClusterEndpoint(**row.endpoint)


def observe_cluster(ctx: Context, row: ClusterRow) -> ClusterStatus:
    with ctx.registry.connection() as conn:
        confirmed = stack.get(conn, row.id)
    status = ctx.providers.clusters.describe(row.id)
    return ClusterStatus(
        stack_digest=confirmed.digest if confirmed is not None and status is not None else None,
        status=None if status is None else status.status,
        writer_status=None if status is None else status.writer_status,
        hardened=row.hardened_at is not None,
        destroyed=row.destroyed_at is not None,
        keeps_key=row.keeps_key,
    )


def load_tenant(ctx: Context, tenant_id: str) -> TenantRecord:
    """What the registry knows. Raises NeedsHuman where the plan of a living tenant is unknown."""
    with ctx.registry.connection() as conn:
        row = tenant.get(conn, tenant_id)
        placed = placement.current(conn, tenant_id)
        home, secret = _home(conn, placed)
        moving = move.current(conn, tenant_id)
        asked_back = None if moving is None else restore.of_move(conn, moving.id)
        restored = None
        if asked_back is not None and asked_back.cluster_id is not None:
            restored = cluster.get(conn, asked_back.cluster_id)
        other = None if moving is None or moving.other is None else moving.other
        elsewhere = None if other is None else placement.get(conn, tenant_id, other)
        other_home, other_secret = _home(conn, elsewhere)
        routed = {host: payload["status"] for host, (payload, _) in route.of_tenant(conn, tenant_id).items()}
        asked = purge.of_tenant(conn, tenant_id) if row.spec.lifecycle is Lifecycle.CLOSED else None
        copy = None if asked is None else data_copy.of_purge(conn, asked.id)
        left = tenant.retention_left(conn, tenant_id)
        kept_for = None if left is None else purges.kept_for_customer(conn, row)
        last_move = move.latest(conn, tenant_id, kind=MoveKind.MOVE)
    try:
        plan = ctx.catalogue.plan(row.spec.plan)
    except NotFound as error:
        if row.spec.lifecycle is not Lifecycle.CLOSED:
            raise NeedsHuman(str(error), runbook="unknown-plan") from error
        plan = None
    record = TenantRecord(
        row=row,
        plan=plan,
        placement=placed,
        cluster=home,
        routed=routed,
        app_secret_arn=secret,
        move=moving,
        restore=asked_back,
        restored=restored,
        purge=None if asked is None or asked.state is PurgeState.REQUESTED else asked,
        copy=copy,
        last_move=last_move,
        retention_left=left,
        kept_for=kept_for,
        requested=asked is not None and asked.state is PurgeState.REQUESTED,
    )
    if moving is None or elsewhere is None:
        return record
    secondary = replace(
        record,
        row=replace(row, access_proof=moving.access_proof),
        placement=elsewhere,
        cluster=other_home,
        app_secret_arn=other_secret,
    )
    return replace(record, secondary=secondary)


def _home(conn: Connection, placed: Placement | None) -> tuple[ClusterRow | None, str | None]:
    """The cluster of a placement, and the ARN of its application's secret once its stack was applied."""
    if placed is None:
        return None, None
    confirmed = stack.get(conn, placed.workspace)
    secret = None if confirmed is None else confirmed.outputs.get("app_secret_arn")
    return cluster.get(conn, placed.cluster_id), secret


def observe_tenant(ctx: Context, record: TenantRecord, *, wake: bool = True) -> TenantStatus:
    """`wake` False: a database on a cluster that pauses when idle is not asked, since a connection
    would start it; what was observed there last is taken for what there is."""
    with ctx.registry.connection() as conn:
        domains = tuple(h.observed() for h in hostname.of_tenant(conn, record.row.id))
    hosts = {*record.routed, subdomain(record.row.slug, ctx.platform.zone), *(h.host for h in domains)}
    routes = {}
    for host in sorted(hosts):
        entry = ctx.providers.cache.read(host)
        if entry is not None and entry.payload.get("tenant_id") == record.row.id:
            routes[host] = {key: value for key, value in entry.payload.items() if key != "epoch"}
    nothing = CredentialStatus(None, None)
    if record.placement is None or record.cluster is None:
        purging = _leaving(ctx, record, stack_made=False)
        return TenantStatus(False, None, None, nothing, nothing, None, routes, domains, purging)

    placed, secrets = record.placement, ctx.providers.secrets
    app, migrator = secrets.describe(placed.app_secret), secrets.describe(placed.migrator_secret)
    made = _usable(app) and _usable(migrator) and ctx.providers.identities.role_exists(placed.iam_role)
    at = endpoint_of(record.cluster) if record.cluster.ready else None
    database = None if wake or record.purging or not _pauses(record) else _last_observed(record)
    if at is not None and database is None:
        status = ctx.providers.databases.observe(at, placed)
        database = DatabaseStatus(
            status.exists, status.hardened, status.logins_open, status.release, status.roles
        )
    with ctx.registry.connection() as conn:
        confirmed = stack.get(conn, placed.workspace)
        begun = bool(stack.open_runs(conn, placed.workspace))
        app_login = placement.credential(conn, placed, "app", _version(app))
        migrator_login = placement.credential(conn, placed, "migrator", _version(migrator))
    return TenantStatus(
        cluster_ready=record.cluster.ready,
        stack_digest=confirmed.digest if confirmed is not None and made else None,
        database=database,
        app=app_login,
        migrator=migrator_login,
        access_proof=record.row.access_proof,
        routes=routes,
        hostnames=domains,
        move=_move(ctx, record),
        restore=_restore(record),
        secondary=_secondary(ctx, record),
        purging=_leaving(
            ctx,
            record,
            stack_made=record.purge is not None
            and (
                confirmed is not None
                or begun
                or _usable(app)
                or _usable(migrator)
                or ctx.providers.identities.role_exists(placed.iam_role)
            ),
        ),
    )


def _leaving(ctx: Context, record: TenantRecord, *, stack_made: bool) -> PurgeStatus | None:
    if record.purge is None:
        return None
    cluster_id = record.purge.content["cluster"]
    with ctx.registry.connection() as conn:
        home = None if cluster_id is None else cluster.get(conn, cluster_id)
    copy = record.copy
    return PurgeStatus(
        placed=record.placement is not None,
        stack_made=stack_made,
        copied=copy is not None and copy.state is CopyState.KEPT,
        cluster_gone=home is not None and home.destroyed_at is not None,
        purged=record.row.purged_at is not None,
        copy_overdue=copy is not None and copy.overdue,
    )


def _secondary(ctx: Context, record: TenantRecord) -> TenantStatus | None:
    """The target, as long as it is being made and filled."""
    if record.move is None or not record.move.phase.before_cut or record.secondary is None:
        return None
    return observe_tenant(ctx, record.secondary)


def _restore(record: TenantRecord) -> RestoreStatus | None:
    if record.restore is None:
        return None
    there = record.restored
    return RestoreStatus(
        made=there is not None,
        ready=there is not None and there.ready,
        opened=record.restore.opened_at is not None,
        copied=record.restore.copied_at is not None,
        gone=there is None or there.destroyed_at is not None,
    )


def _move(ctx: Context, record: TenantRecord) -> MoveStatus | None:
    """The databases are asked as long as one of them may keep something for the copy."""
    if record.move is None or record.restore is not None:
        return None
    ends = record.ends()
    if ends is None or record.move.cleared_at is not None:
        return MoveStatus(streaming=False, copied=False)
    status = ctx.providers.moves.observe(*ends)
    return MoveStatus(streaming=status.streaming, copied=status.copied)


def _pauses(record: TenantRecord) -> bool:
    return record.cluster is not None and record.cluster.spec.seconds_until_auto_pause is not None


def _last_observed(record: TenantRecord) -> DatabaseStatus | None:
    last = (record.row.status or {}).get("database")
    return None if last is None else DatabaseStatus(**last)


def _usable(secret: SecretDescription | None) -> bool:
    return secret is not None and not secret.deleting


def _version(secret: SecretDescription | None) -> str | None:
    return None if secret is None or secret.deleting else secret.version_id
