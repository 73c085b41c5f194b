"""Claims of targets: one holder at a time, and none that was superseded writes."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from controlplane.domain.errors import LeaseLost
from controlplane.domain.rollout import Spec
from controlplane.store import rollout, rollout_target
from controlplane.store.registry import Connection, Registry
from controlplane.store.rollout_target import Outcome

TENANTS = [f"t-{'a' * 11}{letter}" for letter in "abc"]
CLUSTER = "c-" + "a" * 12


@pytest.fixture
def started(registry: Registry) -> int:
    with registry.connection() as conn:
        conn.execute(
            "INSERT INTO cluster (id, cluster_class, slots, spec, endpoint) VALUES (%s, 'x', 9, '{}', '{}')",
            [CLUSTER],
        )
        for tenant in TENANTS:
            conn.execute(
                "INSERT INTO tenant (id, slug, display_name, customer_id, spec, ready_at)"
                " VALUES (%s, %s, 'x', 'cus', %s, now())",
                [tenant, tenant, Jsonb({"lifecycle": "active"})],
            )
            conn.execute("INSERT INTO placement VALUES (%s, 1, %s, 'current')", [tenant, CLUSTER])
        conn.execute(
            "INSERT INTO release (number, adapter, checksum, actor) VALUES ('0002', 'sql', 'x', 'x')"
        )
        rollout_id = rollout.insert(conn, release="0002", spec=Spec(), actor="x")
        rollout_target.enrol(conn, rollout_id, dict.fromkeys(TENANTS, 0))
    return rollout_id


def claim(conn: Connection, rollout_id: int, *tenants: str, holder: str = "one") -> list[tuple[str, int]]:
    claimed = rollout_target.claim(conn, rollout_id, tenants, holder=holder, seconds=30)()
    return sorted((target.tenant_id, target.fencing_token) for target in claimed)


def expire(conn: Connection) -> None:
    conn.execute("UPDATE rollout_target SET until = clock_timestamp() - interval '1 second'")


def states(conn: Connection) -> list[str]:
    rows = conn.execute("SELECT state FROM rollout_target ORDER BY tenant_id").fetchall()
    return [row["state"] for row in rows]


def test_a_target_is_claimed_once_until_its_lease_runs_out(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        assert claim(conn, started, *TENANTS[:2]) == [(TENANTS[0], 1), (TENANTS[1], 1)]
        assert claim(conn, started, *TENANTS, holder="two") == [(TENANTS[2], 1)]
        assert rollout_target.renew(conn, started, [(TENANTS[0], 1)], seconds=30) == 1
        expire(conn)
        assert claim(conn, started, TENANTS[0], holder="two") == [(TENANTS[0], 2)]


def test_a_claim_passes_over_what_another_one_has_locked(registry: Registry, started: int) -> None:
    with registry.connection() as first, registry.connection() as second, first.transaction():
        assert claim(first, started, TENANTS[0])
        assert claim(second, started, *TENANTS, holder="two") == [(TENANTS[1], 1), (TENANTS[2], 1)]


def test_who_may_be_started_is_listed_while_its_cluster_has_room(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        conn.execute("UPDATE rollout SET spec = spec || '{\"per_cluster\": 2}'")
        assert turn(conn, started) == ({}, TENANTS[:2])
        claim(conn, started, TENANTS[0])
        assert turn(conn, started) == ({CLUSTER: 1}, TENANTS[1:])
        claim(conn, started, TENANTS[1])
        assert turn(conn, started) == ({CLUSTER: 2}, [])
        assert rollout_target.is_open(conn, started, up_to_wave=0)
        expire(conn)
        assert turn(conn, started) == ({}, TENANTS[:2])
        conn.execute("UPDATE rollout_target SET wave = 1, state = 'pending'")
        assert turn(conn, started) == ({}, [])
        assert not rollout_target.is_open(conn, started, up_to_wave=0)


def test_clusters_take_turns(registry: Registry, started: int) -> None:
    other = "c-" + "b" * 12
    with registry.connection() as conn:
        conn.execute("UPDATE rollout_target SET cluster_id = %s WHERE tenant_id = %s", [other, TENANTS[2]])
        assert turn(conn, started) == ({}, [TENANTS[0], TENANTS[2], TENANTS[1]])


def turn(conn: Connection, rollout_id: int) -> tuple[dict[str, int], list[str]]:
    with conn.transaction():
        _, running, candidates = rollout_target.turn(conn, rollout_id)
    return running, [candidate.tenant_id for candidate in candidates]


def test_a_superseded_holder_records_nothing(registry: Registry, started: int) -> None:
    stale = Outcome(TENANTS[0], fencing_token=1, seconds=1.0)
    with registry.connection() as conn:
        claim(conn, started, TENANTS[0])
        expire(conn)
        claim(conn, started, TENANTS[0], holder="two")
        assert rollout_target.renew(conn, started, [(TENANTS[0], 1)], seconds=30) == 0
        rollout_target.finish(conn, started, [stale])
        with pytest.raises(LeaseLost, match="not there, or in other hands"):
            rollout_target.fail(conn, started, stale, file="", statement="", error="x")
        with pytest.raises(LeaseLost):
            rollout_target.put_back(conn, started, stale, after=0, error="x")
        assert states(conn) == ["running", "pending", "pending"]
        rollout_target.finish(conn, started, [Outcome(TENANTS[0], fencing_token=2, seconds=1.0)])
        assert states(conn) == ["done", "pending", "pending"]


def test_done_raises_the_release_and_asks_for_one_operation(registry: Registry, started: int) -> None:
    with registry.connection() as conn:
        claim(conn, started, *TENANTS)
        rollout_target.finish(conn, started, [Outcome(tenant, 1, 1.0) for tenant in TENANTS])
        rows = conn.execute("SELECT resource_id, reason FROM operation ORDER BY 1").fetchall()
        released = conn.execute("SELECT DISTINCT release FROM tenant").fetchall()
    assert [row["resource_id"] for row in rows] == TENANTS
    assert {row["reason"] for row in rows} == {"release 0002"}
    assert released == [{"release": "0002"}]


def test_a_release_that_is_registered_can_not_be_touched(registry: Registry, started: int) -> None:
    for statement in ("UPDATE release SET checksum = 'y'", "DELETE FROM release"):
        with (
            registry.connection() as conn,
            pytest.raises(Exception, match="a row of release is never changed"),
        ):
            conn.execute(statement.encode())
