"""Say which tenant a contract is for, where that can't be told from what the customer has.

A contract that waits for a person because several tenants may be meant, one that was bought for another
customer's tenant (a transfer of ownership), one that founded a tenant of its own and was meant for an old
one. Intake decides anew with the binding; a tenant that is left without any contract closes and keeps its
data for its retention. Where the contract is another customer's than the tenant, rows would change hands, so
nobody does it alone: the first person's word is kept, and another one's same command takes effect.
"""

from __future__ import annotations

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.contract import Standing
from controlplane.domain.errors import Conflict
from controlplane.domain.job import JobKind
from controlplane.store import contract, job, purge


class Bind(Parameters):
    contract: str = Field(
        pattern=r"^[A-Za-z0-9_]{1,255}$",
        title="a contract's id, as `contracts list` shows it",
        description="The contract that is to be for the tenant.",
    )


def perform(asked: OfTenant[Bind]) -> Begun:
    conn, tenant_id, name = asked.conn, asked.row.id, asked.params.contract
    detail = in_advance(asked)
    if detail["from"] == tenant_id:
        return Begun(None, recorded=detail)
    if detail["needs_second_person"]:
        contract.propose(conn, name, tenant_id, actor=asked.actor)
    else:
        contract.bind(conn, name, tenant_id)
        customer = str(detail["customer"])
        job.ensure(conn, JobKind.INTAKE, customer, reason=asked.reason, actor=asked.actor, lock=customer)
    return Begun(detail, recorded=detail)


def in_advance(asked: OfTenant[Bind]) -> dict[str, object]:
    """Raises NotFound, and Conflict where it can't be, or not by this person alone. `state`: what it comes
    to."""
    row, found = asked.row, contract.get(asked.conn, asked.params.contract)
    if row.clone_of is not None:
        raise Conflict(f"tenant {row.id} is a clone: nobody pays for it")
    if purge.begun(asked.conn, row.id):
        raise Conflict(f"tenant {row.id} is deleted, or on the way out: nothing can be bound to it")
    if found.customer_id is None:
        raise Conflict(f"contract {found.id}: it can't be read whose it is: {found.reason}")
    if found.standing is Standing.ENDED:
        raise Conflict(f"contract {found.id} has ended: it makes nothing of a tenant")
    bound, proposed = found.tenant_id == row.id, found.proposed or {}
    others = not bound and found.customer_id != row.customer_id
    first = proposed["actor"] if others and proposed.get("tenant") == row.id else None
    if first == asked.actor:
        raise Conflict(f"{first} has asked for this binding: somebody else must ask for the same")
    return {
        "contract": found.id,
        "customer": found.customer_id,
        "standing": None if found.standing is None else found.standing.value,
        "from": found.tenant_id,
        "to": row.id,
        "needs_second_person": others and first is None,
        "requested_by": first,
        "approved_by": None if first is None else asked.actor,
        "state": "nothing to do: it is for this tenant"
        if bound
        else "bound"
        if first is not None or not others
        else "waits for a second person, who asks for the same",
    }


register(
    Action(
        name="bind",
        summary="Say that a contract is for this tenant. Another customer's needs a second person, who asks"
        " for the same.",
        params=Bind,
        perform=perform,
        preview=in_advance,
        audit="contract.bind",
        full_id=True,
        patience=0.0,
    )
)
