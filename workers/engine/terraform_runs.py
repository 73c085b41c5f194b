"""A Terraform run within a step: recorded before it starts, its progress in the step log, its end confirmed.

That a run is recorded first is what lets its successor break the lock it may leave behind: a lock that
belongs to no recorded run of ours is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from controlplane.store import stack, step
from controlplane.store.stack import OpenRun
from controlplane.workers.engine.step_context import Work
from controlplane.workers.providers.ports import PriorRun, ResourceEvent, StackRun


def apply_stack(
    work: Work,
    name: str,
    workspace: str,
    variables: dict[str, Any],
    digest: str,
    *,
    approved: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Its outputs. `digest`: what is confirmed by it. `approved`: the addresses that the guard lets go."""
    prior, on_event = _begin(work, workspace)
    outputs = work.ctx.providers.terraform.apply(
        _run(work, name, workspace, variables, prior, approved=approved),
        on_event=on_event,
        stopped=work.hold.lost,
    )
    with work.recording() as conn:
        stack.confirm(conn, workspace, digest=digest, outputs=outputs)
        stack.end_runs(conn, workspace)
    return outputs


def destroy_stack(
    work: Work, name: str, workspace: str, variables: dict[str, Any], *, approved: frozenset[str]
) -> None:
    """`approved`: the addresses that the guard lets go (I6)."""
    prior, on_event = _begin(work, workspace)
    work.ctx.providers.terraform.destroy(
        _run(work, name, workspace, variables, prior, approved=approved),
        on_event=on_event,
        stopped=work.hold.lost,
    )
    with work.recording() as conn:
        stack.forget(conn, workspace)
        stack.end_runs(conn, workspace)


def _begin(work: Work, workspace: str) -> tuple[list[PriorRun], Callable[[ResourceEvent], None]]:
    """The earlier runs that may have left something behind, and where the events of this one go."""
    with work.recording() as conn:
        prior = stack.open_runs(conn, workspace)
        run = stack.begin_run(conn, work.job, workspace, who=work.ctx.lock_owner)

    def on_event(event: ResourceEvent) -> None:
        with work.ctx.registry.connection() as conn:
            if event.kind == "lock_taken":
                stack.note_lock(conn, run, event.address)
            step.note(conn, work.job, work.seq, **asdict(event))

    return [_prior(r) for r in prior], on_event


def _prior(run: OpenRun) -> PriorRun:
    return PriorRun(who=run.who, started_at=run.started_at, lock_id=run.lock_id)


def _run(
    work: Work,
    name: str,
    workspace: str,
    variables: dict[str, Any],
    prior: list[PriorRun],
    *,
    approved: frozenset[str],
) -> StackRun:
    return StackRun(
        stack=name,
        workspace=workspace,
        variables={**variables, "operation_id": str(work.job.id)},
        prior_runs=prior,
        approved=approved,
    )
