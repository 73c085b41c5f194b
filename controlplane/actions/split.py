"""Found a tenant of its own for a contract that is for this one beside another.

A customer who checked out twice pays for one tenant by two contracts (runbook paid-twice), and may have meant
two.
"""

from __future__ import annotations

from controlplane.actions.action import Action, Begun, OfTenant, register
from controlplane.actions.bind import Bind
from controlplane.domain.contract import Standing
from controlplane.domain.errors import Conflict
from controlplane.domain.job import JobKind
from controlplane.store import contract, job


def perform(asked: OfTenant[Bind]) -> Begun:
    detail, customer = in_advance(asked), asked.row.customer_id
    contract.bind(asked.conn, asked.params.contract, None)
    job.ensure(asked.conn, JobKind.INTAKE, customer, reason=asked.reason, actor=asked.actor, lock=customer)
    return Begun(detail, recorded=detail)


def in_advance(asked: OfTenant[Bind]) -> dict[str, object]:
    """Raises NotFound, and Conflict where nothing else would be left to pay for the tenant."""
    row, found = asked.row, contract.get(asked.conn, asked.params.contract)
    if found.tenant_id != row.id:
        raise Conflict(f"contract {found.id} is not for tenant {row.id}")
    if found.standing is Standing.ENDED:
        raise Conflict(f"contract {found.id} has ended: it founds nothing")
    others = [
        each.id
        for each in contract.of_tenant(asked.conn, row.id)
        if each.id != found.id and each.standing is not Standing.ENDED
    ]
    if found.customer_id != row.customer_id or not others:
        raise Conflict(f"contract {found.id} is all that is paid for tenant {row.id} by {row.customer_id}")
    return {"contract": found.id, "from": row.id, "stays": ", ".join(others)}


register(
    Action(
        name="split",
        summary="Found a tenant of its own for one of the contracts that are for this one.",
        params=Bind,
        perform=perform,
        preview=in_advance,
        audit="contract.split",
        full_id=True,
        patience=0.0,
    )
)
