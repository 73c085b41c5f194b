"""The way to the registry: nobody who has fallen silent holds up the others, and no state is overwritten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from controlplane.domain.billing import EventState
from controlplane.domain.errors import Conflict, LeaseLost
from controlplane.store import registry as module
from controlplane.store.registry import (
    Connection,
    Registry,
    RegistryUnavailable,
    columns,
    one,
    returning,
    select,
    transition,
)


def test_a_transaction_that_falls_silent_loses_its_locks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a process which was stopped in the middle of it."""
    monkeypatch.setattr(module, "SILENT_AT_MOST", 0.5)
    with Registry(database_url) as one, Registry(database_url) as other:
        held, ended = threading.Event(), threading.Event()
        lost: list[RegistryUnavailable] = []

        def hold() -> None:
            try:
                with one.connection() as conn, conn.transaction():
                    conn.execute("SELECT pg_advisory_xact_lock(1)")
                    held.set()
                    ended.wait(60)
                    conn.execute("SELECT 1")
            except RegistryUnavailable as error:
                lost.append(error)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(30)
        with other.connection() as conn, conn.transaction():
            conn.execute("SELECT pg_advisory_xact_lock(1)")
        ended.set()
        thread.join(30)
    assert len(lost) == 1


# -------------------------------------------------------------------------------- rows and states


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    state: EventState
    size: int = field(metadata={"sql": "length(e.body)"})
    livemode: str = field(metadata={"read": lambda live: "live" if live else "test"})


@pytest.fixture
def conn(registry: Registry) -> Iterator[Connection]:
    with registry.connection() as opened:
        opened.execute(
            "INSERT INTO stripe_event (id, type, livemode, created_at, body, state)"
            " VALUES ('evt_1', 'invoice.paid', false, now(), 'body', 'received')"
        )
        yield opened


def test_what_is_selected_derives_from_the_row(conn: Connection) -> None:
    assert columns(Row, "e") == "e.id, e.state, length(e.body) AS size, e.livemode"
    expected = Row("evt_1", EventState.RECEIVED, 4, "test")
    assert select(conn, Row, "FROM stripe_event e", table="e").fetchall() == [expected]
    write = "UPDATE stripe_event e SET body = %s"
    assert one(returning(conn, Row, write, [b"x"], table="e").fetchone()).size == 1


def move(conn: Connection, event_id: str, to: EventState, **values: object) -> None:
    key = {"id": event_id, "attempts": 0}
    transition(conn, "stripe_event", key, to, "reason = %(reason)s", reason="why", **values)  # type: ignore[arg-type]


def state(conn: Connection) -> tuple[str, str | None]:
    row = one(conn.execute("SELECT state, reason FROM stripe_event").fetchone())
    return row["state"], row["reason"]


def test_a_transition_is_made_with_its_changes(conn: Connection) -> None:
    move(conn, "evt_1", EventState.APPLIED)
    assert state(conn) == ("applied", "why")


def test_another_one_is_refused_and_changes_nothing(conn: Connection) -> None:
    conn.execute("UPDATE stripe_event SET state = 'applied'")
    with pytest.raises(Conflict, match="evt_1 is applied: only one that is received can be parked"):
        move(conn, "evt_1", EventState.PARKED)
    with pytest.raises(LeaseLost):
        move(conn, "evt_1", EventState.IGNORED, error=LeaseLost)
    with pytest.raises(Conflict, match="evt_2 is not there, or in other hands"):
        move(conn, "evt_2", EventState.PARKED)
    conn.execute("UPDATE stripe_event SET state = 'received'")
    with pytest.raises(Conflict, match="only one that is parked can be ignored"):
        move(conn, "evt_1", EventState.IGNORED, sources=[EventState.PARKED])
    assert state(conn) == ("received", None)


def test_a_transition_in_a_pipeline_is_refused_too(conn: Connection) -> None:
    """There no count of rows is known before the end."""
    with conn.pipeline(), pytest.raises(Conflict):
        move(conn, "evt_2", EventState.PARKED)
