"""Rollouts: start one, steer it, and take its next step.

What people do (`start`, `pause`, `resume`, `abort`, `retry`, `skip`) is audited and bound to the table
of transitions. What workers do is `take` (record what is done and begin the next members, or open
the next wave, or end it), `go_on` with one that had begun before, and `record_failure` or
`record_snapshot_failure`; a member that is put back decides nothing, so workers go to the store for it.
Everything that decides about a rollout holds its row's lock for the length of one short transaction, so two
workers never start one member too many nor both open the next wave.

A member's own way is on its row and not in the audit trail: one entry for each of 1,000 tenants would
put 1,000 transactions into one line behind the chain's lock. Failures and skips are audited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from controlplane.domain.errors import Conflict, Pending
from controlplane.domain.job import Job, JobKind
from controlplane.domain.rollout import (
    AT_ONCE,
    ENDED,
    OPEN,
    Action,
    Candidate,
    Counts,
    Member,
    RolloutState,
    Spec,
    budget_exceeded,
    database_lock,
    is_open,
    last_wave,
    member_of,
    next_batch,
    opens_at,
    subject_of,
    waves,
)
from controlplane.store import audit, job, release, rollout, rollout_member, rollout_snapshot
from controlplane.store.registry import Connection
from controlplane.store.rollout import RolloutRow
from controlplane.store.rollout_member import FailureRow, MemberRow, Outcome, WaveRow
from controlplane.store.rollout_snapshot import SnapshotRow


@dataclass(frozen=True, slots=True)
class RolloutDetail:
    rollout: RolloutRow
    counts: Counts
    waves: list[WaveRow]
    failures: list[FailureRow]
    snapshots: list[SnapshotRow]


# ------------------------------------------------------------------------------- what people do


def start(conn: Connection, number: str, spec: Spec, *, actor: str) -> int:
    """Begin to bring the release to every tenant; the rollout's id.

    Raises NotFound, Conflict (another one is open, findings that nobody accepted, an older release than
    the fleet's), Invalid (a wave that names no member).
    """
    with conn.transaction():
        row = release.get(conn, number)
        if row.open_findings:
            ids = ", ".join(f.id for f in release.findings(conn, number) if f.accepted_by is None)
            raise Conflict(f"release {number} has dangerous statements that nobody accepted: {ids}")
        rollout_id = rollout.insert(conn, release=number, spec=spec, actor=actor)
        fleet = rollout_member.candidates(conn, number)
        rollout_member.enrol(conn, rollout_id, waves(fleet, spec, seed=number))
        _audit(
            conn, rollout_id, "rollout.start", actor, release=number, members=len(fleet), spec=spec.to_json()
        )
        _ask(conn, rollout_id, spec)
    return rollout_id


def pause(conn: Connection, rollout_id: int, *, actor: str, reason: str) -> RolloutDetail:
    """No more members are started; those that run are finished."""
    return _steer(conn, rollout_id, Action.PAUSE, actor=actor, reason=reason)


def resume(conn: Connection, rollout_id: int, *, actor: str, reason: str) -> RolloutDetail:
    """Raises Conflict while more have failed than the budget allows: retry or skip them first."""
    with conn.transaction():
        row = _locked(conn, rollout_id)
        over = _over_budget(conn, row)
        if over is not None and row.state in OPEN:
            raise Conflict(f"{over}: retry or skip them first")
        return _steer(conn, rollout_id, Action.RESUME, actor=actor, reason=reason)


def abort(conn: Connection, rollout_id: int, *, actor: str, reason: str) -> RolloutDetail:
    """End it. What was pending is stale: it keeps its release until the next rollout takes it along."""
    with conn.transaction():
        _locked(conn, rollout_id)
        rollout_member.leave_behind(conn, rollout_id)
        return _steer(conn, rollout_id, Action.ABORT, actor=actor, reason=reason)


def retry(conn: Connection, rollout_id: int, names: Sequence[str] | None, *, actor: str) -> RolloutDetail:
    """Try the failed again, these or all, and go on where they had halted it. Raises Conflict where
    there is nothing to retry."""
    with conn.transaction():
        row = _open(conn, rollout_id)
        ids = None if names is None else rollout_member.named(conn, rollout_id, names)
        count = rollout_member.retry(conn, rollout_id, ids)
        if not count:
            raise Conflict(f"none of rollout {rollout_id} has failed")
        _audit(conn, rollout_id, "rollout.retry", actor, members=count, tenants=ids or "all")
        _go_on(conn, row)
    return show(conn, rollout_id)


def skip(
    conn: Connection, rollout_id: int, names: Sequence[str], *, actor: str, reason: str
) -> RolloutDetail:
    """Leave these out; they keep the release they have. Raises NotFound, Conflict."""
    with conn.transaction():
        row = _open(conn, rollout_id)
        ids = rollout_member.named(conn, rollout_id, names)
        count = rollout_member.skip(conn, rollout_id, ids, reason=reason)
        if count != len(ids):
            raise Conflict("only members that are pending or have failed can be skipped")
        _audit(conn, rollout_id, "rollout.skip", actor, tenants=ids, reason=reason)
        _go_on(conn, row)
    return show(conn, rollout_id)


def show(conn: Connection, rollout_id: int) -> RolloutDetail:
    """Raises NotFound."""
    return RolloutDetail(
        rollout=rollout.get(conn, rollout_id),
        counts=rollout_member.counts(conn, rollout_id),
        waves=rollout_member.by_wave(conn, rollout_id),
        failures=rollout_member.failures(conn, rollout_id),
        snapshots=rollout_snapshot.of_rollout(conn, rollout_id),
    )


def members_page(
    conn: Connection, rollout_id: int, *, after: str | None, limit: int, state: str | None
) -> list[MemberRow]:
    """Raises NotFound."""
    rollout.get(conn, rollout_id)
    return rollout_member.page(conn, rollout_id, after=after, limit=limit, state=state)


def _locked(conn: Connection, rollout_id: int) -> RolloutRow:
    """Until the caller's transaction ends nobody else decides about it. Raises NotFound."""
    return rollout.locked_row(rollout.lock(conn, rollout_id), rollout_id)


def _open(conn: Connection, rollout_id: int) -> RolloutRow:
    row = _locked(conn, rollout_id)
    if row.state in ENDED:
        raise Conflict(f"rollout {rollout_id} is {row.state}")
    return row


def _steer(conn: Connection, rollout_id: int, action: Action, *, actor: str, reason: str) -> RolloutDetail:
    with conn.transaction():
        rollout.act(conn, rollout_id, action, reason=reason)
        _audit(conn, rollout_id, f"rollout.{action}", actor, reason=reason)
        if action is Action.RESUME:
            _ask(conn, rollout_id, rollout.get(conn, rollout_id).spec)
        if action is Action.ABORT:
            rollout_snapshot.look_at_all(conn, rollout_id)
    return show(conn, rollout_id)


def _go_on(conn: Connection, row: RolloutRow) -> None:
    if row.state is RolloutState.HALTED and _over_budget(conn, row) is None:
        rollout.act(conn, row.id, Action.RESUME, reason=None)
        _ask(conn, row.id, row.spec)


def _ask(conn: Connection, rollout_id: int, spec: Spec) -> None:
    """For workers to go on with it; its tenants wait behind whoever pays all the same."""
    shares = -(-spec.concurrency // AT_ONCE)
    subjects = [f"{rollout_id}/{share}" for share in range(1, shares + 1)]
    job.ensure_all(conn, JobKind.ROLLOUT, subjects, reason="rollout", actor="rollout")


def _over_budget(conn: Connection, row: RolloutRow) -> str | None:
    counts = rollout_member.counts(conn, row.id)
    canaries = rollout_member.counts(conn, row.id, up_to_wave=0)
    return budget_exceeded(
        row.spec, members=counts.total, failed=counts.failed, failed_canaries=canaries.failed
    )


def _audit(conn: Connection, rollout_id: int, action: str, actor: str, **detail: object) -> None:
    audit.append(conn, actor=actor, action=action, resource=f"rollout:{rollout_id}", detail=detail)


# ------------------------------------------------------------------------------- what workers do


@dataclass(frozen=True, slots=True)
class Taken:
    """`begun`: members, with the jobs that hold them. `again`: more may be begun at once; False where it goes
    on later, has ended, or somebody must decide."""

    again: bool
    begun: tuple[tuple[Job, Member], ...] = ()


def take(
    conn: Connection,
    rollout_id: int,
    *,
    holder: str,
    seconds: float,
    room: int,
    release: str,
    done: Sequence[Outcome] = (),
    snapshot_plans: Sequence[str] = (),
) -> Taken:
    """Record who has the `release` now, then begin up to `room` members, whose jobs the holder has for
    `seconds`; where none are left in this wave open the next one, and after the last wave end the rollout.
    `room` 0 begins none. Tenants of `snapshot_plans` are held back until there is a snapshot of their cluster
    from before.

    One transaction, and two round trips where members are begun (three with `snapshot_plans`): each worker
    waits for it.
    """
    with conn.pipeline():
        with conn.transaction():
            if done:
                rollout_member.finish(conn, rollout_id, done, release=release)
            row, running, candidates = rollout_member.turn(conn, rollout_id)
            if row.state is not RolloutState.RUNNING:
                return Taken(again=False)
            if row.due_in > 0 or _is_closed(conn, row):
                return Taken(again=False)
            chosen = next_batch(row.spec, running, candidates, room=room)
            batch = _hold_back(conn, row, chosen, snapshot_plans) if chosen and snapshot_plans else chosen
            if chosen and not batch:
                return Taken(again=True)  # others may follow
            if not batch:
                if candidates or not room or rollout_member.is_open(conn, row.id, up_to_wave=row.wave):
                    return Taken(again=False)
                return Taken(again=_next_wave(conn, row))
            locks = {subject_of(row.id, each.tenant_id): database_lock(each.tenant_id) for each in batch}
            jobs = job.start(conn, JobKind.MEMBER, locks, holder=holder, seconds=seconds, actor="rollout")
            members = rollout_member.begin(conn, row.id, list(locks), holder=holder)
            _keep_pace(conn, row)
        held = {job.subject: job for job in jobs}
        begun = tuple((held[subject_of(row.id, found.tenant_id)], found) for found in members)
    return Taken(bool(begun), begun)


def go_on(conn: Connection, held: Job, *, snapshot_plans: Sequence[str]) -> Member | None:
    """Begin a member whose job was claimed, to try it again, or taken over from a worker that died. None
    where it is not its turn: its job has ended then, and it is pending as it was before its first attempt, or
    stale where the rollout has ended. Raises Pending where its rollout's pace makes it wait, LeaseLost."""
    rollout_id, tenant_id = member_of(held.subject)
    with conn.transaction():
        row = _locked(conn, rollout_id)
        job.guard(conn, held)
        runs = row.state is RolloutState.RUNNING
        if runs and row.due_in > 0:
            raise Pending(f"rollout {rollout_id} goes on in {row.due_in:.0f} s", after=row.due_in)
        if runs and not _is_closed(conn, row):
            waiting = rollout_snapshot.unprotected(conn, rollout_id, [tenant_id], plans=snapshot_plans)
            rollout_snapshot.hold(conn, rollout_id, waiting)  # while one is in the making, it is not begun
            _keep_pace(conn, row)
            return rollout_member.begin(conn, rollout_id, [held.subject], holder=held.holder).fetchone()
        rollout_member.put_back(conn, held)
        if row.state in ENDED:
            rollout_member.leave_behind(conn, rollout_id, tenant_id)
        job.finish(conn, held)
    return None


def _keep_pace(conn: Connection, row: RolloutRow) -> None:
    if row.spec.pace:
        rollout.hold_until(conn, row.id, rollout.now(conn) + timedelta(seconds=row.spec.pace))


def _hold_back(
    conn: Connection, row: RolloutRow, chosen: Sequence[Candidate], plans: Sequence[str]
) -> list[Candidate]:
    """Who of them may be started without a snapshot; one is wanted for the others."""
    names = [candidate.tenant_id for candidate in chosen]
    waiting = rollout_snapshot.unprotected(conn, row.id, names, plans=plans)
    rollout_snapshot.hold(conn, row.id, waiting)
    clusters = set(waiting.values())
    return [c for c in chosen if c.tenant_id not in waiting and c.cluster_id not in clusters]


def _is_closed(conn: Connection, row: RolloutRow) -> bool:
    """Outside its maintenance windows it is held until the next one."""
    if not row.spec.windows or is_open(row.spec.windows, now := rollout.now(conn)):
        return False
    rollout.hold_until(conn, row.id, opens_at(row.spec.windows, now))
    return True


def _next_wave(conn: Connection, row: RolloutRow) -> bool:
    """Nobody of this wave is left to do; is the next one open at once? New tenants follow as soon as the
    canaries are through."""
    last = last_wave(row.spec)
    if row.wave < last:
        counts = [wave.wave for wave in rollout_member.by_wave(conn, row.id) if wave.counts.open]
        following = min([*counts, last])
        rollout.open_wave(conn, row.id, following, after=row.spec.wave_pause)
        release.raise_new_tenants(conn, row.release)
        return not row.spec.wave_pause
    release.lock_new_tenants(conn)
    release.raise_new_tenants(conn, row.release)
    late = rollout_member.candidates(conn, row.release, rollout_id=row.id)
    if late:
        rollout_member.enrol(conn, row.id, dict.fromkeys((tenant.tenant_id for tenant in late), last))
    if rollout_member.take_back(conn, row.id) or late:
        return True
    failed = rollout_member.counts(conn, row.id).failed
    if failed:
        reason = f"everything else is done, {failed} failed within the budget: retry or skip them"
        rollout.act(conn, row.id, Action.HALT, reason=reason)
        _audit(conn, row.id, "rollout.halt", "rollout", reason=reason)
    else:
        rollout.act(conn, row.id, Action.FINISH, reason=None)
        _audit(conn, row.id, "rollout.finish", "rollout", release=row.release)
        rollout_snapshot.look_at_all(conn, row.id)
    return False


def record_failure(conn: Connection, held: Job, *, error: str, file: str = "", statement: str = "") -> None:
    """It failed for good; the rollout halts where that is one too many. The job's guard is the caller's."""
    rollout_id, tenant_id = member_of(held.subject)
    with conn.transaction():
        row = _locked(conn, rollout_id)
        rollout_member.fail(conn, held, file=file, statement=statement, error=error)
        over = _over_budget(conn, row)
        if over is not None and row.state is RolloutState.RUNNING:
            rollout.act(conn, rollout_id, Action.HALT, reason=f"{over}: {error}")
        _audit(
            conn,
            rollout_id,
            "rollout.fail",
            "rollout",
            tenant=tenant_id,
            file=file,
            error=error,
            halted=over,
        )


def record_snapshot_failure(
    conn: Connection, snapshot: SnapshotRow, reason: str, *, plans: Sequence[str]
) -> None:
    """It can't be made: the members that need it fail, and the rollout halts where those are too many. A
    retry of them wants another one. Raises LeaseLost where somebody else has recorded it."""
    error = f"no snapshot of cluster {snapshot.cluster_id}: {reason}"
    with conn.transaction():
        row = _locked(conn, snapshot.rollout_id)
        rollout_snapshot.mark_failed(conn, snapshot, reason)
        failed = rollout_snapshot.fail_members(conn, snapshot, plans=plans, error=error)
        over = _over_budget(conn, row)
        if over is not None and row.state is RolloutState.RUNNING:
            rollout.act(conn, row.id, Action.HALT, reason=f"{over}: {error}")
        _audit(
            conn,
            row.id,
            "rollout.snapshot_failed",
            "rollout",
            snapshot=snapshot.name,
            error=reason,
            members=failed,
            halted=over,
        )
