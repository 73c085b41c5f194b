"""Exports, on fakes: made once, by one, deleted in time; a failure is reported and not repeated for ever."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Conflict, LeaseLost, NeedsHuman, NotFound, Retryable
from controlplane.domain.placement import tenant_id_for
from controlplane.store import data_copy
from controlplane.workers.jobs import exports
from controlplane.workers.schedule import sweep
from tests.engine.test_purge import SUBSCRIPTION, TENANT, approve, ask, paid
from tests.harness.engine import Harness


@pytest.fixture
def export(harness: Harness) -> data_copy.CopyRow:
    paid(harness)
    with harness.ctx.registry.connection() as conn:
        made = run(conn, "export", TENANT, actor="anna", reason="art. 20", keep_days=7).export
    assert made is not None
    return made


def row(harness: Harness, export_id: int) -> data_copy.CopyRow:
    with harness.ctx.registry.connection() as conn:
        return data_copy.get_export(conn, export_id)


def time_passes(harness: Harness, column: str = "next_attempt_at") -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute(f"UPDATE data_copy SET {column} = clock_timestamp()".encode())


def test_it_is_made_kept_and_deleted_in_time(harness: Harness, export: data_copy.CopyRow) -> None:
    assert sweep.sweep(harness.ctx).exports == 1
    harness.work()
    made = row(harness, export.id)
    assert made.state == "kept"
    assert made.kept_until is not None
    assert made.verified_at is not None
    assert (made.kept_until - made.verified_at).days == 7
    assert (made.manifest or {})["name"] == made.name
    assert sweep.sweep(harness.ctx).exports == 0
    time_passes(harness, "kept_until")
    time_passes(harness)
    harness.work()
    assert row(harness, export.id).state == "deleted"
    assert not harness.ctx.providers.dumps.exists(made.name)
    assert harness.violations() == []


def test_one_worker_makes_it(harness: Harness, export: data_copy.CopyRow) -> None:
    with harness.ctx.registry.connection() as conn:
        taken = data_copy.take_export(conn, export.id, hold=60)
    assert taken is not None
    assert not exports.work(harness.ctx, export.id)
    with harness.ctx.registry.connection() as conn:
        assert data_copy.renew_export(conn, taken, hold=60)
    time_passes(harness)
    assert exports.work(harness.ctx, export.id)
    with harness.ctx.registry.connection() as conn:
        assert not data_copy.renew_export(conn, taken, hold=60)


def test_a_worker_that_loses_its_hold_stops(
    harness: Harness, export: data_copy.CopyRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "RENEW_EVERY", 0.0)

    def dump(*_: Any, stopped: Any, **__: Any) -> None:
        with harness.ctx.registry.connection() as conn:
            assert not stopped()
            conn.execute("UPDATE data_copy SET attempts = attempts + 1")
        if stopped():
            raise LeaseLost

    monkeypatch.setattr(harness.ctx.providers.dumps, "make", dump)
    assert exports.work(harness.ctx, export.id)
    assert row(harness, export.id).state == "making"


@pytest.mark.parametrize(
    ("error", "attempts"), [(NeedsHuman("no bucket", runbook="copy"), 1), (Retryable("later"), 5)]
)
def test_a_failure_is_told_and_not_repeated_for_ever(
    harness: Harness,
    export: data_copy.CopyRow,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    attempts: int,
) -> None:
    def dump(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(harness.ctx.providers.dumps, "make", dump)
    for _ in range(8):
        time_passes(harness)
        exports.work(harness.ctx, export.id)
    failed = row(harness, export.id)
    assert (failed.state, failed.attempts, failed.error) == ("failed", attempts, str(error))


def test_there_must_be_data(harness: Harness) -> None:
    harness.hear(harness.subscribe(1))
    with harness.ctx.registry.connection() as conn, pytest.raises(NotFound):
        run(conn, "export", TENANT, actor="anna", reason="x", keep_days=1)
    from controlplane.workers.jobs import intake

    with harness.ctx.registry.connection() as conn:
        events = conn.execute("SELECT id FROM stripe_event").fetchall()
    intake.handle_event(harness.ctx, events[0]["id"])
    with harness.ctx.registry.connection() as conn:
        with pytest.raises(Conflict, match="no data"):
            run(conn, "export", TENANT, actor="anna", reason="x", keep_days=1)
        with pytest.raises(NotFound):
            data_copy.get_export(conn, 99)


def test_a_purge_names_the_exports_that_are_still_there(harness: Harness, export: data_copy.CopyRow) -> None:
    harness.work()
    harness.subscribe(1, status="canceled")
    harness.hear(SUBSCRIPTION)
    harness.work()
    approve(harness, ask(harness, early=True).digest)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        found = conn.execute("SELECT certificate FROM purge").fetchone()
        assert found is not None
        with pytest.raises(Conflict, match="no data"):
            run(conn, "export", TENANT, actor="anna", reason="x", keep_days=1)
    kept = [copy["name"] for copy in found["certificate"]["certificate"]["kept"]]
    assert kept[:2] == [export.name, f"purges/{tenant_id_for(SUBSCRIPTION)}-1-p1.dump"]
