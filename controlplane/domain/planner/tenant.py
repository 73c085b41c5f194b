"""The steps that are left for a tenant, in order.

- A host is announced (503, "being prepared") before anything slow begins;
- a suspended or closed tenant is taken off the routes before its logins are closed;
- its cluster's own operation makes its secret, meanwhile its database is made;
- a clone has its source's rows before it is served; every other transfer waits for what is more urgent;
- while writing is paused for a cut nothing else is done;
- a custom domain that is not verified holds nothing up: its steps come last but for what a person decides.
"""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain.planner.goal import TenantGoal
from controlplane.domain.planner.purge import plan_purge, plan_retention
from controlplane.domain.planner.transfer import plan_residence, plan_transfer
from controlplane.domain.status import TenantStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase


def plan_tenant(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    transfer = plan_transfer(goal, status, _making(goal, status))
    decisions = [
        *plan_residence(goal.residence, goal.transfer),
        *([] if goal.retention is None else plan_retention(goal.retention)),
    ]
    if goal.lifecycle is Lifecycle.ACTIVE:
        under_way = goal.transfer
        if under_way is not None and under_way.phase is TransferPhase.CUT:
            return transfer
        cloning = under_way is not None and under_way.kind is TransferKind.CLONE
        if under_way is not None and cloning and under_way.other is None:
            return transfer
        return [
            *_announce(goal, status),
            *_make(goal, status),
            *(transfer if cloning else []),
            *_publish(goal, status),
            *([] if cloning else transfer),
            *_hostnames(goal, status),
            *decisions,
        ]
    steps = [*_publish(goal, status)]
    if goal.lifecycle is Lifecycle.CLOSED:
        steps += [
            Step(StepName.REMOVE_HOSTNAME, "the tenant is closed", h.host)
            for h in status.hostnames
            if h.id is not None
        ]
    if status.database is not None and status.database.exists and status.database.logins_open:
        steps.append(Step(StepName.CLOSE_LOGINS, f"the tenant is {goal.lifecycle.value}"))
    if goal.lifecycle is Lifecycle.SUSPENDED:
        steps += _hostnames(goal, status)
    steps += transfer
    if goal.purge is not None and goal.lifecycle is Lifecycle.CLOSED and status.purging is not None:
        return steps + plan_purge(goal.purge, status, status.purging)
    if status.database is not None and status.database.exists:
        steps += _retire(status)
    return steps + decisions


def _making(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    """What the placement lacks that the tenant goes to."""
    if goal.transfer is None or goal.secondary is None or status.secondary is None:
        return []
    there = goal.transfer.other
    return [replace(step, placement=there) for step in _make(goal.secondary, status.secondary)]


def _announce(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    """Never takes back a route that serves already: only a host that has none is announced."""
    return [
        Step(StepName.ANNOUNCE, "the host has no entry yet", host)
        for host in goal.announcement
        if host not in status.routes
    ]


def _make(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    if not status.cluster_ready or status.database is None:
        return [Step(StepName.AWAIT_CLUSTER, "the cluster is not ready yet")]
    steps: list[Step] = []
    if not (status.database.exists and status.database.hardened):
        why = (
            "no database yet"
            if not status.database.exists
            else "the database is not as hardened as it must be"
        )
        steps.append(Step(StepName.CREATE_DATABASE, why))
    steps += _retire(status)
    if not status.database.logins_open:
        steps.append(Step(StepName.OPEN_LOGINS, "the logins are closed"))
    if not status.secret_made:
        steps.append(Step(StepName.AWAIT_SECRET, "its cluster has not confirmed its secret yet"))
    if status.app.secret_version is None:
        steps.append(Step(StepName.WRITE_CREDENTIAL, "its secret is empty"))
    if not status.app.in_step:
        steps.append(Step(StepName.SET_PASSWORD, "its password is not the secret's"))
    if goal.release is not None and (status.database.release or "") < goal.release:
        steps.append(
            Step(StepName.MIGRATE_SCHEMA, f"release {status.database.release or 'none'} → {goal.release}")
        )
    steps += _rotate(goal, status)
    if status.access_proof is None or status.access_proof != goal.access_proof:
        steps.append(Step(StepName.VERIFY_ACCESS, "its own login has not yet read its own database"))
    return steps


def _retire(status: TenantStatus) -> list[Step]:
    if status.app.retire_in is None or status.app.retire_in > 0:
        return []
    return [Step(StepName.RETIRE_LOGIN, "the login that was rotated away has had its time")]


def _rotate(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    """A login that is still being retired is the next one's idle login: it has its time first."""
    app = status.app
    if not app.in_step or app.retire_in is not None:
        return []
    if app.requested > app.generation:
        return [Step(StepName.ROTATE_CREDENTIAL, "a new password was asked for")]
    if goal.rotate_after is not None and app.age >= goal.rotate_after:
        return [Step(StepName.ROTATE_CREDENTIAL, "its password has reached its age")]
    return []


def _publish(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    steps = [
        Step(StepName.PUBLISH, "the cache serves something else", host)
        for host, route in goal.routes.items()
        if status.routes.get(host) != route
    ]
    return steps + [
        Step(StepName.WITHDRAW, "the host is no longer this tenant's to serve", host)
        for host in goal.withdrawn
        if host in goal.released or status.routes.get(host, {}).get("status") not in (None, "gone")
    ]


def _hostnames(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    known = {h.host: h for h in status.hostnames}
    steps = [
        Step(StepName.REMOVE_HOSTNAME, "no longer asked for", host)
        for host, h in known.items()
        if host not in goal.domains and h.id is not None
    ]
    for host in goal.domains:
        h = known.get(host)
        if h is None or (h.id is None and not h.refused):
            steps.append(Step(StepName.REGISTER_HOSTNAME, "Cloudflare does not know it yet", host))
        elif not h.ready and h.poll_due and not h.refused:
            steps.append(
                Step(StepName.POLL_HOSTNAME, f"hostname {h.status}, certificate {h.ssl_status}", host)
            )
    return steps
