"""What a purge deletes, and the two-person rule over it. Pure.

A purge can't be undone, so nobody orders one alone. One person asks, and is shown all that would be
deleted; another one approves just that. The list has a digest, and the approval names it: if anything has
changed in between (the customer came back, the tenant moved, a domain was added), the digest is another
and the approval is refused, instead of deleting what nobody has looked at.

A plan may say that its tenants go at the end of their retention without anybody (`purge_without_approval`);
the catalogue, which is reviewed as code is, then stands for both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from controlplane.domain.catalogue import Isolation
from controlplane.domain.errors import Conflict
from controlplane.domain.placement import Placement
from controlplane.domain.state import State

RUNBOOK = "purge-due"
RETURN_RUNBOOK = "customer-pays-again"
POLICY = "policy:purge_without_approval"
CATALOGUE = "policy:catalogue"
"""Who asks and who approves where the plan says that nobody need be asked."""


class PurgeState(State):
    REQUESTED = "requested"
    APPROVED = "approved", "requested"
    DONE = "done", "approved"
    WITHDRAWN = "withdrawn", "requested", "approved"


@dataclass(frozen=True, slots=True)
class Content:
    """All that would be deleted, by name. `placement` and what hangs on it is None or empty for a tenant
    that never got one. `cluster`: where its database is; `cluster_goes`: that is its alone and goes too.
    `copy`: what is kept of it for a while, "dump" or "snapshot"."""

    tenant: str
    slug: str
    customer: str
    closed_at: str
    placement: str | None
    cluster: str | None
    cluster_goes: bool
    copy: str | None
    database: str | None
    roles: tuple[str, ...]
    secrets: tuple[str, ...]
    hosts: tuple[str, ...]
    clones: tuple[str, ...]

    @property
    def digest(self) -> str:
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"purge\0" + text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        lists = ("roles", "secrets", "hosts", "clones")
        return {name: list(v) if name in lists else v for name, v in asdict(self).items()}


def content_of(
    *,
    tenant_id: str,
    slug: str,
    customer_id: str,
    closed_at: datetime,
    placement: Placement | None,
    isolation: Isolation | None,
    hosts: Sequence[str],
    clones: Sequence[str],
) -> Content:
    """`isolation`: of the cluster that it lives on. `hosts`: all that were ever routed to it, and its
    custom domains. `clones`: tenants that hold its rows and are *not* deleted with it."""
    whole = isolation is Isolation.DEDICATED
    placed = placement
    return Content(
        tenant=tenant_id,
        slug=slug,
        customer=customer_id,
        closed_at=closed_at.isoformat(),
        placement=None if placed is None else placed.id,
        cluster=None if placed is None else placed.cluster_id,
        cluster_goes=placed is not None and whole,
        copy=None if placed is None else ("snapshot" if whole else "dump"),
        database=None if placed is None else placed.database,
        roles=() if placed is None else (placed.owner_role, placed.migrator_role, *placed.app_roles),
        secrets=() if placed is None else (placed.app_secret,),
        hosts=tuple(sorted(hosts)),
        clones=tuple(sorted(clones)),
    )


def kept_for(customer: str, live: Sequence[tuple[str, str | None]], *, clone: bool) -> str | None:
    """Why a closed tenant's data is kept: its customer has contracts that have not ended, (id, status)
    each, and any of them may be paid in the belief that the data is still there. None where it has none, and
    for a clone: its rows are a copy, and nobody pays for it."""
    if clone or not live:
        return None
    named = ", ".join(f"{name} ({status or 'status unknown'})" for name, status in live[:5])
    more = f" and {len(live) - 5} more" if len(live) > 5 else ""
    return f"its customer {customer} pays or is to pay for a contract that has not ended: {named}{more}"


def require_second_person(*, requested_by: str, approver: str) -> None:
    """Raises Conflict."""
    if requested_by == approver:
        raise Conflict(f"{approver} asked for this purge: somebody else must approve it")


def require_same(*, requested: str, now: str, approved: str) -> None:
    """The digests of what was asked for, of what there is now, and of what the approver has looked at.
    Raises Conflict."""
    if approved != requested:
        raise Conflict("digest: it is not the one of the purge that was asked for; look at it again")
    if now != requested:
        raise Conflict("what would be deleted has changed since it was asked for: withdraw it and ask anew")
