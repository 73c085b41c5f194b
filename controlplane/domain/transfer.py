"""A transfer: rows are carried from one database to another, which then takes over. Pure.

    preparing ──▶ copying ──▶ following ──▶ cut ──▶ reversible ──▶ confirmed
        │            │         │    ▲        │      (the source is kept, closed)
        │            │         │    └────────┘ could not be cut over: the source is in use again
        └────────────┴─────────┴─────────────┴───▶ aborted

A *move* takes a tenant to another cluster while it is used. A *restore* gives it the rows of an earlier time:
Aurora restores whole clusters, so one is made beside the living one for the length of the copy, and nothing
is followed, because what was written after that moment is meant to be gone. A *clone* fills a tenant of the
operator's own before it is served: it has no source placement, is never cut, and goes from copying to
confirmed.

Before the cut a second placement, the target, converges like any: stack, database, logins, schema. `cut` is
recorded before the source takes its last write, and is over in the transaction that makes the target current;
nothing in between needs a decision, so whoever finds a transfer there goes on. From `reversible` on the
target alone has what is written, and the source is the last copy of what was there. A transfer that is
confirmed or aborted is finished once the placement that is not used is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from controlplane.domain.catalogue import Catalogue, Isolation, Plan
from controlplane.domain.errors import Invalid, Refused
from controlplane.domain.placement import CLUSTER_ID
from controlplane.domain.state import State

KEEP_SOURCE_DAYS = 7
"""After this time the source is deleted unasked, if its tables were compared and are the same."""


class TransferKind(StrEnum):
    MOVE = "move"
    RESTORE = "restore"
    CLONE = "clone"


class TransferPhase(State):
    PREPARING = "preparing"
    COPYING = "copying", "preparing", "copying", "following"
    FOLLOWING = "following", "copying", "cut"
    CUT = "cut", "following", "cut"
    REVERSIBLE = "reversible", "cut"
    CONFIRMED = "confirmed", "reversible", "copying"
    ABORTED = "aborted", "preparing", "copying", "following", "cut"

    @property
    def before_cut(self) -> bool:
        """Is the target not in use yet?"""
        return self in TransferPhase.ABORTED.sources


# ------------------------------------------------------------------------------- where a tenant moves to


def validate_destination(destination: object) -> str:
    """Raises Invalid."""
    if isinstance(destination, str) and (
        destination in tuple(Isolation) or CLUSTER_ID.fullmatch(destination)
    ):
        return destination
    raise Invalid("to", "dedicated, shared or a cluster's id", got=destination)


def plan_for_destination(catalogue: Catalogue, plan: Plan, isolation: Isolation) -> Plan:
    """The plan whose kind of cluster is taken: the tenant's own where it has this isolation, else the
    smallest that has. Raises Refused where none has."""
    if plan.isolation is isolation:
        return plan
    fitting = [other for other in catalogue.plans.values() if other.isolation is isolation]
    if not fitting:
        raise Refused(f"no plan of the catalogue is {isolation.value}")
    return min(fitting, key=lambda other: (other.max_acu, other.name))


# ------------------------------------------------------------------------------- what a tenant gets back

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
        raise Invalid("at", _MOMENT, got=at)
    if found >= now:
        raise Invalid("at", f"{_MOMENT}; it is {moment(now)} now", got=at)
    return found.astimezone(UTC)


def home_at(current: str, left: Sequence[tuple[str, datetime]], at: datetime) -> str:
    """The placement that a tenant lived on then. `left`: (source, when it was left), oldest
    first."""
    return next((source for source, left_at in left if at < left_at), current)
