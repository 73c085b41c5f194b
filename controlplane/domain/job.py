"""A job: durable work in the one queue.

    waiting ──claim──▶ running ──▶ ended: done, or parked for a person
       ▲                  │
       └─ Retryable, Pending ┘

Two partial unique indexes allow one waiting job for each kind and subject, and one running job for each lock
over all kinds; so a storm of changes costs one more pass, not one each. A job whose holder died stays
`running`; the next claimer takes it over with a higher fencing token.

What differs between the kinds stands in one table here: where it is worked on, how urgent it is, and when it
is given up. Who asks may make a job more urgent than its kind is, never less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Any

from controlplane.domain.errors import NeedsHuman, Pending, Refused, Retryable
from controlplane.domain.state import State


class Lane(StrEnum):
    """Quick slots never take what may take minutes, so that nobody who pays waits for somebody's dump."""

    QUICK = "quick"
    LONG = "long"


class Priority(IntEnum):
    """Classes of the claim, most urgent first; every CLAIMS_UNTIL_OLDEST-th takes the oldest of any class."""

    PAID = 0
    ASKED = 1
    ROLLOUT = 2
    ROUTINE = 3


CLAIMS_UNTIL_OLDEST = 8


class JobKind(StrEnum):
    INTAKE = "intake"
    TENANT = "tenant"
    CLUSTER = "cluster"
    PREVIEW = "preview"
    EXPORT = "export"
    REHEARSAL = "rehearsal"
    ROLLOUT = "rollout"
    MEMBER = "member"
    SNAPSHOT = "snapshot"
    # by the clock: see workers/schedule
    TIMERS = "timers"
    POOL = "pool"
    NOTIFICATIONS = "notifications"
    REPUBLISH = "republish"
    COMPARE = "compare"
    PRUNE = "prune"
    SEAL = "seal"


@dataclass(frozen=True, slots=True)
class Terms:
    """`lane`: where a job of the kind begins. `attempts`: after so many a failure that time could repair is
    given up all the same; None: never, a person is notified after ATTEMPTS_UNTIL_ATTENTION. `recorded`: kept
    when it has ended, for people. `endless`: never given up, whatever the failure: nobody would ask again."""

    lane: Lane
    attempts: int | None = None
    recorded: bool = False
    endless: bool = False


TERMS: Mapping[JobKind, Terms] = {
    JobKind.INTAKE: Terms(Lane.QUICK, attempts=12),
    JobKind.TENANT: Terms(Lane.QUICK, recorded=True),
    JobKind.CLUSTER: Terms(Lane.LONG, recorded=True),
    JobKind.PREVIEW: Terms(Lane.LONG),
    JobKind.EXPORT: Terms(Lane.LONG, attempts=5),
    JobKind.REHEARSAL: Terms(Lane.LONG, attempts=3),
    JobKind.ROLLOUT: Terms(Lane.LONG, endless=True),
    JobKind.MEMBER: Terms(Lane.LONG, attempts=20),  # the most that a rollout may ask for
    JobKind.SNAPSHOT: Terms(Lane.QUICK, endless=True),
    JobKind.TIMERS: Terms(Lane.QUICK, endless=True),
    JobKind.POOL: Terms(Lane.QUICK, endless=True),
    JobKind.NOTIFICATIONS: Terms(Lane.QUICK, endless=True),
    JobKind.REPUBLISH: Terms(Lane.LONG, endless=True),
    JobKind.COMPARE: Terms(Lane.LONG, endless=True),
    JobKind.PRUNE: Terms(Lane.LONG, endless=True),
    JobKind.SEAL: Terms(Lane.QUICK, endless=True),
}

PERIODIC_OBSERVATION = "periodic observation"
"""The reason of a job that nobody asked for. It must not wake a paused cluster."""
CLOCK = "clock"
"""Who asked for it."""

_PRIORITY_OF = {
    "billing": Priority.PAID,
    "rollout": Priority.ROLLOUT,
    "pool": Priority.ROUTINE,
    CLOCK: Priority.ROUTINE,
}


def priority_of(actor: str) -> Priority:
    """How urgent it is hangs on who asks; whoever is none of ours is a person."""
    return _PRIORITY_OF.get(actor, Priority.ASKED)


@dataclass(frozen=True, slots=True)
class Job:
    """The right to do it until the lease ends; every write carries the fencing token. `orphan`: its holder
    before died."""

    id: int
    kind: JobKind
    subject: str
    lane: Lane
    fencing_token: int
    holder: str
    attempts: int
    causes: list[dict[str, Any]]
    orphan: bool

    @property
    def reason(self) -> str:
        return str(self.causes[0]["reason"]) if self.causes else PERIODIC_OBSERVATION

    @property
    def actor(self) -> str:
        return str(self.causes[0]["actor"]) if self.causes else CLOCK

    @property
    def asked(self) -> dict[str, Any] | None:
        """The cause that a person gave, the first of several; None where nobody did."""
        persons = (cause for cause in self.causes if priority_of(cause["actor"]) is Priority.ASKED)
        return next(persons, None)

    @property
    def terms(self) -> Terms:
        return TERMS[self.kind]


class OperationState(State):
    """Of a job that people see."""

    WAITING = "waiting", "running"
    RUNNING = "running", "waiting", "running"
    DONE = "done", "running"
    PARKED = "parked", "running"


class PreviewState(State):
    """Of what an operation would do, worked out beforehand."""

    WAITING = "waiting"
    DONE = "done", "waiting"
    FAILED = "failed", "waiting"


# ------------------------------------------------------------------------------------ what failed

BACKOFF_FIRST = 2.0
BACKOFF_CAP = 300.0
ATTEMPTS_UNTIL_ATTENTION = 10
"""Seven to fourteen minutes of backoff: AWS's passing states last for less."""
UNEXPECTED_UNTIL_PARKED = 5


@dataclass(frozen=True, slots=True)
class Trouble:
    """What becomes of a job that did not get to its end. `after`: seconds until it is tried again; None where
    it is given up. `runbook`: the page for the person who should know, None where nobody need. `counts`:
    whether it was an attempt; it was none where nothing was wrong. `error`: what was raised, which may say
    more than the message; one that is unknown may hold a secret."""

    message: str
    after: float | None
    runbook: str | None = None
    counts: bool = True
    error: Exception | None = None


def judge(error: Exception, job: Job, *, jitter: float) -> Trouble:
    """The one judge of what went wrong, for every kind. `jitter`: see `backoff`."""
    found = replace(_judge(error, job, backoff(job.attempts, jitter=jitter)), error=error)
    return replace(found, after=BACKOFF_CAP) if found.after is None and job.terms.endless else found


def _judge(error: Exception, job: Job, wait: float) -> Trouble:
    limit = job.terms.attempts
    match error:
        case Pending():
            return Trouble(str(error), error.after or wait, counts=False)
        case Retryable():
            lasts = job.attempts >= (limit or ATTEMPTS_UNTIL_ATTENTION)
            runbook = (error.runbook or "retrying") if lasts else None
            over = limit is not None and lasts
            return Trouble(str(error), None if over else max(error.after or 0.0, wait), runbook)
        case NeedsHuman():
            return Trouble(str(error), None, error.runbook)
        case Refused():
            return Trouble(str(error), None, "refused")
        case _:
            message = f"unexpected {type(error).__name__}"
            parked = job.attempts >= UNEXPECTED_UNTIL_PARKED
            found = Trouble(message, wait)
            return replace(found, after=None, runbook="internal-error") if parked else found


def backoff(attempts: int, *, jitter: float) -> float:
    """Seconds until the next attempt: doubling from 2 s, capped at 5 min, spread over its upper half.

    `jitter` is drawn by the caller from [0, 1). The cap keeps one bad tenant from being forgotten,
    the spread keeps a fleet that failed together from coming back together.
    """
    ceiling = min(BACKOFF_CAP, BACKOFF_FIRST * 2.0 ** min(max(attempts - 1, 0), 20))
    return ceiling / 2 + ceiling / 2 * jitter
