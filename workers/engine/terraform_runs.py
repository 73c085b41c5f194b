"""A Terraform run within a step: recorded before it starts, its progress in the step log, its end confirmed.

That a run is recorded first is what lets its successor break the lock it may leave behind: a lock that
belongs to no recorded run of ours is never touched.

A run is of the release of the stacks that the cluster's row names, whatever this worker carries (I13). A
cluster that names none yet, because nothing was applied for it, gets the worker's own: first the archive is
in the bucket, then the row names it, then Terraform starts. All of it is the cluster's own operation's to do,
for both its stacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from controlplane.domain.errors import NeedsHuman
from controlplane.store import cluster, stack, step
from controlplane.store.cluster import ClusterRow
from controlplane.store.registry import Connection
from controlplane.store.stack import OpenRun
from controlplane.workers.engine.stacks import digest
from controlplane.workers.engine.step_context import Work
from controlplane.workers.providers.ports import PriorRun, ResourceEvent, StackRun


def nothing(_conn: Connection) -> None:
    """The confirmation says it all."""


def apply_stack(
    work: Work,
    name: str,
    variables: dict[str, Any],
    home: ClusterRow,
    *,
    approved: frozenset[str] = frozenset(),
    recorded: Callable[[Connection], None] = nothing,
) -> None:
    """`home`: the cluster whose stack it is; it names a release. `approved`: the addresses that the guard
    lets go. `recorded`: what is written down with the confirmation."""
    run, on_event = _begin(work, _run(work, name, variables, home), approved)
    outputs = work.ctx.providers.terraform.apply(run, on_event=on_event, stopped=work.hold.lost)
    workspace = stack.workspace_of(name, home.id)
    with work.recording() as conn:
        stack.confirm(conn, workspace, digest=digest(variables, run.release), outputs=outputs)
        stack.end_runs(conn, workspace)
        recorded(conn)


def destroy_stack(
    work: Work,
    name: str,
    variables: dict[str, Any],
    home: ClusterRow,
    *,
    approved: frozenset[str],
    recorded: Callable[[Connection], None] = nothing,
) -> None:
    """`home`, `approved`, `recorded`: as of `apply_stack` (I6)."""
    run, on_event = _begin(work, _run(work, name, variables, home), approved)
    work.ctx.providers.terraform.destroy(run, on_event=on_event, stopped=work.hold.lost)
    workspace = stack.workspace_of(name, home.id)
    with work.recording() as conn:
        stack.forget(conn, workspace)
        stack.end_runs(conn, workspace)
        recorded(conn)


def with_release(work: Work, home: ClusterRow) -> ClusterRow:
    """The cluster as it is once it names a release: where it has named none, what this worker carries is
    published and named."""
    if home.release is not None:
        return home
    carried = work.ctx.providers.terraform.publish()
    with work.recording() as conn:
        stack.record_release(conn, carried.digest, carried.variables)
        cluster.name_release(conn, home.id, carried.digest)
        return cluster.get(conn, home.id)


def _run(work: Work, name: str, variables: dict[str, Any], home: ClusterRow) -> StackRun:
    if home.release is None:
        raise NeedsHuman(f"{home.id} names no release of the stacks", runbook="internal-error")
    variables = {**variables, "operation_id": str(work.job.id)}
    return StackRun(stack=name, workspace=home.id, release=home.release, variables=variables)


def _begin(
    work: Work, run: StackRun, approved: frozenset[str]
) -> tuple[StackRun, Callable[[ResourceEvent], None]]:
    """The run with the earlier ones that may have left something behind, and where its events go."""
    workspace = stack.workspace_of(run.stack, run.workspace)
    with work.recording() as conn:
        prior = stack.open_runs(conn, workspace)
        number = stack.begin_run(conn, work.job, workspace, who=work.ctx.lock_owner)

    def on_event(event: ResourceEvent) -> None:
        with work.ctx.registry.connection() as conn:
            if event.kind == "lock_taken":
                stack.note_lock(conn, number, event.address)
            step.note(conn, work.job, work.seq, **asdict(event))

    return replace(run, prior_runs=[_prior(r) for r in prior], approved=approved), on_event


def _prior(run: OpenRun) -> PriorRun:
    return PriorRun(who=run.who, started_at=run.started_at, lock_id=run.lock_id)
