"""A restore: a tenant gets the rows back that it had at a moment, or that a snapshot holds. Pure.

    restore cluster ─▶ place ─▶ (the target is made, to the release of that time) ─▶ copy ─▶ (its schema is
    brought forward) ─▶ cut

It is a move (see `domain.move`) with another source of rows. Aurora restores whole clusters, so one is made
beside the living one, for the length of the copy; nothing is followed, because what was written after the
moment is meant to be gone. All but the cut leaves the tenant in use, and nothing is lost before a person
confirms: the database that was in use is kept as a move's source is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.domain.errors import Invalid
from controlplane.domain.move import MoveGoal, MovePhase
from controlplane.domain.status import RestoreStatus
from controlplane.domain.steps import Step, StepName

RUNBOOK = "restore"
SNAPSHOT = re.compile(r"(?:rds:|awsbackup:)?[A-Za-z](?:-?[A-Za-z0-9]){0,254}")
"""Names of RDS's cluster snapshots: manual, automated, AWS Backup's."""
_MOMENT = "a moment in the past with its time zone, to the second, such as 2026-11-24T10:00:00Z"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """One of the two."""

    at: datetime | None = None
    snapshot: str | None = None

    def to_json(self) -> dict[str, str]:
        return {"at": moment(self.at)} if self.at is not None else {"snapshot": str(self.snapshot)}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> RestoreRequest:
        at = data.get("at")
        return cls(None if at is None else datetime.fromisoformat(at), data.get("snapshot"))

    def __str__(self) -> str:
        return f"as it was at {moment(self.at)}" if self.at is not None else f"from snapshot {self.snapshot}"


def moment(at: datetime) -> str:
    """In UTC, as RDS and Terraform take it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def validate_request(at: object, snapshot: object, *, now: datetime) -> RestoreRequest:
    """Raises Invalid, which names the field."""
    if (at is None) == (snapshot is None):
        raise Invalid("at", f"{_MOMENT}, or else the name of a snapshot in `snapshot`, and not both")
    if at is not None:
        return RestoreRequest(at=_past(at, now))
    if isinstance(snapshot, str) and SNAPSHOT.fullmatch(snapshot):
        return RestoreRequest(snapshot=snapshot)
    raise Invalid("snapshot", "the name of a snapshot of its cluster, such as rds:c-…-2026-11-24-03-07")


def _past(at: object, now: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(at) if isinstance(at, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or found.microsecond:
        raise Invalid("at", _MOMENT, got=at if isinstance(at, str) else type(at).__name__)
    if found >= now:
        raise Invalid("at", f"{_MOMENT}; it is {moment(now)} now", got=at)
    return found.astimezone(UTC)


def home_at(current: int, moves: Sequence[tuple[int, datetime]], at: datetime) -> int:
    """The number of the placement that a tenant lived on then. `moves`: (source, when it was left), oldest
    first."""
    return next((source for source, left_at in moves if at < left_at), current)


def plan_restore(move: MoveGoal, status: RestoreStatus, making: Sequence[Step]) -> list[Step]:
    """The steps that are left. `making`: those that the target lacks as a placement. It is proven when it
    has the release that the tenant is served under, and not before it has its rows."""
    there = move.number
    match move.phase:
        case MovePhase.PREPARING:
            return _prepare(there, status, making)
        case MovePhase.PAUSED:
            return [Step(StepName.CUT_RESTORED, "writing is paused", placement=there)]
        case MovePhase.MOVED if move.overdue:
            return [Step(StepName.CONFIRM_MOVE, "the former database need not be kept any longer")]
        case MovePhase.CONFIRMED | MovePhase.ABANDONED:
            waits = Step(StepName.AWAIT_RESTORED_END, "the restored cluster is being destroyed")
            gone = Step(StepName.REMOVE_PLACEMENT, f"the restore was {move.phase.value}", placement=there)
            return [*([] if status.gone else [waits]), gone]
    return []


def _prepare(there: int | None, status: RestoreStatus, making: Sequence[Step]) -> list[Step]:
    if not status.made:
        return [Step(StepName.RESTORE_CLUSTER, "there is no cluster with its rows of that time yet")]
    if there is None:
        return [Step(StepName.PLACE_MOVE, "it has no place to be restored to yet")]
    cut = Step(StepName.CUT_RESTORED, "the target has the rows of that time", placement=there)
    if status.copied:
        return [*making, cut]
    if not status.opened and not status.ready:
        return [Step(StepName.AWAIT_RESTORED, "the restored cluster is not ready yet", placement=there)]
    if not status.opened:
        return [Step(StepName.OPEN_RESTORED, "nobody has looked into the restored cluster", placement=there)]
    made = [step for step in making if step.name is not StepName.VERIFY_ACCESS]
    copy = Step(StepName.COPY_RESTORED, "the target has no rows yet", placement=there)
    return [*made, copy, cut]


def steps_of_restore(number: int, origin: str, place: str, home: str) -> list[Step]:
    """All of a restore that has not begun, for whoever asks what it would do."""
    made = [StepName.APPLY_TENANT_STACK, StepName.CREATE_DATABASE, StepName.MIGRATE_SCHEMA]
    return [
        Step(StepName.RESTORE_CLUSTER, origin),
        Step(StepName.PLACE_MOVE, place),
        Step(StepName.OPEN_RESTORED, "everybody's logins on it are closed", placement=number),
        *(Step(name, "the target is made, to the release of that time", placement=number) for name in made),
        Step(StepName.COPY_RESTORED, "in one transaction, compared; then the cluster goes", placement=number),
        Step(StepName.MIGRATE_SCHEMA, "to the release of today, where that is another", placement=number),
        Step(StepName.VERIFY_ACCESS, "its own login reads its own database", placement=number),
        Step(StepName.CUT_RESTORED, f"what {home} holds then is kept, closed", placement=number),
    ]
