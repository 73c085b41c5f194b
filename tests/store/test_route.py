"""Routes: a new epoch only when something changed, and a host never has two tenants."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict
from controlplane.store import route
from controlplane.store.registry import Connection, Registry

A, B = "t-aaaaaaaaaaaa", "t-bbbbbbbbbbbb"


@pytest.fixture
def two(registry: Registry) -> Registry:
    with registry.connection() as conn:
        for tenant_id in (A, B):
            conn.execute(
                "INSERT INTO tenant (id, slug, display_name, customer_id, spec) VALUES (%s, %s, '', 'c', %s)",
                [tenant_id, tenant_id, Jsonb({})],
            )
    return registry


def payload(status: str) -> dict[str, Any]:
    return {"host": "h", "status": status}


def test_the_epoch_rises_only_with_a_change(two: Registry) -> None:
    with two.connection() as conn:
        first = route.decide(conn, "h", A, payload("provisioning"))
        assert route.decide(conn, "h", A, payload("provisioning")) == first
        assert route.decide(conn, "h", A, payload("active")) > first


def test_a_host_goes_to_another_tenant_only_once_it_is_given_up_and_with_a_newer_epoch(two: Registry) -> None:
    with two.connection() as conn:
        route.decide(conn, "h", A, payload("active"))
        with pytest.raises(Conflict):
            route.decide(conn, "h", B, payload("active"))
        gone = route.decide(conn, "h", A, payload("gone"))
        assert route.decide(conn, "h", B, payload("active")) > gone
        assert route.of_tenant(conn, A) == {}


def test_a_restored_registry_draws_beyond_what_the_cache_holds(two: Registry) -> None:
    with two.connection() as conn:
        route.decide(conn, "h", A, payload("active"))
        drawn = route.redraw(conn, "h", beyond=1000)
        assert drawn > 1000
        assert route.decide(conn, "x", A, payload("active")) > drawn


def test_the_sequence_of_all_tenants_follows_nobody_far(two: Registry) -> None:
    """What the cache holds comes from outside: one forged epoch would stop every route."""
    with two.connection() as conn:
        last = route.decide(conn, "h", A, payload("active"))
        for forged in (2**48 - 1, 2**53 - 2, last + 2 * route.EPOCH_STEP):
            with pytest.raises(Conflict, match="forged"):
                route.redraw(conn, "h", beyond=forged)
        assert route.find(conn, "h") == (payload("active"), last)
        assert route.decide(conn, "x", A, payload("active")) < last + 10


def test_a_redraw_for_an_epoch_of_the_past_sets_nothing_back(two: Registry) -> None:
    with two.connection() as conn:
        first = route.decide(conn, "h", A, payload("active"))
        last = route.decide(conn, "x", A, payload("active"))
        assert route.redraw(conn, "h", beyond=first) > last


def test_of_two_who_decide_at_once_the_later_has_the_higher_epoch(two: Registry) -> None:
    """An epoch that was drawn before the wait for the row would be the lower one."""
    with two.connection() as conn, two.connection() as other, ThreadPoolExecutor(1) as threads:
        with conn.transaction():
            route.decide(conn, "h", A, payload("provisioning"))
            waiting = threads.submit(route.decide, other, "h", A, payload("suspended"))
            until = time.monotonic() + 60
            while not waits(conn, other):
                assert time.monotonic() < until, "nobody waits for the row"
                time.sleep(0.01)
            before = route.decide(conn, "h", A, payload("active"))
        assert waiting.result(60) > before


def waits(conn: Connection, other: Connection) -> bool:
    row = conn.execute(
        "SELECT FROM pg_locks WHERE pid = %s AND NOT granted", [other.info.backend_pid]
    ).fetchone()
    return row is not None
