"""Steps that make a placement: its database with the release in it, its secret, the proof that it works."""

from __future__ import annotations

from controlplane.domain.job import JobKind
from controlplane.domain.status import Part
from controlplane.domain.steps import StepName
from controlplane.store import job, placement, release, schema_shape, stack
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.providers.ports import Bounds
from controlplane.workers.steps.credentials import distrust_password
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.waiting import wait_for

BOUNDS = Bounds(lock_timeout=5.0, statement_timeout=300.0)
"""For a database that is brought to its release by its own operation: when it is new or after a transfer. A
rollout has bounds of its own."""


@tenant_step(
    StepName.AWAIT_CLUSTER,
    "nothing; the operation waits, without counting as an attempt",
    again="reading",
)
def await_cluster(work: TenantWork) -> None:
    wait_for(work, work.record.cluster)


@tenant_step(
    StepName.AWAIT_SECRET,
    "nothing itself; its cluster's operation makes its secret, for all that wait for one in one run of "
    "Terraform. Where one that was confirmed is not there any more, that is asked for again",
    again="what is asked for already is not asked for twice",
)
def await_secret(work: TenantWork) -> None:
    home = work.cluster
    with work.recording() as conn:
        if not job.is_open(conn, JobKind.CLUSTER, home.id) and home.needs_attention is None:
            stack.distrust(conn, stack.workspace_of("placements", home.id))
            reason = f"the secret of {work.placement.id} is not there"
            job.ensure(conn, JobKind.CLUSTER, home.id, reason=reason, actor=work.job.actor)
    wait_for(work, home)


@tenant_step(
    StepName.CREATE_DATABASE,
    "the hardening recipe, resumed at any line ([ADR 3](adr/0003-tenant-database-hardening.md)), and the "
    "tenant is written into the database",
    again="every line is probed first; the tenant is written once",
    touches=(Part.DATABASE,),
)
def create_database(work: TenantWork) -> None:
    work.ctx.providers.databases.create(work.at, work.placement, connection_limit=work.plan.connection_limit)
    work.ctx.providers.databases.bind(work.at, work.placement)


@tenant_step(
    StepName.OPEN_LOGINS,
    "lets the tenant's logins in again: it is served once more",
    again="setting it again changes nothing",
    touches=(Part.DATABASE,),
)
def open_logins(work: TenantWork) -> None:
    work.ctx.providers.databases.open_logins(
        work.at, work.placement, connection_limit=work.plan.connection_limit
    )


@tenant_step(
    StepName.CLOSE_LOGINS,
    "lets none of the tenant's logins in and ends their sessions",
    again="setting it again changes nothing",
    touches=(Part.DATABASE,),
)
def close_logins(work: TenantWork) -> None:
    work.ctx.providers.databases.close_logins(work.at, work.placement)


@tenant_step(
    StepName.MIGRATE_SCHEMA,
    "the application's release, as the migrator",
    again="each file is recorded in its own transaction",
    touches=(Part.DATABASE,),
    long=True,
)
def migrate_schema(work: TenantWork) -> None:
    databases = work.ctx.providers.databases
    with work.ctx.registry.connection() as conn:
        goal = release.find(conn, work.goal.release)
    if goal is None:
        databases.migrate(work.at, work.placement, work.ctx.migrations, up_to=work.goal.release)
    else:
        databases.bring_to(work.at, work.placement, goal, BOUNDS)


@tenant_step(
    StepName.VERIFY_ACCESS,
    "logs in as the application would and reads: right database, right placement, no other tenant",
    again="reading",
    touches=(),
)
def prove(work: TenantWork) -> None:
    credential = work.ctx.providers.secrets.read(work.placement.app_secret)
    if not work.ctx.providers.databases.accepts(work.at, credential):
        distrust_password(work)
        return
    work.ctx.providers.databases.prove(work.at, credential, work.placement)
    lines = work.ctx.providers.databases.shape(work.at, work.placement)
    with work.recording() as conn:
        schema_shape.see(conn, work.record.row.id, release=work.goal.release, lines=lines)
        placement.set_access_proof(conn, work.placement, work.goal.access_proof)
