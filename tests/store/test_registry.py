"""The way to the registry: nobody who has fallen silent holds up the others, and no state is overwritten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
import pytest

from controlplane.domain.billing import EventState
from controlplane.domain.errors import Conflict, LeaseLost
from controlplane.store import registry as module
from controlplane.store.registry import (
    Connection,
    Registry,
    RegistryUnavailable,
    columns,
    oldest_snapshot,
    one,
    returning,
    select,
    transition,
)


def test_a_transaction_that_falls_silent_loses_its_locks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a process which was stopped in the middle of it."""
    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION_TIMEOUT", 0.5)
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


def test_a_transaction_that_says_much_and_never_ends_is_ended(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its snapshot would slow every claim down."""
    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION_TIMEOUT", 0.2)

    def endless(registry: Registry) -> None:
        with registry.connection() as conn, conn.transaction():
            while True:
                conn.execute("SELECT 1")

    with Registry(database_url, statement_timeout=0.2) as registry, pytest.raises(RegistryUnavailable):
        endless(registry)


def test_a_connection_is_checked_when_it_has_not_been_used_for_a_while(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def ask(registry: Registry) -> None:
        with registry.connection() as conn:
            conn.execute("SELECT 1")

    with Registry(database_url, size=1) as registry:
        ask(registry)
        cut()
        with pytest.raises(RegistryUnavailable):
            ask(registry)
        ask(registry)
        cut()
        monkeypatch.setattr(module, "FRESH", -1.0)
        ask(registry)


def test_the_oldest_snapshot_and_who_keeps_it_are_known(registry: Registry, database_url: str) -> None:
    with registry.connection() as conn:
        assert oldest_snapshot(conn) is None
        with psycopg.connect(database_url, application_name="a dump") as old:
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT 1")
            found = oldest_snapshot(conn)
        assert oldest_snapshot(conn) is None
    assert found is not None
    assert "a dump" in found.who
    assert found.seconds >= 0


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
            "INSERT INTO stripe_event (id, type, livemode, created_at, body, subject, state)"
            " VALUES ('evt_1', 'invoice.paid', false, now(), 'body', 'evt_1', 'received')"
        )
        yield opened


def test_what_is_selected_derives_from_the_row(conn: Connection) -> None:
    assert columns(Row, "e") == "e.id, e.state, length(e.body) AS size, e.livemode"
    expected = Row("evt_1", EventState.RECEIVED, 4, "test")
    assert select(conn, Row, "FROM stripe_event e", table="e").fetchall() == [expected]
    write = "UPDATE stripe_event e SET body = %s"
    assert one(returning(conn, Row, write, [b"x"], table="e").fetchone()).size == 1


def move(conn: Connection, event_id: str, to: EventState, **values: object) -> None:
    key = {"id": event_id, "type": "invoice.paid"}
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
