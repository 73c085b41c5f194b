"""Rollouts: one at a time is open, and its row is the mutex of everything that decides about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from psycopg import Cursor
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict
from controlplane.domain.rollout import ENDED, LEADS_TO, Action, RolloutState, Spec
from controlplane.store.registry import Connection, one, select, transition


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """`wave`: the one whose members may be started. `not_before`: nobody is, until then; `due_in`: the
    seconds until that, by the registry's clock."""

    id: int
    release: str
    state: RolloutState
    reason: str | None
    spec: Spec
    wave: int
    not_before: datetime
    due_in: float = field(
        metadata={"sql": "greatest(0, extract(epoch FROM not_before - clock_timestamp()))::float8"}
    )
    actor: str
    created_at: datetime
    finished_at: datetime | None


def insert(conn: Connection, *, release: str, spec: Spec, actor: str) -> int:
    """Raises Conflict where another one is open (the caller's transaction stays usable)."""
    try:
        with conn.transaction():
            row = conn.execute(
                "INSERT INTO rollout (release, state, spec, actor)"
                " VALUES (%s, 'running', %s, %s) RETURNING id",
                [release, Jsonb(spec.to_json()), actor],
            ).fetchone()
    except UniqueViolation as error:
        raise Conflict("another rollout is open: let it end, or abort it") from error
    return int(one(row)["id"])


def get(conn: Connection, rollout_id: int) -> RolloutRow:
    """Raises NotFound."""
    return locked_row(select(conn, RolloutRow, "FROM rollout WHERE id = %s", [rollout_id]), rollout_id)


def lock(conn: Connection, rollout_id: int) -> Cursor[RolloutRow]:
    """Until the caller's transaction ends nobody else decides about it; `locked_row` reads the row."""
    return select(conn, RolloutRow, "FROM rollout WHERE id = %s FOR UPDATE", [rollout_id])


def locked_row(found: Cursor[RolloutRow], rollout_id: int) -> RolloutRow:
    """Raises NotFound."""
    return one(found.fetchone(), f"rollout {rollout_id}")


def page(conn: Connection, *, before: int | None, limit: int) -> list[RolloutRow]:
    """Newest first, those with an id below `before`."""
    return select(
        conn,
        RolloutRow,
        "FROM rollout WHERE (%(before)s::bigint IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
    ).fetchall()


def act(conn: Connection, rollout_id: int, action: Action, *, reason: str | None) -> None:
    """Make the transition. Raises NotFound, and Conflict where its state does not allow it."""
    transition(
        conn,
        "rollout",
        {"id": get(conn, rollout_id).id},
        LEADS_TO[action],
        "reason = %(reason)s, finished_at = CASE WHEN %(ended)s THEN clock_timestamp() END",
        reason=None if reason is None else reason[:500],
        ended=LEADS_TO[action] in ENDED,
    )


def open_wave(conn: Connection, rollout_id: int, wave: int, *, after: float) -> None:
    """Members of this wave may be started, after that many seconds."""
    conn.execute(
        "UPDATE rollout SET wave = %s, not_before = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s",
        [wave, after, rollout_id],
    )


def hold_until(conn: Connection, rollout_id: int, moment: datetime) -> None:
    conn.execute("UPDATE rollout SET not_before = %s WHERE id = %s", [moment, rollout_id])


def now(conn: Connection) -> datetime:
    """The registry's clock."""
    moment: datetime = one(conn.execute("SELECT clock_timestamp() AS now").fetchone())["now"]
    return moment
