"""An operator's word over what billing says of a tenant, for a while: nobody is served who is a fraud,
somebody is in spite of a debt, or has another plan than it pays for.

It changes no contract, and none changes it. The spec is decided anew with it, at once and when it ends.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.actions.action import Action, Begun, OfTenant, Parameters, register
from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.hold import HoldKind
from controlplane.domain.job import JobKind
from controlplane.domain.tenant import Lifecycle
from controlplane.store import hold, job, report
from controlplane.store.report import About


class EndHold(Parameters):
    kind: Literal["suspend", "serve", "plan"] = Field(
        title="suspend, serve or plan",
        description="suspend: whoever pays. serve: in spite of a debt or an end. plan: another one.",
        json_schema_extra={"metavar": "KIND"},
    )


class HoldTenant(EndHold):
    days: int = Field(
        ge=1,
        le=366,
        title="a whole number, 1 to 366",
        description="After which it ends by itself.",
        json_schema_extra={"metavar": "DAYS"},
    )
    plan: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        title="a plan of the catalogue",
        description="Which, of kind plan.",
    )


def perform(asked: OfTenant[HoldTenant]) -> Begun:
    params = asked.params
    detail = in_advance(asked)
    begun = hold.begin(
        asked.conn,
        HoldKind(params.kind),
        asked.row.id,
        seconds=params.days * 86_400.0,
        actor=asked.actor,
        reason=asked.reason,
        plan=params.plan,
    )
    _decide_again(asked)
    return Begun(detail, recorded={**detail, "ends_at": begun.ends_at.isoformat(timespec="seconds")})


def in_advance(asked: OfTenant[HoldTenant]) -> dict[str, object]:
    params, row = asked.params, asked.row
    if (params.kind == "plan") != (params.plan is not None):
        raise Invalid(
            "plan", "a plan of the catalogue where the kind is plan, and none else", got=params.plan
        )
    known = _plans(asked)
    if params.plan is not None and known and params.plan not in known:
        raise Invalid("plan", f"one of the catalogue ({', '.join(known)})", got=params.plan)
    if row.clone_of is not None:
        raise Conflict(f"tenant {row.id} is a clone: nothing is billed for it")
    if row.purged_at is not None:
        raise Conflict(f"tenant {row.id} is purged: there is nothing left to serve or to suspend")
    if any(found.kind == params.kind for found in hold.of_tenant(asked.conn, row.id)):
        raise hold.in_force(HoldKind(params.kind), row.id)
    lifecycle = {"suspend": Lifecycle.SUSPENDED, "serve": Lifecycle.ACTIVE}.get(params.kind)
    return {
        "tenant": row.id,
        "kind": params.kind,
        "days": params.days,
        "from": f"{row.spec.plan}, {row.spec.lifecycle}",
        "to": f"{params.plan or row.spec.plan}, {lifecycle or row.spec.lifecycle}",
    }


def _plans(asked: OfTenant[HoldTenant]) -> list[str]:
    """Of the catalogue that the workers have, which the web process does not: the warm pool's last report
    names them; none before the first."""
    found = report.read(asked.conn, About.POOL)
    classes = [] if found is None else found.content["classes"]
    return sorted({plan for each in classes for plan in each["plans"]})


def end(asked: OfTenant[EndHold]) -> Begun:
    lifted = hold.lift(asked.conn, HoldKind(asked.params.kind), asked.row.id, actor=asked.actor)
    _decide_again(asked)
    detail = {"tenant": asked.row.id, "kind": lifted.kind.value}
    return Begun(detail, recorded=detail)


def _decide_again(asked: OfTenant[HoldTenant] | OfTenant[EndHold]) -> None:
    customer = asked.row.customer_id
    job.ensure(asked.conn, JobKind.INTAKE, customer, reason=asked.reason, actor=asked.actor, lock=customer)


register(
    Action(
        name="hold",
        summary="Suspend a tenant whoever pays, serve it in spite of a debt, or give it another plan, for a"
        " while.",
        params=HoldTenant,
        perform=perform,
        preview=in_advance,
        patience=600.0,
    )
)
register(
    Action(
        name="end-hold",
        summary="End a hold before its time: what billing says counts again.",
        params=EndHold,
        perform=end,
        patience=600.0,
    )
)
