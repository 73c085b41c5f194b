"""The record as the engine has it: what the registry knows of a tenant, with what its plan means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from controlplane.domain.catalogue import Plan
from controlplane.domain.errors import NeedsHuman, NotFound
from controlplane.domain.placement import Placement
from controlplane.domain.purge import PurgeState
from controlplane.domain.tenant import Lifecycle
from controlplane.store import record
from controlplane.store.cluster import ClusterRow
from controlplane.store.data_copy import CopyRow
from controlplane.store.placement import Login
from controlplane.store.purge import PurgeRow
from controlplane.store.record import Around
from controlplane.store.stack import StackRow
from controlplane.store.tenant import TenantRow
from controlplane.store.transfer import TransferRow
from controlplane.workers.engine.context import Context
from controlplane.workers.providers.ports import ClusterEndpoint, Home


def endpoint_of(row: ClusterRow) -> ClusterEndpoint | None:
    return None if row.endpoint is None else ClusterEndpoint(**row.endpoint)


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """What the registry knows of a tenant at one moment.

    `plan`: its limits are those with add-ons; None for a closed tenant whose plan has left the catalogue.
    `cluster_stack`, `stack`: what was last confirmed of the cluster's own and of its placements'; `app`: its
    login. `transfer`: one that is not over; `secondary`: the same of the placement that is
    its other end; `restored`: the cluster that its rows come from, where one was restored. `last_transfer`:
    the newest that was a move. `purge`: the one that was approved, or carried out; `requested`: one waits for
    an approval; `leaving`: the cluster that it names; `copy`: what it keeps."""

    row: TenantRow
    plan: Plan | None
    placement: Placement | None
    cluster: ClusterRow | None
    cluster_stack: StackRow | None
    stack: StackRow | None
    app: Login | None
    around: Around
    transfer: TransferRow | None = None
    secondary: TenantRecord | None = None
    restored: ClusterRow | None = None
    last_transfer: TransferRow | None = None
    purge: PurgeRow | None = None
    requested: bool = False
    leaving: ClusterRow | None = None
    copy: CopyRow | None = None

    @property
    def purging(self) -> bool:
        """Is its purge approved and not over?"""
        return self.purge is not None and self.row.purged_at is None

    @property
    def app_secret_arn(self) -> str | None:
        """Once its cluster has made it."""
        if self.stack is None or self.placement is None:
            return None
        arn: str | None = self.stack.outputs["app_secret_arns"].get(self.placement.id)
        return arn

    @property
    def role_arn(self) -> str | None:
        """The cluster's role, once a stack that has one was applied."""
        return None if self.cluster_stack is None else self.cluster_stack.outputs.get("role_arn")

    def ends(self) -> tuple[Home, Home] | None:
        """(source, target) of the transfer, once both clusters are known."""
        if self.transfer is None or self.secondary is None:
            return None
        here, there = self.home(), self.secondary.home()
        if here is None or there is None:
            return None
        return (here, there) if self.transfer.other == self.transfer.target else (there, here)

    def home(self) -> Home | None:
        """The placement on its cluster; None until that has an endpoint."""
        at = None if self.cluster is None else endpoint_of(self.cluster)
        return None if self.placement is None or at is None else Home(at, self.placement)


def load_tenant(ctx: Context, tenant_id: str) -> TenantRecord:
    """Raises NeedsHuman where the plan of a living tenant is unknown, and NotFound."""
    with ctx.registry.connection() as conn:
        found = record.of_tenant(conn, tenant_id)
    row: TenantRow = found["t"]
    try:
        plan = ctx.catalogue.plan(row.spec.plan)
        plan = replace(plan, limits=ctx.catalogue.limits(plan.name, row.spec.addons))
    except NotFound as error:
        if row.spec.lifecycle is not Lifecycle.CLOSED:
            raise NeedsHuman(str(error), runbook="unknown-plan") from error
        plan = None
    requested: PurgeRow | None = found["purge"] if row.spec.lifecycle is Lifecycle.CLOSED else None
    waits = requested is not None and requested.state is PurgeState.REQUESTED
    known = TenantRecord(
        row=row,
        plan=plan,
        **_residence(found, "home", ""),
        around=found["around"],
        transfer=found["transfer"],
        restored=found["restored"],
        last_transfer=found["last_transfer"],
        purge=None if waits else requested,
        requested=waits,
        leaving=found["leaving"],
        copy=None if requested is None else found["copy"],
    )
    if known.transfer is None or found["there"] is None:
        return known
    there = replace(known, **_residence(found, "there", "_there"))
    return replace(known, secondary=there)


_OF_RESIDENCE = ("cluster", "cluster_stack", "stack", "app")


def _residence(found: dict[str, Any], placement: str, suffix: str) -> dict[str, Any]:
    own = {name: found[f"{name}{suffix}"] for name in _OF_RESIDENCE}
    return {"placement": found[placement], **own}
