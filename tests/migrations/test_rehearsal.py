"""Rehearsals on copies of real databases, and the drift of schemas between tenants."""

from __future__ import annotations

from controlplane.domain.job import JobKind
from controlplane.services import rehearsals, schemas
from controlplane.services.rehearsals import RehearsalDetail
from controlplane.store import schema_shape
from tests.harness.work import do_one
from tests.migrations.conftest import MakeFleet
from tests.migrations.fleet import Fleet

BASE = {"0001_base.sql": "CREATE TABLE notes (id int, body text);\nCREATE INDEX notes_id ON notes (id)"}
SLOW = {"0002_slow.sql": "ALTER TABLE notes ADD stars int;\nSELECT pg_sleep(0.3);\nCREATE TABLE tag ()"}


def rehearse(fleet: Fleet, number: str, copies: int) -> RehearsalDetail:
    with fleet.registry.connection() as conn:
        asked = rehearsals.request(conn, number, copies=copies, actor="test")
    done = do_one(fleet.ctx, JobKind.REHEARSAL)
    assert done is not None
    assert done.subject == str(asked)
    with fleet.registry.connection() as conn:
        return rehearsals.show(conn, asked)


def see(fleet: Fleet) -> None:
    """What `prove` records of each tenant."""
    with fleet.registry.connection() as conn:
        for placed in fleet.tenants:
            lines = fleet.ctx.providers.databases.shape(fleet.at, placed)
            release = fleet.releases()[placed.tenant_id]
            schema_shape.see(conn, placed.tenant_id, release=release, lines=lines)


def databases(fleet: Fleet) -> list[str]:
    with fleet.superuser() as conn:
        rows = conn.execute(
            "SELECT datname::text FROM pg_database WHERE datname LIKE 'rehearsal%'"
        ).fetchall()
    return [name for (name,) in rows]


def test_copies_are_migrated_and_measured_and_the_originals_left_as_they_are(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    fleet.bring_all_to(fleet.release(BASE))
    detail = rehearse(fleet, fleet.release(BASE | SLOW), copies=2)
    assert detail.rehearsal.state == "done"
    assert [result["error"] for result in detail.rehearsal.results] == [None, None]
    result = detail.rehearsal.results[0]
    assert [run["name"] for run in result["files"]] == ["0002_slow.sql"]
    assert result["seconds"] >= 0.3
    assert result["size"] > 1_000_000
    (lock,) = result["locks"]
    assert (lock["table"], lock["mode"]) == ("notes", "AccessExclusiveLock")
    assert lock["seconds"] >= 0.25
    assert detail.estimate is not None
    assert detail.estimate.longest_lock >= lock["seconds"]
    assert detail.tenants == 3
    assert databases(fleet) == []
    assert [fleet.recorded(placed) for placed in fleet.tenants] == [["0001"]] * 3


def test_the_odd_one_out_is_copied_first_and_what_fails_on_it_is_told(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    fleet.bring_all_to(fleet.release(BASE))
    odd = fleet.tenants[1]
    with fleet.superuser(odd.database) as conn:
        conn.execute("ALTER TABLE app.notes ADD stars text")
    see(fleet)
    detail = rehearse(fleet, fleet.release(BASE | SLOW), copies=1)
    (result,) = detail.rehearsal.results
    assert (result["tenant"], result["alike"]) == (odd.tenant_id, 1)
    assert "42701" in result["error"]
    assert result["statement"] == "ALTER TABLE notes ADD stars int"
    assert detail.estimate is None
    assert databases(fleet) == []


def test_an_original_that_is_in_use_is_left_in_peace(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    fleet.bring_all_to(fleet.release(BASE))
    busy = min(fleet.tenants, key=lambda placed: placed.tenant_id)
    with fleet.superuser(busy.database) as conn:
        detail = rehearse(fleet, fleet.release(BASE | SLOW), copies=1)
        assert conn.execute("SELECT 1").fetchone() == (1,)
    first, second = detail.rehearsal.results
    assert (first["tenant"], first["busy"]) == (busy.tenant_id, True)
    assert second["error"] is None


def test_where_nobody_has_an_older_release_nothing_is_copied(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(1)
    number = fleet.release(BASE)
    fleet.bring_all_to(number)
    detail = rehearse(fleet, number, copies=1)
    assert (detail.rehearsal.state, detail.rehearsal.error) == ("failed", "no tenant has an older release")


def test_drift_is_told_line_by_line(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    fleet.bring_all_to(fleet.release(BASE))
    with fleet.superuser(fleet.tenants[2].database) as conn:
        conn.execute("DROP INDEX app.notes_id")
        conn.execute("ALTER TABLE app.notes ADD by_hand int")
    see(fleet)
    with fleet.registry.connection() as conn:
        usual, odd = schemas.drift(conn)
    assert (usual.tenants, usual.missing, usual.extra) == (2, [], [])
    assert (odd.tenants, odd.examples) == (1, ["customer-3"])
    assert odd.missing == ["index CREATE INDEX notes_id ON app.notes USING btree (id)"]
    assert odd.extra == ["table notes column by_hand integer"]
