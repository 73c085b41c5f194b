"""One act for each step: do it, once more if need be, and record what was confirmed.

Every act is idempotent and may be cut off at any point; the next look finds out how far it came. What
an act records about the outside it records after the outside has confirmed it, in a transaction that
is guarded by the fence.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict

from controlplane.domain.errors import Invalid, NeedsHuman, Pending, Refused, Retryable
from controlplane.domain.pool import QUOTA_RUNBOOK
from controlplane.domain.steps import StepName
from controlplane.store import (
    cluster,
    data_copy,
    hostname,
    move,
    placement,
    purge,
    release,
    restore,
    schema_shape,
    tenant,
)
from controlplane.store.registry import Connection
from workers.engine.quota import room_left
from workers.engine.stacks import (
    KEY_ADDRESSES,
    cluster_addresses,
    cluster_variables,
    superfluous_readers,
    tenant_variables,
)
from workers.engine.step_context import ClusterWork, TenantWork
from workers.engine.target import tombstone
from workers.engine.terraform_runs import apply_stack, destroy_stack
from workers.providers.ports import (
    Bounds,
    Credential,
    HostnameSeen,
)
from workers.steps.await_cluster import wait_for
from workers.steps.clone import copy_source, place_tenant
from workers.steps.move import (
    begin_copy,
    confirm_move,
    copy_rows,
    cut_over,
    end_copy,
    give_up_move,
    place_move,
    remove_placement,
)
from workers.steps.purge import (
    await_cluster_end,
    certify,
    delete_copy,
    destroy_tenant_stack,
    drop_database,
    keep_copy,
    note_approval,
    release_placement,
)
from workers.steps.restore import (
    await_restored,
    copy_restored,
    cut_restored,
    open_restored,
    restore_cluster,
)
from workers.steps.rotation import retire_login, rotate_credential
from workers.steps.routes import publish_route, withdraw_route

log = logging.getLogger(__name__)

BOUNDS = Bounds(lock_timeout=5.0, statement_timeout=300.0)
"""For a database that is brought to its release by its own operation: at its birth or after a move. A
rollout has bounds of its own."""


# ------------------------------------------------------------------------------------- clusters


def apply_cluster_stack(work: ClusterWork) -> None:
    _require_room(work)
    variables = cluster_variables(work.ctx.platform, work.row)
    apply_stack(
        work,
        "cluster",
        work.row.id,
        variables,
        work.wanted.stack_digest,
        approved=superfluous_readers(work.row),
    )


def _require_room(work: ClusterWork) -> None:
    """Before a new cluster: Terraform would make half of it and then wait minutes for AWS to refuse."""
    if work.row.ready_at is not None or work.ctx.providers.clusters.describe(work.row.id) is not None:
        return
    room, instances = room_left(work.ctx), work.row.desired.instance_count
    if room.clusters is not None and room.clusters < 1:
        raise NeedsHuman("the account's quota of clusters is used up", runbook=QUOTA_RUNBOOK)
    if room.instances is not None and room.instances < instances:
        raise NeedsHuman(
            f"the account's quota of instances leaves {max(0, room.instances)}, {instances} are needed",
            runbook=QUOTA_RUNBOOK,
        )


def destroy_cluster_stack(work: ClusterWork) -> None:
    """Approved for all that the stack has, and only for a cluster that holds no tenant's data, since nobody
    was ever on it or all that were are purged or have moved away: nothing can be placed on it any more, so
    nothing can change between the question and the deletion. Its key stays while a snapshot of it is kept,
    which is unreadable without."""
    workspace = work.row.id
    approved = cluster_addresses(work.row)
    with work.recording() as conn:
        if cluster.in_use(conn, workspace):
            raise NeedsHuman(f"{workspace} is or was a tenant's home", runbook="cluster-in-use")
        keeps_key = data_copy.snapshot_kept(conn, workspace)
        for given in purge.of_cluster(conn, workspace):
            note_approval(conn, work, given)
        if work.row.desired.origin is not None:
            _require_end_of_restore(conn, work)
    if keeps_key:
        approved -= KEY_ADDRESSES
    variables = cluster_variables(work.ctx.platform, work.row)
    destroy_stack(work, "cluster", workspace, variables, approved=approved)
    with work.recording() as conn:
        cluster.mark_destroyed(conn, workspace, keeps_key=keeps_key)


def _require_end_of_restore(conn: Connection, work: ClusterWork) -> None:
    """A restored cluster goes by the word of whoever asked for the restore, and when that is over with it."""
    reason = restore.reason_to_end(conn, work.row.id)
    if reason is None:
        raise NeedsHuman(f"the restore reads from {work.row.id}", runbook="cluster-in-use")
    work.note(conn, kind="approved", action="delete", message=reason)


def await_available(work: ClusterWork) -> None:
    raise Pending(work.step.reason, after=work.ctx.platform.cluster_poll)


def harden_cluster(work: ClusterWork) -> None:
    seen = work.ctx.providers.clusters.describe(work.row.id)
    if seen is None or seen.endpoint is None:
        raise Pending("the cluster has no endpoint yet", after=work.ctx.platform.cluster_poll)
    work.ctx.providers.databases.harden_cluster(seen.endpoint)
    with work.recording() as conn:
        cluster.set_endpoint(conn, work.row.id, asdict(seen.endpoint))
        cluster.mark_hardened(conn, work.row.id)


# -------------------------------------------------------------------------------------- tenants


def announce(work: TenantWork) -> None:
    with work.recording() as conn:
        tenant.mark_started(conn, work.facts.row.id)
    publish_route(work, work.wanted.announcement[work.step.target])


def apply_tenant_stack(work: TenantWork) -> None:
    variables = tenant_variables(work.ctx.platform, work.placement)
    apply_stack(work, "tenant", work.placement.workspace, variables, work.wanted.stack_digest)


def await_cluster(work: TenantWork) -> None:
    wait_for(work, work.facts.cluster)


def create_database(work: TenantWork) -> None:
    work.ctx.providers.databases.create(work.at, work.placement, connection_limit=_limit(work))


def open_logins(work: TenantWork) -> None:
    work.ctx.providers.databases.open_logins(work.at, work.placement, connection_limit=_limit(work))


def close_logins(work: TenantWork) -> None:
    work.ctx.providers.databases.close_logins(work.at, work.placement)


def write_credential(work: TenantWork) -> None:
    """The secret first, the role's password from it afterwards: the secret is the truth, so a crash
    between the two is mended by setting the password once more."""
    login = work.step.target
    with work.ctx.registry.connection() as conn:
        username = placement.login(conn, work.placement, login).username
    at = work.at
    work.ctx.providers.secrets.write(
        _secret(work, login),
        Credential(
            username=username,
            password=work.ctx.new_password(),
            host=at.host,
            port=at.port,
            dbname=work.placement.database,
        ),
        token=hashlib.sha256(f"{work.held.operation_id}/{work.held.fence}/{login}".encode()).hexdigest(),
    )


def set_password(work: TenantWork) -> None:
    login = work.step.target
    seen = work.ctx.providers.secrets.describe(_secret(work, login))
    if seen is None or seen.version_id is None:
        raise Retryable(f"the secret of {login} is empty")
    credential = work.ctx.providers.secrets.read(_secret(work, login))
    work.ctx.providers.databases.set_password(work.at, credential)
    with work.recording() as conn:
        placement.set_password_from(
            conn, work.placement, login, seen.version_id, username=credential.username
        )


def migrate_schema(work: TenantWork) -> None:
    credential = work.ctx.providers.secrets.read(work.placement.migrator_secret)
    if not work.ctx.providers.databases.accepts(work.at, credential):
        _distrust_password(work, "migrator")
        return
    with work.ctx.registry.connection() as conn:
        wanted = release.find(conn, work.wanted.release)
    if wanted is None:
        work.ctx.providers.databases.migrate(
            work.at, credential, work.ctx.migrations, up_to=work.wanted.release
        )
    else:
        work.ctx.providers.databases.bring_to(work.at, credential, wanted, BOUNDS)


def prove(work: TenantWork) -> None:
    credential = work.ctx.providers.secrets.read(work.placement.app_secret)
    if not work.ctx.providers.databases.accepts(work.at, credential):
        _distrust_password(work, "app")
        return
    work.ctx.providers.databases.prove(work.at, credential, work.placement)
    lines = work.ctx.providers.databases.shape(work.at, work.placement)
    with work.recording() as conn:
        schema_shape.see(conn, work.facts.row.id, release=work.wanted.release, lines=lines)
        if work.step.placement is None:
            tenant.set_proof(conn, work.facts.row.id, work.wanted.proof)
        elif work.facts.move is not None:
            move.set_proof(conn, work.facts.move.id, work.wanted.proof)


def publish(work: TenantWork) -> None:
    payload = work.wanted.routes[work.step.target]
    publish_route(work, payload)
    if payload["status"] == "active":
        with work.recording() as conn:
            tenant.mark_ready(conn, work.facts.row.id)


def withdraw(work: TenantWork) -> None:
    withdraw_route(work, tombstone(work.facts, work.step.target))


def register_hostname(work: TenantWork) -> None:
    host = work.step.target
    with work.recording() as conn:
        owner = hostname.want(conn, host, work.facts.row.id)
    if owner != work.facts.row.id:
        raise NeedsHuman(f"custom domain {host} belongs to another tenant", runbook="hostname-conflict")
    try:
        seen = work.ctx.providers.hostnames.create(host, work.facts.row.id)
    except Refused as error:
        with work.recording() as conn:
            hostname.refuse(conn, host, reason=str(error))
        return
    _hostname_seen(work, seen)


def poll_hostname(work: TenantWork) -> None:
    seen = work.ctx.providers.hostnames.find(work.step.target)
    if seen is None:
        seen = work.ctx.providers.hostnames.create(work.step.target, work.facts.row.id)
    _hostname_seen(work, seen)


def remove_hostname(work: TenantWork) -> None:
    host = work.step.target
    seen = work.ctx.providers.hostnames.find(host)
    if seen is not None and seen.tenant_id == work.facts.row.id:
        work.ctx.providers.hostnames.delete(seen.id)
    with work.recording() as conn:
        hostname.remove(conn, host)


# ---------------------------------------------------------------------------------------- shared


def _secret(work: TenantWork, login: str) -> str:
    return work.placement.app_secret if login == "app" else work.placement.migrator_secret


def _limit(work: TenantWork) -> int:
    if work.facts.plan is None:
        raise Invalid("plan", "a plan of the catalogue", got=work.facts.row.desired.plan)
    return work.facts.plan.connection_limit


def _distrust_password(work: TenantWork, login: str) -> None:
    """The server refuses what the secret holds: the next look plans to set it again."""
    log.warning("%s: the %s login was refused, its password is set again", work.facts.row.id, login)
    with work.recording() as conn:
        placement.set_password_from(conn, work.placement, login, None)


def _hostname_seen(work: TenantWork, seen: HostnameSeen) -> None:
    with work.recording() as conn:
        hostname.seen(
            conn,
            seen.host,
            provider_id=seen.id,
            status=seen.status,
            ssl_status=seen.ssl_status,
            records=[asdict(record) for record in seen.records],
            errors=list(seen.errors),
            poll_after=work.ctx.platform.hostname_poll,
        )


CLUSTER_ACTS: dict[StepName, Callable[[ClusterWork], None]] = {
    StepName.APPLY_CLUSTER_STACK: apply_cluster_stack,
    StepName.AWAIT_AVAILABLE: await_available,
    StepName.HARDEN_CLUSTER: harden_cluster,
    StepName.DESTROY_CLUSTER_STACK: destroy_cluster_stack,
}

TENANT_ACTS: dict[StepName, Callable[[TenantWork], None]] = {
    StepName.ANNOUNCE: announce,
    StepName.APPLY_TENANT_STACK: apply_tenant_stack,
    StepName.AWAIT_CLUSTER: await_cluster,
    StepName.CREATE_DATABASE: create_database,
    StepName.OPEN_LOGINS: open_logins,
    StepName.CLOSE_LOGINS: close_logins,
    StepName.WRITE_CREDENTIAL: write_credential,
    StepName.SET_PASSWORD: set_password,
    StepName.ROTATE_CREDENTIAL: rotate_credential,
    StepName.RETIRE_LOGIN: retire_login,
    StepName.MIGRATE_SCHEMA: migrate_schema,
    StepName.PROVE: prove,
    StepName.PUBLISH: publish,
    StepName.WITHDRAW: withdraw,
    StepName.REGISTER_HOSTNAME: register_hostname,
    StepName.POLL_HOSTNAME: poll_hostname,
    StepName.REMOVE_HOSTNAME: remove_hostname,
    StepName.PLACE_TENANT: place_tenant,
    StepName.COPY_SOURCE: copy_source,
    StepName.KEEP_COPY: keep_copy,
    StepName.DROP_DATABASE: drop_database,
    StepName.DESTROY_TENANT_STACK: destroy_tenant_stack,
    StepName.RELEASE_PLACEMENT: release_placement,
    StepName.AWAIT_CLUSTER_END: await_cluster_end,
    StepName.CERTIFY: certify,
    StepName.DELETE_COPY: delete_copy,
    StepName.PLACE_MOVE: place_move,
    StepName.BEGIN_COPY: begin_copy,
    StepName.COPY_ROWS: copy_rows,
    StepName.CUT_OVER: cut_over,
    StepName.END_COPY: end_copy,
    StepName.CONFIRM_MOVE: confirm_move,
    StepName.GIVE_UP_MOVE: give_up_move,
    StepName.REMOVE_PLACEMENT: remove_placement,
    StepName.RESTORE_CLUSTER: restore_cluster,
    StepName.AWAIT_RESTORED: await_restored,
    StepName.OPEN_RESTORED: open_restored,
    StepName.COPY_RESTORED: copy_restored,
    StepName.CUT_RESTORED: cut_restored,
    StepName.AWAIT_RESTORED_END: await_restored,
}

MOVING = frozenset(
    {
        StepName.PLACE_MOVE,
        StepName.BEGIN_COPY,
        StepName.COPY_ROWS,
        StepName.CUT_OVER,
        StepName.END_COPY,
        StepName.CONFIRM_MOVE,
        StepName.GIVE_UP_MOVE,
        StepName.REMOVE_PLACEMENT,
        StepName.RESTORE_CLUSTER,
        StepName.AWAIT_RESTORED,
        StepName.OPEN_RESTORED,
        StepName.COPY_RESTORED,
        StepName.CUT_RESTORED,
        StepName.AWAIT_RESTORED_END,
    }
)
"""Steps that are about both ends of a move; any other with a placement is one of that placement's own."""
