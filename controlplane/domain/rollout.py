"""A rollout: one release, brought to every tenant in waves. Everything that decides, and nothing that does.

                    ┌──pause──▶ paused ──┐
    start ──▶ running ◀─────resume───────┤          a member:  pending ⇄ running ──▶ done
                 │  ├──halt───▶ halted ──┘                        │         └──▶ failed ──retry──▶ pending
                 │  └──finish─▶ done                              └─ skip ─▶ skipped      └─skip─▶ skipped
                 └─────abort──▶ aborted (what was pending is stale: it keeps its release)

A rollout is done when every member is done or skipped, and not before: failures within the budget do
not stop the others, but the rollout then halts at its end until each is retried or skipped. In the
first wave, the canary, no failure is within the budget.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from controlplane.domain.errors import Invalid
from controlplane.domain.state import State


class RolloutState(State):
    RUNNING = "running", "paused", "halted"
    PAUSED = "paused", "running"
    HALTED = "halted", "running"
    ABORTED = "aborted", "running", "paused", "halted"
    DONE = "done", "running"


class MemberState(State):
    """A member is skipped by a person, or as its tenant has closed; in the second case it is taken back if
    that returns. Stale: the rollout was aborted over it."""

    PENDING = "pending", "running", "failed", "skipped"
    RUNNING = "running", "pending", "running"
    DONE = "done", "running"
    FAILED = "failed", "running", "pending"
    SKIPPED = "skipped", "pending", "running", "failed"
    STALE = "stale", "pending"


class SnapshotState(State):
    """Of the snapshot of a cluster from before a rollout."""

    MAKING = "making"
    AVAILABLE = "available", "making"
    FAILED = "failed", "making"
    DELETED = "deleted", "making", "available", "failed"


AT_ONCE = 16
"""Members that one worker's slot works on at once; what a rollout allows beyond that is others' share."""


class RehearsalState(State):
    WAITING = "waiting"
    RUNNING = "running", "waiting", "running"
    DONE = "done", "running"
    FAILED = "failed", "running"


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    HALT = "halt"
    FINISH = "finish"


LEADS_TO: Mapping[Action, RolloutState] = {
    Action.PAUSE: RolloutState.PAUSED,
    Action.RESUME: RolloutState.RUNNING,
    Action.ABORT: RolloutState.ABORTED,
    Action.HALT: RolloutState.HALTED,
    Action.FINISH: RolloutState.DONE,
}
OPEN = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED})
ENDED = frozenset({RolloutState.ABORTED, RolloutState.DONE})

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"^(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? (?P<start>[0-2]\d:[0-5]\d)-(?P<end>[0-2]\d:[0-5]\d)"
    r" (?P<zone>[A-Za-z0-9_+/-]{1,40})\Z"
)
_PERCENT = re.compile(r"^(\d{1,3}(?:\.\d{1,3})?)%\Z")
MAX_WAVES = 20
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "concurrency": (1, 256),
    "per_cluster": (1, 64),
    "pace": (0, 3600),
    "wave_pause": (0, 7 * 86400),
    "failures": (0, 1_000_000),
    "failure_ratio": (0, 1),
    "attempts": (1, 20),
    "lock_timeout": (0.1, 600),
    "statement_timeout": (0.1, 86400),
    "snapshot_timeout": (60, 86400),
    "snapshot_days": (1, 30),  # a destroyed cluster's key is there for 30 days, and a snapshot needs it
}


# -------------------------------------------------------------------------------------- windows


@dataclass(frozen=True, slots=True)
class Window:
    """Hours in which members may be started: "mon-fri 22:00-05:30 Europe/Berlin". One that ends at or
    before its start ends on the next day; its days are those on which it starts."""

    text: str

    def __post_init__(self) -> None:
        self._parts()

    def _parts(self) -> tuple[frozenset[int], int, int, ZoneInfo]:
        match = _WINDOW.match(self.text)
        expected = "windows like 'mon-fri 22:00-05:30 Europe/Berlin' or 'sun 01:00-05:00 UTC'"
        if match is None:
            raise Invalid("windows", expected, got=self.text)
        try:
            first = _DAYS.index(match["first"])
            last = _DAYS.index(match["last"] or match["first"])
            zone = ZoneInfo(match["zone"])
        except (ValueError, ZoneInfoNotFoundError) as error:
            raise Invalid("windows", expected, got=self.text) from error
        days = frozenset((first + i) % 7 for i in range((last - first) % 7 + 1))
        start, end = (_minutes(match[name]) for name in ("start", "end"))
        if start >= 1440 or end > 1440:
            raise Invalid("windows", expected, got=self.text)
        return days, start, end, zone

    def contains(self, now: datetime) -> bool:
        days, start, end, zone = self._parts()
        local = now.astimezone(zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if end > start:
            return today in days and start <= minute < end
        return (today in days and minute >= start) or ((today - 1) % 7 in days and minute < end)

    def next_opening(self, now: datetime) -> datetime:
        """The first moment from `now` on at which it opens, in UTC."""
        days, start, _, zone = self._parts()
        today = now.astimezone(zone).date()
        for ahead in range(15):
            day = today + timedelta(days=ahead)
            opening = datetime.combine(day, time(start // 60, start % 60), zone).astimezone(UTC)
            if day.weekday() in days and opening >= now and self.contains(opening):
                return opening
        raise AssertionError(f"{self.text} never opens")


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """No windows: always."""
    return not windows or any(window.contains(now) for window in windows)


def opens_at(windows: Sequence[Window], now: datetime) -> datetime:
    """`now` where one is open, else when the first one opens, in UTC. One that would begin in the hour
    that daylight saving leaves out opens the next time."""
    if is_open(windows, now):
        return now
    return min(window.next_opening(now) for window in windows)


# ---------------------------------------------------------------------------------------- spec


@dataclass(frozen=True, slots=True)
class Wave:
    """Tenants by name, or a share of the fleet up to which this wave goes (0 < share ≤ 1)."""

    tenants: tuple[str, ...] = ()
    share: float | None = None

    def to_text(self) -> str:
        return ",".join(self.tenants) if self.share is None else f"{self.share * 100:g}%"

    @classmethod
    def parse(cls, text: str) -> Wave:
        """ "5%", or names and ids of tenants: "acme,globex". Raises Invalid."""
        if match := _PERCENT.match(text.strip()):
            share = float(match.group(1)) / 100
            if not 0 < share <= 1:
                raise Invalid("waves", "a share above 0% and up to 100%", got=text)
            return cls(share=share)
        names = tuple(name.strip() for name in text.split(","))
        if not all(re.fullmatch(r"[a-z0-9-]{1,64}", name) for name in names):
            raise Invalid("waves", "a percentage such as 5%, or tenants such as acme,globex", got=text)
        return cls(tenants=names)


DEFAULT_WAVES = (Wave(share=0.01), Wave(share=0.1), Wave(share=0.5), Wave(share=1.0))


@dataclass(frozen=True, slots=True)
class Spec:
    """How a rollout goes. Times in seconds.

    `concurrency`: members at once over the fleet, `per_cluster`: on one cluster; 1 and 1 is the
    sequential mode. `pace`: least time between two starts. `wave_pause`: rest between two waves.
    `failures`, `failure_ratio`: it halts beyond the larger of the two, the ratio being of all members.
    `attempts`: tries of one member where the trouble may pass (a lock that was not had, a lost
    connection). `lock_timeout`, `statement_timeout`: of every statement of a migration.
    `snapshot_timeout`: how long a cluster's snapshot may take, where a plan asks for one before a
    migration; `snapshot_days`: for how many days it is kept once the rollout has ended.
    """

    waves: tuple[Wave, ...] = DEFAULT_WAVES
    concurrency: int = 8
    per_cluster: int = 4
    pace: float = 0.0
    wave_pause: float = 0.0
    failures: int = 0
    failure_ratio: float = 0.0
    windows: tuple[Window, ...] = ()
    attempts: int = 5
    lock_timeout: float = 5.0
    statement_timeout: float = 300.0
    snapshot_timeout: float = 3600.0
    snapshot_days: int = 14

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise Invalid(name, f"a number, {least:g} to {most:g}", got=value)
        for name in ("concurrency", "per_cluster", "failures", "attempts", "snapshot_days"):
            if not isinstance(getattr(self, name), int):
                raise Invalid(name, "a whole number", got=getattr(self, name))
        if not 1 <= len(self.waves) <= MAX_WAVES:
            raise Invalid("waves", f"1 to {MAX_WAVES} of them", got=len(self.waves))
        shares = [wave.share for wave in self.waves if wave.share is not None]
        if shares != sorted(set(shares)):
            raise Invalid("waves", "percentages that rise", got=", ".join(f"{share:.1%}" for share in shares))

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _BOUNDS},
            "waves": [wave.to_text() for wave in self.waves],
            "windows": [window.text for window in self.windows],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Raises Invalid naming the field, for one that is not known too."""
        known = {*_BOUNDS, "waves", "windows"}
        for name in data:
            if name not in known:
                raise Invalid(str(name)[:80], f"one of {', '.join(sorted(known))}")
        fields: dict[str, Any] = {name: data[name] for name in _BOUNDS if name in data}
        if "waves" in data:
            fields["waves"] = tuple(Wave.parse(text) for text in _texts(data, "waves"))
        if "windows" in data:
            fields["windows"] = tuple(Window(text) for text in _texts(data, "windows"))
        return cls(**fields)


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    value = data[name]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Invalid(name, "a list of texts", got=value)
    return value


# --------------------------------------------------------------------------------------- waves


@dataclass(frozen=True, slots=True)
class FleetTenant:
    """A tenant as the waves see it."""

    tenant_id: str
    slug: str


def waves(fleet: Sequence[FleetTenant], spec: Spec, *, seed: str) -> dict[str, int]:
    """tenant id → its wave, counted from 0. Whoever no wave names or reaches is in the last one.

    Shares are of the whole fleet and cumulative. Who is in them is drawn by `seed` (the release), so
    that it is not the same customers who are the canaries each time, and the same on every look.
    Raises Invalid for a name that is no tenant's.
    """
    known = {name: tenant.tenant_id for tenant in fleet for name in (tenant.tenant_id, tenant.slug)}
    drawn = sorted(
        (tenant.tenant_id for tenant in fleet),
        key=lambda tenant_id: hashlib.sha256(f"{seed}\0{tenant_id}".encode()).digest(),
    )
    placed: dict[str, int] = {}
    for number, wave in enumerate(spec.waves):
        for name in wave.tenants:
            if name not in known:
                raise Invalid("waves", "tenants that are to be migrated", got=name)
            placed.setdefault(known[name], number)
        if wave.share is not None:
            room = math.ceil(wave.share * len(drawn)) - len(placed)
            for tenant_id in [t for t in drawn if t not in placed][: max(room, 0)]:
                placed[tenant_id] = number
    last = last_wave(spec)
    return {tenant.tenant_id: placed.get(tenant.tenant_id, last) for tenant in fleet}


def last_wave(spec: Spec) -> int:
    """The wave of everybody else: the one of 100 %, or one more than were asked for."""
    return len(spec.waves) - 1 if spec.waves[-1].share == 1.0 else len(spec.waves)


# ----------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class Candidate:
    tenant_id: str
    cluster_id: str


def next_batch(
    spec: Spec, running: Mapping[str, int], candidates: Sequence[Candidate], *, room: int
) -> list[Candidate]:
    """Who is started now: at most `room`, never more than the spec allows over the fleet and on a
    cluster, in the candidates' order. `running`: cluster → members that run on it."""
    left = min(room, spec.concurrency - sum(running.values()), 1 if spec.pace else room)
    load = dict(running)
    batch: list[Candidate] = []
    for candidate in candidates:
        if len(batch) >= left:
            break
        if load.get(candidate.cluster_id, 0) < spec.per_cluster:
            load[candidate.cluster_id] = load.get(candidate.cluster_id, 0) + 1
            batch.append(candidate)
    return batch


def budget(spec: Spec, members: int) -> int:
    """Failures that don't stop it: the larger of the count and the ratio of all members."""
    return max(spec.failures, math.floor(spec.failure_ratio * members))


def budget_exceeded(spec: Spec, *, members: int, failed: int, failed_canaries: int) -> str | None:
    """Why it must halt, or None."""
    if failed_canaries:
        return f"{failed_canaries} of the canary wave failed"
    allowed = budget(spec, members)
    return f"{failed} of {members} failed, the budget allows {allowed}" if failed > allowed else None


@dataclass(frozen=True, slots=True)
class Counts:
    """Members by state."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    stale: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, state) for state in MemberState)

    @property
    def open(self) -> int:
        return self.pending + self.running


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a rehearsal foretells. `seconds`: for the fleet; `longest_lock`: on one tenant."""

    seconds: float
    longest_lock: float


def estimate(
    per_member: Sequence[float], longest_locks: Sequence[float], *, members: int, spec: Spec
) -> Estimate:
    """From copies that were migrated: the mean of one member, times the fleet, over its concurrency."""
    mean = sum(per_member) / len(per_member) if per_member else 0.0
    rests = spec.wave_pause * max(last_wave(spec), 0)
    worked = max(mean * members / spec.concurrency, spec.pace * members)
    return Estimate(seconds=worked + rests, longest_lock=max(longest_locks, default=0.0))


@dataclass(frozen=True, slots=True)
class Member:
    """A tenant whose job is begun. `endpoint` is the cluster's as the registry has it."""

    rollout_id: int
    tenant_id: str
    placement: str
    cluster_id: str
    endpoint: Mapping[str, Any] = field(repr=False)


def subject_of(rollout_id: int, tenant_id: str) -> str:
    """What the member's job is about."""
    return f"{rollout_id}/{tenant_id}"


def member_of(subject: str) -> tuple[int, str]:
    """(rollout, tenant id): `subject_of` read backwards."""
    rollout_id, _, tenant_id = subject.partition("/")
    return int(rollout_id), tenant_id


def database_lock(tenant_id: str) -> str:
    """The lock of whoever changes the schema of a tenant's database. It is not the tenant's own: a suspension
    must not wait for a migration."""
    return f"database:{tenant_id}"


def snapshot_name(cluster_id: str, rollout_id: int, number: int) -> str:
    """A cluster's snapshot from before a rollout, the `number`-th: what AWS knows it by."""
    return f"{cluster_id}-rollout-{rollout_id}-{number}"
