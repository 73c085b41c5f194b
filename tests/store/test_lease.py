"""The right to converge: one holder at a time, the newest fencing token wins (I3)."""

from __future__ import annotations

import threading

import pytest

from controlplane.domain.errors import LeaseLost
from controlplane.domain.operation import ClaimedOperation, OperationState, ResourceKind
from controlplane.store import lease, operation
from controlplane.store.registry import Connection, Registry

TENANT = ResourceKind.TENANT
ONE = "t-aaaaaaaaaaaa"


@pytest.fixture
def asked(registry: Registry) -> Registry:
    """A registry in which one operation waits."""
    with registry.connection() as conn:
        lease.register(conn, TENANT, ONE)
        operation.request(conn, TENANT, ONE, reason="test", actor="test")
    return registry


def run_out(conn: Connection) -> None:
    """The time of every lease is over."""
    conn.execute("UPDATE lease SET until = clock_timestamp() WHERE until > clock_timestamp()")


def claim(registry: Registry, holder: str = "w1", seconds: float = 30.0) -> ClaimedOperation | None:
    with registry.connection() as conn:
        return lease.claim(conn, holder=holder, seconds=seconds)


def test_only_one_of_many_claimers_gets_it(asked: Registry) -> None:
    got: list[ClaimedOperation | None] = []
    start = threading.Barrier(8)

    def work(n: int) -> None:
        start.wait()
        got.append(claim(asked, f"w{n}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([held for held in got if held is not None]) == 1
    assert len(got) == 8


def test_a_live_lease_is_respected_and_an_expired_one_is_taken_over_with_a_higher_fence(
    asked: Registry,
) -> None:
    first = claim(asked, "w1", seconds=30)
    assert first is not None
    with asked.connection() as conn:
        run_out(conn)
    second = claim(asked, "w2")
    assert second is not None
    assert second.operation_id == first.operation_id
    assert second.fencing_token == first.fencing_token + 1
    assert second.attempts == 2
    assert claim(asked, "w3") is None


def test_a_superseded_holder_can_neither_renew_nor_write(asked: Registry) -> None:
    first = claim(asked, "w1", seconds=0.0)
    assert first is not None
    second = claim(asked, "w2")
    assert second is not None
    with asked.connection() as conn:
        with pytest.raises(LeaseLost):
            lease.renew(conn, first, seconds=30)
        with pytest.raises(LeaseLost), conn.transaction():
            lease.guard(conn, first)
        with pytest.raises(LeaseLost):
            operation.finish(conn, first, OperationState.DONE, error=None, runbook=None)
        with pytest.raises(LeaseLost):
            operation.put_back(conn, first, after=0.0, error=None, counts=True)
        assert operation.get(conn, first.operation_id).state == "running"
        lease.renew(conn, second, seconds=30)
        lease.release(conn, first)
        assert claim(asked, "w3") is None


def test_a_running_operation_keeps_the_next_one_waiting(asked: Registry) -> None:
    held = claim(asked)
    assert held is not None
    with asked.connection() as conn:
        later = operation.request(conn, TENANT, ONE, reason="more", actor="test")
        assert later != held.operation_id
        assert operation.request(conn, TENANT, ONE, reason="and more", actor="test") == later
        assert claim(asked) is None
        operation.finish(conn, held, OperationState.DONE, error=None, runbook=None)
        lease.release(conn, held)
    following = claim(asked)
    assert following is not None
    assert following.operation_id == later


def test_what_is_put_back_waits_its_time_or_gives_way_to_one_that_waits_already(asked: Registry) -> None:
    held = claim(asked)
    assert held is not None
    with asked.connection() as conn:
        assert operation.put_back(conn, held, after=60, error="later", counts=True) is OperationState.WAITING
        lease.release(conn, held)
        assert claim(asked) is None
        assert operation.bring_forward(conn, TENANT, [ONE]) == [ONE]
    again = claim(asked)
    assert again is not None
    assert again.attempts == 2
    with asked.connection() as conn:
        operation.request(conn, TENANT, ONE, reason="changed meanwhile", actor="test")
        assert operation.put_back(conn, again, after=60, error="x", counts=True) is OperationState.SUPERSEDED


def test_waiting_for_something_outside_counts_as_no_attempt(asked: Registry) -> None:
    for _ in range(3):
        held = claim(asked)
        assert held is not None
        assert held.attempts == 1
        with asked.connection() as conn:
            operation.put_back(conn, held, after=0, error=None, counts=False)
            lease.release(conn, held)


def test_due_names_what_may_be_claimed(asked: Registry) -> None:
    with asked.connection() as conn:
        assert operation.due(conn, limit=10) == [(TENANT, ONE)]
    held = claim(asked, seconds=30)
    assert held is not None
    with asked.connection() as conn:
        assert operation.due(conn, limit=10) == []
        run_out(conn)
        assert operation.due(conn, limit=10) == [(TENANT, ONE)]


def test_of_much_that_is_due_what_a_dead_worker_left_comes_first(registry: Registry) -> None:
    """Or its tenant would wait behind every customer who came meanwhile."""
    died = "t-zzzzzzzzzzzz"
    with registry.connection() as conn:
        for resource in ("t-bbbbbbbbbbbb", "t-aaaaaaaaaaaa", died):
            lease.register(conn, TENANT, resource)
            operation.request(conn, TENANT, resource, reason="test", actor="test")
        held = lease.claim(conn, holder="w1", seconds=30, kind=TENANT, resource_id=died)
        assert lease.claim(conn, holder="w2", seconds=30, orphaned=True) is None
        run_out(conn)
        assert operation.due(conn, limit=2) == [(TENANT, died), (TENANT, "t-bbbbbbbbbbbb")]
        taken = lease.claim(conn, holder="w2", seconds=30, orphaned=True)
        assert held is not None
        assert taken is not None
        assert (taken.operation_id, taken.fencing_token) == (held.operation_id, held.fencing_token + 1)
        assert lease.claim(conn, holder="w3", seconds=30, orphaned=True) is None
