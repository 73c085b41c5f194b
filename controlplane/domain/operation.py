"""An operation: the durable record of one attempt to converge one tenant or cluster.

    waiting ──claim──▶ running ──finish──▶ done
       ▲                 │  ├── NeedsHuman ──▶ parked        (needs_attention is set)
       └─ Retryable, Pending ┘  └── spec changed meanwhile ──▶ superseded by the one that waits

Two partial unique indexes allow one running and one waiting operation for each resource; so a storm
of changes costs one more pass, not one each. An operation whose holder died stays `running`; the
next claimer takes it over with a higher fencing token.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.state import State


class ResourceKind(StrEnum):
    TENANT = "tenant"
    CLUSTER = "cluster"


class OperationState(State):
    WAITING = "waiting", "running"
    RUNNING = "running", "waiting", "running"
    DONE = "done", "running"
    PARKED = "parked", "running"
    SUPERSEDED = "superseded", "running"


class PreviewState(State):
    """Of what an operation would do, worked out beforehand."""

    WAITING = "waiting"
    DONE = "done", "waiting"
    FAILED = "failed", "waiting"


@dataclass(frozen=True, slots=True)
class ClaimedOperation:
    """The right to converge one resource until the lease ends; every write carries the fencing token."""

    kind: ResourceKind
    resource_id: str
    operation_id: int
    fencing_token: int
    holder: str
    attempts: int
    reason: str
    actor: str
    orphan: bool = False
    """Its holder before died."""


PERIODIC_OBSERVATION = "periodic observation"
"""The reason of an operation that nobody asked for. It must not wake a paused cluster."""

BACKOFF_FIRST = 2.0
BACKOFF_CAP = 300.0
ATTEMPTS_UNTIL_ATTENTION = 10
"""Seven to fourteen minutes of backoff: AWS's passing states last for less."""
UNEXPECTED_UNTIL_PARKED = 5


def backoff(attempts: int, *, jitter: float) -> float:
    """Seconds until the next attempt: doubling from 2 s, capped at 5 min, spread over its upper half.

    `jitter` is drawn by the caller from [0, 1). The cap keeps one bad tenant from being forgotten,
    the spread keeps a fleet that failed together from coming back together.
    """
    ceiling = min(BACKOFF_CAP, BACKOFF_FIRST * 2.0 ** min(max(attempts - 1, 0), 20))
    return ceiling / 2 + ceiling / 2 * jitter
