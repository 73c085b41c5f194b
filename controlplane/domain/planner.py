"""plan(goal, status) → the steps that are left, in order. Pure.

The engine applies the first one and looks again, so a plan is never a script to be resumed: after a
crash, an edit by hand or a change of mind the next observation yields whatever is left from there. "Nothing
to do" is the empty list. What each resource should be is computed by the caller into `goal`, so
that this file decides order and nothing else:

- a host is announced (503, "being prepared") before anything slow begins;
- a suspended or closed tenant is taken off the routes before its logins are closed;
- what is slow and depends on nothing (the tenant's Terraform stack) precedes the wait for the cluster;
- a purge that was approved takes a copy before it drops anything, and its slot is given up last;
- a move makes its target before anything is copied, and while writing is paused nothing else is done;
- a restore is a move whose rows come from a restored cluster;
- a custom domain that is not verified holds nothing up: its steps come last and never block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.move import MoveGoal, MovePhase, plan_move
from controlplane.domain.restore import plan_restore
from controlplane.domain.status import ClusterStatus, PurgeStatus, TenantStatus
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle


@dataclass(frozen=True, slots=True)
class ClusterGoal:
    """`key`: a snapshot of it is kept, which can't be read without its key."""

    lifecycle: ClusterLifecycle
    stack_digest: str
    key: bool = False


@dataclass(frozen=True, slots=True)
class PurgeGoal:
    """`approval`: the purge's number. `cluster_goes`: its cluster is its alone and is destroyed with it."""

    approval: int
    cluster_goes: bool


@dataclass(frozen=True, slots=True)
class TenantGoal:
    """`routes`: what each host of the tenant should serve once all is well, without epochs.
    `announcement`: the same while it is being prepared. `domains`: custom domains asked for.
    `release`: the least that its database is brought to. A database that is ahead of it is left
    alone: a rollout has been there, and every release serves under the one before and behind it.
    `access_proof`: the digest that `verify_access` leaves behind when placement, credential and release were
    shown to work together; None while one of them is not known yet. `rotate_after`: the age in seconds at
    which a login gets a new password; None for never. `placed`, `copied`: False for a clone that has no
    placement or not the rows of its source yet. `move`: one that is not over; `secondary`: what the placement
    that it goes to should be. `purge`: what was approved to be deleted."""

    lifecycle: Lifecycle
    stack_digest: str
    release: str | None
    access_proof: str | None
    routes: Mapping[str, Mapping[str, Any]]
    announcement: Mapping[str, Mapping[str, Any]]
    domains: tuple[str, ...]
    withdrawn: tuple[str, ...]
    rotate_after: float | None = None
    placed: bool = True
    copied: bool = True
    purge: PurgeGoal | None = None
    move: MoveGoal | None = None
    secondary: TenantGoal | None = None


def plan_cluster(goal: ClusterGoal, status: ClusterStatus) -> list[Step]:
    steps: list[Step] = []
    if goal.lifecycle is ClusterLifecycle.CLOSED:
        if not status.destroyed or status.status is not None:
            steps.append(Step(StepName.DESTROY_CLUSTER_STACK, "the cluster is closed"))
        elif status.keeps_key and not goal.key:
            steps.append(Step(StepName.DESTROY_CLUSTER_STACK, "the last snapshot of it is gone", "key"))
        return steps
    if status.stack_digest != goal.stack_digest:
        why = (
            "no stack is confirmed"
            if status.stack_digest is None
            else "the stack differs from what is asked for"
        )
        steps.append(Step(StepName.APPLY_CLUSTER_STACK, why))
    if not status.available:
        steps.append(
            Step(StepName.AWAIT_AVAILABLE, f"cluster {status.status}, writer {status.writer_status}")
        )
    if not status.hardened:
        steps.append(Step(StepName.HARDEN_CLUSTER, "PUBLIC may still connect to the cluster's own databases"))
    return steps


def plan_tenant(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    move = _move(goal, status)
    if goal.lifecycle is Lifecycle.ACTIVE:
        if goal.move is not None and goal.move.phase is MovePhase.PAUSED:
            return move
        if not goal.placed:
            return [Step(StepName.PLACE_TENANT, "it has no place to live yet")]
        return [
            *_announce(goal, status),
            *_make(goal, status),
            *([] if goal.copied else [Step(StepName.COPY_SOURCE, "it has no rows of its source yet")]),
            *_publish(goal, status),
            *move,
            *_hostnames(goal, status),
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
    steps += move
    if goal.purge is not None and goal.lifecycle is Lifecycle.CLOSED and status.purging is not None:
        return steps + _purge(goal.purge, status, status.purging)
    if status.database is not None and status.database.exists:
        steps += _retire(status)
    return steps


def _purge(goal: PurgeGoal, status: TenantStatus, purging: PurgeStatus) -> list[Step]:
    """Hostnames and logins have gone before. What was never made is neither copied nor dropped, and a
    database is not dropped where its whole cluster goes: the copy is the cluster's snapshot."""
    why = f"approved as purge {goal.approval}"
    if purging.purged:
        overdue = Step(StepName.DELETE_COPY, "the time for which it was kept is over")
        return [overdue] if purging.copy_overdue else []
    steps: list[Step] = []
    if purging.placed:
        database = status.database
        if database is not None and database.exists and not purging.copied:
            steps.append(Step(StepName.KEEP_COPY, why, "snapshot" if goal.cluster_goes else "dump"))
        if database is not None and (database.exists or database.roles) and not goal.cluster_goes:
            steps.append(Step(StepName.DROP_DATABASE, why))
        if purging.stack_made:
            steps.append(Step(StepName.DESTROY_TENANT_STACK, why))
        steps.append(Step(StepName.RELEASE_PLACEMENT, why))
    if goal.cluster_goes and not purging.cluster_gone:
        steps.append(Step(StepName.AWAIT_CLUSTER_END, "its cluster is being destroyed"))
    return [*steps, Step(StepName.CERTIFY, "nothing is left to delete")]


def _move(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    """A tenant that is suspended or leaves does not go on moving: it stays where its data is."""
    move = goal.move
    if move is None or (status.move is None and status.restore is None):
        return []
    if goal.lifecycle is not Lifecycle.ACTIVE and move.phase.before_cut:
        return [Step(StepName.GIVE_UP_MOVE, f"the tenant is {goal.lifecycle.value}")]
    if move.pointless:
        return [Step(StepName.GIVE_UP_MOVE, "its plan asks for another kind of cluster by now")]
    making: list[Step] = []
    if goal.secondary is not None and status.secondary is not None:
        making = [replace(step, placement=move.number) for step in _make(goal.secondary, status.secondary)]
    if status.restore is not None:
        return plan_restore(move, status.restore, making)
    return [] if status.move is None else plan_move(move, status.move, making)


def _announce(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    """Never takes back a route that serves already: only a host that has none is announced."""
    return [
        Step(StepName.ANNOUNCE, "the host has no entry yet", host)
        for host in goal.announcement
        if host not in status.routes
    ]


def _make(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    steps: list[Step] = []
    if status.stack_digest != goal.stack_digest:
        why = (
            "no stack is confirmed"
            if status.stack_digest is None
            else "the stack differs from what is asked for"
        )
        steps.append(Step(StepName.APPLY_TENANT_STACK, why))
    if not status.cluster_ready or status.database is None:
        return [*steps, Step(StepName.AWAIT_CLUSTER, "the cluster is not ready yet")]
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
    for login, credential in (("migrator", status.migrator), ("app", status.app)):
        if credential.secret_version is None:
            steps.append(Step(StepName.WRITE_CREDENTIAL, "its secret is empty", login))
        if not credential.in_step:
            steps.append(Step(StepName.SET_PASSWORD, "its password is not the secret's", login))
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
    return [Step(StepName.RETIRE_LOGIN, "the login that was rotated away has had its time", "app")]


def _rotate(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    """A login that is still being retired is the next one's idle login: it has its time first."""
    steps: list[Step] = []
    for login, credential in (("migrator", status.migrator), ("app", status.app)):
        if not credential.in_step or credential.retire_in is not None:
            continue
        if credential.requested > credential.generation:
            steps.append(Step(StepName.ROTATE_CREDENTIAL, "a new password was asked for", login))
        elif goal.rotate_after is not None and credential.age >= goal.rotate_after:
            steps.append(Step(StepName.ROTATE_CREDENTIAL, "its password has reached its age", login))
    return steps


def _publish(goal: TenantGoal, status: TenantStatus) -> list[Step]:
    steps = [
        Step(StepName.PUBLISH, "the cache serves something else", host)
        for host, route in goal.routes.items()
        if status.routes.get(host) != route
    ]
    return steps + [
        Step(StepName.WITHDRAW, "the host is no longer this tenant's to serve", host)
        for host in goal.withdrawn
        if status.routes.get(host, {}).get("status") not in (None, "gone")
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
