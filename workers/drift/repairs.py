"""Repairs findings of the drift report, as far as a machine may.

Nothing here deletes or replaces what holds data: the engine is asked to look at a tenant, a route is
written again, a customer's contracts are applied, a hostname of ours that no tenant has is given back.
Clusters, databases, secrets, roles and states that belong to nobody are reported and left: an orphan may be
the only copy of what a registry restored from a backup has forgotten.

Only what two looks agree on is repaired. Each repair reads the registry again, so one that has become
wrong in between does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from controlplane.actions.action import Subject, run
from controlplane.domain.errors import ControlPlaneError, Retryable
from controlplane.domain.finding import Finding, Repair
from controlplane.store import audit, hostname, route
from controlplane.workers.engine.context import Context
from controlplane.workers.jobs.intake import apply_customer
from controlplane.workers.steps.routes import recording_of, take_back

log = logging.getLogger(__name__)

ACTOR = "verify"
REASON = "found by controlplane verify"


def repair(ctx: Context, findings: Sequence[Finding]) -> list[tuple[Finding, str]]:
    """Each finding that has a repair, with what was done about it; a tenant is asked for once."""
    done: list[tuple[Finding, str]] = []
    outcomes: dict[tuple[Repair, str], str] = {}
    for finding in findings:
        if finding.repair is None:
            continue
        key = finding.repair, finding.target
        if key not in outcomes:
            try:
                outcomes[key] = REPAIRS[finding.repair](ctx, finding)
            except ControlPlaneError as error:
                outcomes[key] = f"failed: {error}"
            _record(ctx, finding, outcomes[key])
        done.append((finding, outcomes[key]))
    return done


def _record(ctx: Context, finding: Finding, outcome: str) -> None:
    detail = {"system": finding.system, "fault": finding.fault, "kind": finding.kind, "name": finding.name}
    with ctx.registry.connection() as conn, conn.transaction():
        audit.append(
            conn,
            actor=ACTOR,
            action=f"verify.{finding.repair}",
            resource=finding.owner or finding.name,
            detail={**detail, "outcome": outcome[:500]},
        )


def _reprovision(ctx: Context, finding: Finding) -> str:
    with ctx.registry.connection() as conn:
        operation_id = run(conn, "reprovision", finding.target, actor=ACTOR, reason=REASON).operation_id
    return f"operation {operation_id} was asked for"


def _reprovision_cluster(ctx: Context, finding: Finding) -> str:
    with ctx.registry.connection() as conn:
        begun = run(conn, "reprovision", finding.target, actor=ACTOR, reason=REASON, subject=Subject.CLUSTER)
    return f"operation {begun.operation_id} was asked for"


def _republish(ctx: Context, finding: Finding) -> str:
    with ctx.registry.connection() as conn:
        if route.find(conn, finding.target) is None:
            return "the registry no longer routes it"
    take_back(ctx.providers.cache, recording_of(ctx), finding.target)
    return "published"


def _withdraw(ctx: Context, finding: Finding) -> str:
    with ctx.registry.connection() as conn:
        if route.find(conn, finding.target) is not None:
            return "the registry routes it by now"
        epoch = route.draw(conn)  # not the entry's own: it may be forged
    entry = ctx.providers.cache.read(finding.target)
    if entry is None:
        return "it is gone"
    if ctx.providers.cache.remove(finding.target, epoch=epoch, instead_of=entry.epoch):
        return "withdrawn"
    raise Retryable("somebody else wrote the entry meanwhile")


def _delete_hostname(ctx: Context, finding: Finding) -> str:
    with ctx.registry.connection() as conn:
        if hostname.owner(conn, finding.name) is not None:
            return "a tenant has it by now"
    observed = ctx.providers.hostnames.find(finding.name)
    if observed is None or observed.id != finding.target or observed.tenant_id != finding.owner:
        return "it is gone, or another's by now"
    ctx.providers.hostnames.delete(observed.id)
    return "deleted"


def _apply_contracts(ctx: Context, finding: Finding) -> str:
    apply_customer(ctx, finding.target, reason=REASON)
    return "fetched and applied"


REPAIRS: dict[Repair, Callable[[Context, Finding], str]] = {
    Repair.REPROVISION: _reprovision,
    Repair.REPROVISION_CLUSTER: _reprovision_cluster,
    Repair.REPUBLISH: _republish,
    Repair.WITHDRAW: _withdraw,
    Repair.DELETE_HOSTNAME: _delete_hostname,
    Repair.APPLY_CONTRACTS: _apply_contracts,
}
