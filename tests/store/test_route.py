"""Routes: a new epoch only when something changed, and a host never has two tenants."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from controlplane.domain.errors import Conflict
from controlplane.store import route
from controlplane.store.registry import Registry

A, B = "t-aaaaaaaaaaaa", "t-bbbbbbbbbbbb"


@pytest.fixture
def two(registry: Registry) -> Registry:
    with registry.connection() as conn:
        for tenant_id in (A, B):
            conn.execute(
                "INSERT INTO tenant (id, slug, display_name, customer_id, desired)"
                " VALUES (%s, %s, '', 'c', %s)",
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
