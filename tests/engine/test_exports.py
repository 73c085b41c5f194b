"""Exports, on fakes: made once, by one, deleted in time; a failure is reported and not repeated for ever."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Conflict, LeaseLost, NeedsHuman, NotFound, Retryable
from controlplane.domain.job import Job, JobKind, Lane
from controlplane.store import data_copy, job
from controlplane.workers.jobs import exports
from tests.engine.test_purge import SUBSCRIPTION, TENANT, approve, ask, paid
from tests.harness.engine import Harness
from tests.harness.work import do_one


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


def due(harness: Harness) -> float | None:
    """Seconds until its job is due; None where there is none."""
    with harness.ctx.registry.connection() as conn:
        found = conn.execute(
            "SELECT extract(epoch FROM due_at - now())::float8 AS s FROM job WHERE kind = 'export'"
        ).fetchall()
    assert len(found) <= 1
    return found[0]["s"] if found else None


def time_passes(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE job SET due_at = now() WHERE kind = 'export'")


def test_it_is_made_kept_and_deleted_in_time(harness: Harness, export: data_copy.CopyRow) -> None:
    assert (due(harness) or 0) <= 0
    harness.work()
    made = row(harness, export.id)
    assert made.state == "kept"
    assert made.kept_until is not None
    assert made.verified_at is not None
    assert (made.kept_until - made.verified_at).days == 7
    assert (made.manifest or {})["name"] == made.name
    left = due(harness)
    assert left is not None
    assert 6.9 < left / exports.DAY <= 7
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE data_copy SET kept_until = clock_timestamp()")
    time_passes(harness)
    harness.work()
    assert row(harness, export.id).state == "deleted"
    assert not harness.ctx.providers.dumps.exists(made.name)
    assert due(harness) is None
    assert harness.violations() == []


def test_one_worker_makes_it(harness: Harness, export: data_copy.CopyRow) -> None:
    subject = str(export.id)
    with harness.ctx.registry.connection() as conn:
        held = job.claim(conn, Lane.LONG, holder="one", seconds=60, kinds=[JobKind.EXPORT], subject=subject)
    assert held is not None
    assert do_one(harness.ctx, JobKind.EXPORT, subject) is None
    assert row(harness, export.id).state == "making"
    with harness.ctx.registry.connection() as conn:
        asked: dict[str, Any] = {"lanes": [Lane.LONG], "version": "", "seconds": 60}
        assert job.beat(conn, "one", [held.fencing_token], **asked) == {held.fencing_token}
        conn.execute("UPDATE job SET lease_until = '-infinity' WHERE kind = 'export'")
    assert do_one(harness.ctx, JobKind.EXPORT, subject) is not None
    assert row(harness, export.id).state == "kept"
    with harness.ctx.registry.connection() as conn:
        assert job.beat(conn, "one", [held.fencing_token], **asked) == set()
        with pytest.raises(LeaseLost):
            job.guard(conn, held)


def test_a_worker_that_loses_its_hold_stops(
    harness: Harness, export: data_copy.CopyRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Job] = []

    def dump(*_: Any, stopped: Any, **__: Any) -> None:
        with harness.ctx.registry.connection() as conn, conn.transaction():
            assert not stopped()
            conn.execute("UPDATE job SET lease_until = '-infinity' WHERE kind = 'export'")
            other = job.take_over(conn, Lane.LONG, holder="other", seconds=600)
        assert other is not None
        taken.append(other)
        end = time.monotonic() + 60
        while not stopped():
            assert time.monotonic() < end, "it is not told that it has lost the hold"
            time.sleep(0.01)
        raise LeaseLost("it was stopped")

    monkeypatch.setattr(harness.ctx.providers.dumps, "make", dump)
    assert do_one(harness.another_worker("one", every=0.05), JobKind.EXPORT) is not None
    assert (row(harness, export.id).state, row(harness, export.id).error) == ("making", None)
    with harness.ctx.registry.connection() as conn:
        job.guard(conn, taken[0])


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
    tried: list[str] = []

    def dump(*_: Any, name: str, **__: Any) -> None:
        tried.append(name)
        raise error

    monkeypatch.setattr(harness.ctx.providers.dumps, "make", dump)
    for _ in range(8):
        time_passes(harness)
        do_one(harness.ctx, JobKind.EXPORT)
    failed = row(harness, export.id)
    assert (failed.state, failed.error) == ("failed", str(error))
    assert tried == [export.name] * attempts
    assert due(harness) is None


def test_one_that_can_not_be_deleted_is_tried_again_until_it_is_gone(
    harness: Harness, export: data_copy.CopyRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the attempts that are the most for making one: what was promised to go must go."""
    harness.work()
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE data_copy SET kept_until = clock_timestamp()")
    tried: list[str] = []

    def refuse(name: str) -> None:
        tried.append(name)
        raise Retryable("the bucket is away")

    with monkeypatch.context() as away:
        away.setattr(harness.ctx.providers.dumps, "delete", refuse)
        for _ in range(8):
            time_passes(harness)
            do_one(harness.ctx, JobKind.EXPORT)
    assert tried == [export.name] * 8
    assert (row(harness, export.id).state, row(harness, export.id).error) == ("kept", "the bucket is away")
    time_passes(harness)
    do_one(harness.ctx, JobKind.EXPORT)
    assert row(harness, export.id).state == "deleted"


def test_there_must_be_data(harness: Harness) -> None:
    harness.hear(harness.subscribe(1))
    with harness.ctx.registry.connection() as conn, pytest.raises(NotFound):
        run(conn, "export", TENANT, actor="anna", reason="x", keep_days=1)
    assert do_one(harness.ctx, JobKind.INTAKE) is not None
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
    assert kept[:2] == [export.name, f"purges/{harness.last_placement(SUBSCRIPTION).id}-p1.dump"]
