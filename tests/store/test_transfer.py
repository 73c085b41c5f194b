"""A transfer's row: its phases come in their order, and whoever comes too late is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from controlplane.domain.errors import Conflict, Retryable
from controlplane.domain.placement import Placement, PlacementState
from controlplane.domain.transfer import RestoreRequest, TransferKind, TransferPhase
from controlplane.store import placement, transfer
from controlplane.store.registry import Connection, Registry

TENANT, CLUSTER, RESTORED = "t-aaaaaaaaaaaa", "c-aaaaaaaaaaaa", "c-bbbbbbbbbbbb"
SOURCE, TARGET = "p-aaaaaaaaaaaa", "p-bbbbbbbbbbbb"
P = TransferPhase
WAY = (P.COPYING, P.FOLLOWING, P.CUT, P.REVERSIBLE, P.CONFIRMED)


@pytest.fixture
def conn(registry: Registry) -> Iterator[Connection]:
    with registry.connection() as opened:
        opened.execute(
            "INSERT INTO tenant (id, slug, display_name, customer_id, spec)"
            " VALUES (%s, 'acme', '', 'c', '{}')",
            [TENANT],
        )
        opened.execute(
            "INSERT INTO cluster (id, cluster_class, slots, spec) VALUES (%s, 'x', 9, '{}'),"
            " (%s, 'x', 0, '{\"origin\": {}}')",
            [CLUSTER, RESTORED],
        )
        placement.insert(opened, Placement(SOURCE, TENANT, CLUSTER))
        yield opened


def begin(conn: Connection, kind: TransferKind) -> int:
    clone = kind is TransferKind.CLONE
    return transfer.insert(
        conn,
        TENANT,
        kind,
        plan="team",
        reason="test",
        actor="test",
        destination=None if clone else "shared",
        source=None if clone else SOURCE,
        restore=RestoreRequest(snapshot="nightly") if kind is TransferKind.RESTORE else None,
    )


@pytest.mark.parametrize("kind", [TransferKind.MOVE, TransferKind.RESTORE])
def test_the_phases_of_a_transfer_that_is_confirmed(conn: Connection, kind: TransferKind) -> None:
    number = begin(conn, kind)
    placement.insert(conn, Placement(TARGET, TENANT, CLUSTER), state=PlacementState.TARGET)
    transfer.set_target(conn, number, TARGET)
    assert transfer.get(conn, number).other == TARGET
    transfer.turn(conn, number, P.COPYING)
    transfer.copied(conn, transfer.get(conn, number), rows=3, size=100)
    found = transfer.get(conn, number)
    assert (found.phase, found.copied_rows, found.paused_at) == (P.FOLLOWING, 3, None)
    assert found.copied_at is not None
    transfer.turn(conn, number, P.CUT)
    paused = transfer.get(conn, number).paused_at
    transfer.turn(conn, number, P.CUT)
    assert paused is not None
    assert transfer.get(conn, number).paused_at == paused, "it is paused since the first time"
    transfer.turn(conn, number, P.FOLLOWING)
    assert transfer.get(conn, number).paused_at is None, "the source is in use again"
    transfer.turn(conn, number, P.CUT)
    transfer.cut(conn, transfer.get(conn, number), keep_days=7)
    found = transfer.get(conn, number)
    assert (found.phase, found.other, found.overdue) == (P.REVERSIBLE, SOURCE, False)
    assert transfer.left(conn, TENANT) == [(SOURCE, found.cut_at)]
    transfer.turn(conn, number, P.CONFIRMED)
    assert transfer.current(conn, TENANT) is not None, "the source is still to be deleted"
    transfer.finish(conn, number)
    assert transfer.current(conn, TENANT) is None


def test_a_clone_is_over_with_its_copy(conn: Connection) -> None:
    number = begin(conn, TransferKind.CLONE)
    transfer.set_target(conn, number, SOURCE)
    transfer.turn(conn, number, P.COPYING)
    transfer.copied(conn, transfer.get(conn, number), rows=3, size=100)
    found = transfer.get(conn, number)
    assert (found.phase, found.finished_at is not None, found.cut_at) == (P.CONFIRMED, True, None)
    assert transfer.left(conn, TENANT) == [], "it has left no placement"


@pytest.mark.parametrize("phase", [P.PREPARING, P.COPYING, P.FOLLOWING, P.CUT])
def test_one_is_aborted_until_its_target_is_in_use(conn: Connection, phase: TransferPhase) -> None:
    number = begin(conn, TransferKind.MOVE)
    for step in WAY[: [P.PREPARING, *WAY].index(phase)]:
        transfer.turn(conn, number, step)
    transfer.turn(conn, number, P.ABORTED)
    with pytest.raises(Retryable, match="is aborted"):
        transfer.turn(conn, number, P.COPYING)


@pytest.mark.parametrize("phase", [P.REVERSIBLE, P.CONFIRMED])
def test_none_is_aborted_from_then_on(conn: Connection, phase: TransferPhase) -> None:
    number = begin(conn, TransferKind.MOVE)
    for step in WAY[: WAY.index(phase) + 1]:
        transfer.turn(conn, number, step)
    with pytest.raises(Conflict, match=f"is {phase.value}"):
        transfer.turn(conn, number, P.ABORTED, error=Conflict)


def test_what_was_aborted_meanwhile_gets_neither_a_placement_nor_a_cluster_nor_rows(
    conn: Connection,
) -> None:
    number = begin(conn, TransferKind.RESTORE)
    transfer.turn(conn, number, P.COPYING)
    late = transfer.get(conn, number)
    transfer.turn(conn, number, P.ABORTED)
    with pytest.raises(Retryable):
        transfer.set_target(conn, number, SOURCE)
    with pytest.raises(Retryable):
        transfer.set_restored(conn, number, lived_on=SOURCE, cluster_id=RESTORED)
    with pytest.raises(Retryable):
        transfer.copied(conn, late, rows=1, size=1)
    found = transfer.get(conn, number)
    assert (found.target, found.restored_cluster, found.copied_rows) == (None, None, None)


def test_only_what_is_confirmed_or_aborted_is_finished_and_once(conn: Connection) -> None:
    number = begin(conn, TransferKind.MOVE)
    with pytest.raises(Retryable):
        transfer.finish(conn, number)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE transfer SET finished_at = now()")
    transfer.turn(conn, number, P.ABORTED)
    transfer.finish(conn, number)
    with pytest.raises(Retryable):
        transfer.finish(conn, number)


def test_one_at_a_time_whatever_its_kind(conn: Connection) -> None:
    begin(conn, TransferKind.MOVE)
    for kind in TransferKind:
        with pytest.raises(Conflict, match="has a transfer that is not over yet"):
            begin(conn, kind)


@pytest.mark.parametrize(
    "change",
    [
        "source = NULL",
        "destination = NULL",
        "kind = 'clone'",
        "snapshot = 'nightly'",
        "kind = 'restore'",
        "kind = 'restore', snapshot = 'nightly', at = now()",
        "lived_on = 'p-aaaaaaaaaaaa'",
    ],
)
def test_what_does_not_go_together_is_refused(conn: Connection, change: str) -> None:
    begin(conn, TransferKind.MOVE)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(f"UPDATE transfer SET {change}".encode())


def test_a_restored_cluster_is_needed_until_the_rows_are_there_or_nobody_wants_them(
    conn: Connection,
) -> None:
    number = begin(conn, TransferKind.RESTORE)
    transfer.set_restored(conn, number, lived_on=SOURCE, cluster_id=RESTORED)
    assert transfer.waiting_for(conn, RESTORED) == [TENANT]
    assert transfer.reason_to_end(conn, RESTORED) is None
    transfer.turn(conn, number, P.COPYING)
    assert transfer.reason_to_end(conn, RESTORED) is None
    transfer.turn(conn, number, P.ABORTED)
    assert str(transfer.reason_to_end(conn, RESTORED)).endswith("asked for by test: it was aborted")
    conn.execute("UPDATE transfer SET phase = 'following', copied_at = %s", [datetime.now(UTC)])
    assert str(transfer.reason_to_end(conn, RESTORED)).endswith("asked for by test: its rows are copied")
