"""Look at the world: gather what the planner decides by, changing nothing.

A look costs a few API calls and one or two database connections, no Terraform: whether a stack is as it
should be is known from the digest that was confirmed at its last apply, as long as the things it made
still answer. Databases are asked only where the cluster is ready.
"""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain.errors import NeedsHuman, NotFound
from controlplane.domain.hostname import subdomain
from controlplane.domain.move import MoveObserved
from controlplane.domain.observed import (
    ClusterObserved,
    CredentialObserved,
    DatabaseObserved,
    LeavingObserved,
    RestoreObserved,
    TenantObserved,
)
from controlplane.domain.placement import Placement
from controlplane.domain.tenant import Lifecycle
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
from workers.engine.context import Context
from workers.engine.target import TenantFacts
from workers.providers.ports import ClusterEndpoint, SecretSeen


def endpoint_of(row: ClusterRow) -> ClusterEndpoint | None:
    return None if row.endpoint is None else ClusterEndpoint(**row.endpoint)


def observe_cluster(ctx: Context, row: ClusterRow) -> ClusterObserved:
    with ctx.registry.connection() as conn:
        confirmed = stack.get(conn, row.id)
    seen = ctx.providers.clusters.describe(row.id)
    return ClusterObserved(
        stack_digest=confirmed.digest if confirmed is not None and seen is not None else None,
        status=None if seen is None else seen.status,
        writer_status=None if seen is None else seen.writer_status,
        hardened=row.hardened_at is not None,
        destroyed=row.destroyed_at is not None,
        keeps_key=row.keeps_key,
    )


def load_tenant(ctx: Context, tenant_id: str) -> TenantFacts:
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
        asked = purge.of_tenant(conn, tenant_id) if row.desired.lifecycle is Lifecycle.CLOSED else None
        copy = None if asked is None else data_copy.of_purge(conn, asked.id)
    try:
        plan = ctx.catalogue.plan(row.desired.plan)
    except NotFound as error:
        if row.desired.lifecycle is not Lifecycle.CLOSED:
            raise NeedsHuman(str(error), runbook="unknown-plan") from error
        plan = None
    facts = TenantFacts(
        row=row,
        plan=plan,
        placement=placed,
        cluster=home,
        routed=routed,
        app_secret_arn=secret,
        move=moving,
        restore=asked_back,
        restored=restored,
        purge=None if asked is None or asked.state == "requested" else asked,
        copy=copy,
    )
    if moving is None or elsewhere is None:
        return facts
    beside = replace(
        facts,
        row=replace(row, proof=moving.proof),
        placement=elsewhere,
        cluster=other_home,
        app_secret_arn=other_secret,
    )
    return replace(facts, beside=beside)


def _home(conn: Connection, placed: Placement | None) -> tuple[ClusterRow | None, str | None]:
    """The cluster of a placement, and the ARN of its application's secret once its stack was applied."""
    if placed is None:
        return None, None
    confirmed = stack.get(conn, placed.workspace)
    secret = None if confirmed is None else confirmed.outputs.get("app_secret_arn")
    return cluster.get(conn, placed.cluster_id), secret


def observe_tenant(ctx: Context, facts: TenantFacts, *, wake: bool = True) -> TenantObserved:
    """`wake` False: a database on a cluster that pauses when idle is not asked, since a connection
    would start it; what was seen there last is taken for what there is."""
    with ctx.registry.connection() as conn:
        domains = tuple(h.observed() for h in hostname.of_tenant(conn, facts.row.id))
    hosts = {*facts.routed, subdomain(facts.row.slug, ctx.platform.zone), *(h.host for h in domains)}
    routes = {}
    for host in sorted(hosts):
        entry = ctx.providers.cache.read(host)
        if entry is not None and entry.payload.get("tenant_id") == facts.row.id:
            routes[host] = {key: value for key, value in entry.payload.items() if key != "epoch"}
    nothing = CredentialObserved(None, None)
    if facts.placement is None or facts.cluster is None:
        leaving = _leaving(ctx, facts, stack_made=False)
        return TenantObserved(False, None, None, nothing, nothing, None, routes, domains, leaving)

    placed, secrets = facts.placement, ctx.providers.secrets
    app, migrator = secrets.describe(placed.app_secret), secrets.describe(placed.migrator_secret)
    made = _usable(app) and _usable(migrator) and ctx.providers.identities.role_exists(placed.iam_role)
    at = endpoint_of(facts.cluster) if facts.cluster.ready else None
    database = None if wake or facts.leaving or not _pauses(facts) else _seen_last(facts)
    if at is not None and database is None:
        seen = ctx.providers.databases.observe(at, placed)
        database = DatabaseObserved(seen.exists, seen.hardened, seen.logins_open, seen.release, seen.roles)
    with ctx.registry.connection() as conn:
        confirmed = stack.get(conn, placed.workspace)
        begun = bool(stack.open_runs(conn, placed.workspace))
        app_login = placement.credential(conn, placed, "app", _version(app))
        migrator_login = placement.credential(conn, placed, "migrator", _version(migrator))
    return TenantObserved(
        cluster_ready=facts.cluster.ready,
        stack_digest=confirmed.digest if confirmed is not None and made else None,
        database=database,
        app=app_login,
        migrator=migrator_login,
        proof=facts.row.proof,
        routes=routes,
        hostnames=domains,
        move=_move(ctx, facts),
        restore=_restore(facts),
        beside=_beside(ctx, facts),
        leaving=_leaving(
            ctx,
            facts,
            stack_made=facts.purge is not None
            and (
                confirmed is not None
                or begun
                or _usable(app)
                or _usable(migrator)
                or ctx.providers.identities.role_exists(placed.iam_role)
            ),
        ),
    )


def _leaving(ctx: Context, facts: TenantFacts, *, stack_made: bool) -> LeavingObserved | None:
    if facts.purge is None:
        return None
    cluster_id = facts.purge.content["cluster"]
    with ctx.registry.connection() as conn:
        home = None if cluster_id is None else cluster.get(conn, cluster_id)
    copy = facts.copy
    return LeavingObserved(
        placed=facts.placement is not None,
        stack_made=stack_made,
        copied=copy is not None and copy.state == "kept",
        cluster_gone=home is not None and home.destroyed_at is not None,
        purged=facts.row.purged_at is not None,
        copy_overdue=copy is not None and copy.overdue,
    )


def _beside(ctx: Context, facts: TenantFacts) -> TenantObserved | None:
    """The target, as long as it is being made and filled."""
    if facts.move is None or not facts.move.phase.before_cut or facts.beside is None:
        return None
    return observe_tenant(ctx, facts.beside)


def _restore(facts: TenantFacts) -> RestoreObserved | None:
    if facts.restore is None:
        return None
    there = facts.restored
    return RestoreObserved(
        made=there is not None,
        ready=there is not None and there.ready,
        opened=facts.restore.opened_at is not None,
        copied=facts.restore.copied_at is not None,
        gone=there is None or there.destroyed_at is not None,
    )


def _move(ctx: Context, facts: TenantFacts) -> MoveObserved | None:
    """The databases are asked as long as one of them may keep something for the copy."""
    if facts.move is None or facts.restore is not None:
        return None
    ends = facts.ends()
    if ends is None or facts.move.cleared_at is not None:
        return MoveObserved(streaming=False, copied=False)
    seen = ctx.providers.moves.observe(*ends)
    return MoveObserved(streaming=seen.streaming, copied=seen.copied)


def _pauses(facts: TenantFacts) -> bool:
    return facts.cluster is not None and facts.cluster.desired.seconds_until_auto_pause is not None


def _seen_last(facts: TenantFacts) -> DatabaseObserved | None:
    last = (facts.row.observed or {}).get("database")
    return None if last is None else DatabaseObserved(**last)


def _usable(secret: SecretSeen | None) -> bool:
    return secret is not None and not secret.deleting


def _version(secret: SecretSeen | None) -> str | None:
    return None if secret is None or secret.deleting else secret.version_id
