"""Steps that make a placement: its stack, its database with the release in it, the proof that it works."""

from __future__ import annotations

from controlplane.domain.status import Part
from controlplane.domain.steps import StepName
from controlplane.store import release, schema_shape, tenant, transfer
from controlplane.workers.engine.stacks import tenant_variables
from controlplane.workers.engine.step_context import TenantWork
from controlplane.workers.engine.terraform_runs import apply_stack, with_release
from controlplane.workers.providers.ports import Bounds
from controlplane.workers.steps.credentials import distrust_password
from controlplane.workers.steps.registry import tenant_step
from controlplane.workers.steps.waiting import wait_for

BOUNDS = Bounds(lock_timeout=5.0, statement_timeout=300.0)
"""For a database that is brought to its release by its own operation: when it is new or after a transfer. A
rollout has bounds of its own."""


@tenant_step(
    StepName.APPLY_TENANT_STACK,
    "Terraform: two secret containers, tagged with the placement",
    again="names are fixed; what a killed run left is adopted",
    touches=(Part.STACK,),
    long=True,
)
def apply_tenant_stack(work: TenantWork) -> None:
    home = with_release(work, work.cluster)
    variables = tenant_variables(work.ctx.platform, work.placement, home)
    apply_stack(work, "tenant", work.placement.workspace, variables, home)


@tenant_step(
    StepName.AWAIT_CLUSTER,
    "nothing; the operation waits, without counting as an attempt",
    again="reading",
)
def await_cluster(work: TenantWork) -> None:
    wait_for(work, work.record.cluster)


@tenant_step(
    StepName.CREATE_DATABASE,
    "the hardening recipe, resumed at any line ([ADR 3](adr/0003-tenant-database-hardening.md))",
    again="every line is probed first",
    touches=(Part.DATABASE,),
)
def create_database(work: TenantWork) -> None:
    work.ctx.providers.databases.create(work.at, work.placement, connection_limit=work.plan.connection_limit)


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
    credential = work.ctx.providers.secrets.read(work.placement.migrator_secret)
    if not work.ctx.providers.databases.accepts(work.at, credential):
        distrust_password(work, "migrator")
        return
    with work.ctx.registry.connection() as conn:
        goal = release.find(conn, work.goal.release)
    if goal is None:
        work.ctx.providers.databases.migrate(
            work.at, credential, work.ctx.migrations, up_to=work.goal.release
        )
    else:
        work.ctx.providers.databases.bring_to(work.at, credential, goal, BOUNDS)


@tenant_step(
    StepName.VERIFY_ACCESS,
    "logs in as the application would and reads: right database, right marker",
    again="reading",
    touches=(),
)
def prove(work: TenantWork) -> None:
    credential = work.ctx.providers.secrets.read(work.placement.app_secret)
    if not work.ctx.providers.databases.accepts(work.at, credential):
        distrust_password(work, "app")
        return
    work.ctx.providers.databases.prove(work.at, credential, work.placement)
    lines = work.ctx.providers.databases.shape(work.at, work.placement)
    with work.recording() as conn:
        schema_shape.see(conn, work.record.row.id, release=work.goal.release, lines=lines)
        if work.step.placement is None:
            tenant.set_access_proof(conn, work.record.row.id, work.goal.access_proof)
        elif work.record.transfer is not None:
            transfer.set_access_proof(conn, work.record.transfer.id, work.goal.access_proof)
