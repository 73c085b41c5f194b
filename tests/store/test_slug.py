"""A slug is one tenant's, whoever founds or renames at the same time, and as long as it redirects."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from controlplane.domain.tenant import Lifecycle, TenantSpec
from controlplane.store import tenant
from controlplane.store.registry import Connection, Registry
from controlplane.store.tenant import SlugTaken
from tests.store.test_route import waits

A, B, C = "t-aaaaaaaaaaaa", "t-bbbbbbbbbbbb", "t-cccccccccccc"
LATER = datetime.now(UTC) + timedelta(days=30)


def found(conn: Connection, tenant_id: str, slug: str) -> None:
    tenant.insert(
        conn,
        tenant_id=tenant_id,
        slug=slug,
        display_name="",
        customer_id="c",
        spec=TenantSpec(Lifecycle.ACTIVE, "team", "active"),
        paid_at=None,
    )


def rename(conn: Connection, tenant_id: str, slug: str, *, until: datetime = LATER) -> None:
    """As the action does: under the lock of its row."""
    with conn.transaction():
        tenant.set_slug(conn, tenant.get(conn, tenant_id, lock=True), slug, until=until)


def test_a_former_slug_is_nobody_elses_until_it_is_released(registry: Registry) -> None:
    with registry.connection() as conn:
        found(conn, A, "old")
        found(conn, B, "other")
        rename(conn, A, "new")
        with pytest.raises(SlugTaken, match=f"slug old is taken: it leads to tenant {A} until"):
            found(conn, C, "old")
        with pytest.raises(SlugTaken):
            rename(conn, B, "old")
        tenant.release_slug(conn, A, "old")
        with pytest.raises(SlugTaken):
            rename(conn, B, "old")
        conn.execute(
            'UPDATE tenant SET former_slugs = \'{"old": "2020-01-01T00:00:00Z"}\' WHERE id = %s', [A]
        )
        with pytest.raises(SlugTaken):
            rename(conn, B, "old")  # its host is this tenant's until it is withdrawn
        tenant.release_slug(conn, A, "old")
        rename(conn, B, "old")
        assert tenant.get(conn, A).former_slugs == {}


def test_its_own_former_slug_is_taken_back(registry: Registry) -> None:
    with registry.connection() as conn:
        found(conn, A, "old")
        rename(conn, A, "new")
        rename(conn, A, "old")
        row = tenant.get(conn, A)
        assert (row.slug, row.former_slugs, row.generation) == ("old", {"new": LATER}, 3)


def test_a_refused_slug_leaves_the_transaction_usable(registry: Registry) -> None:
    with registry.connection() as conn:
        found(conn, A, "old")
        rename(conn, A, "new")
        with conn.transaction():
            for slug in ("old", "new"):
                with pytest.raises(SlugTaken):
                    found(conn, B, slug)
            found(conn, B, "old-bbbbbb")
        assert tenant.get(conn, B).slug == "old-bbbbbb"


def test_a_slug_is_not_at_once_a_tenants_own_and_its_former_one(registry: Registry) -> None:
    with registry.connection() as conn:
        found(conn, A, "old")
        with pytest.raises(psycopg.errors.CheckViolation, match="tenant_slug_not_former"):
            conn.execute('UPDATE tenant SET former_slugs = \'{"old": "2020-01-01T00:00:00Z"}\'')


def test_nobody_takes_a_slug_and_gives_it_up_between_anothers_look_and_its_insert(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of the slugs that tenants have would let the other one in: it is a former one by then."""
    looked, go_on = threading.Event(), threading.Event()
    look = tenant.require_free_slug

    def slow(conn: Connection, slug: str, tenant_id: str | None) -> None:
        look(conn, slug, tenant_id)
        if tenant_id == B:
            looked.set()
            assert go_on.wait(60)

    def to_and_fro(conn: Connection) -> None:
        rename(conn, A, "wanted")
        rename(conn, A, "new")

    monkeypatch.setattr(tenant, "require_free_slug", slow)
    with registry.connection() as conn, registry.connection() as other, ThreadPoolExecutor(2) as threads:
        found(conn, A, "old")
        founding = threads.submit(found, other, B, "wanted")
        assert looked.wait(60)
        renaming = threads.submit(to_and_fro, conn)
        with registry.connection() as watching:
            until = time.monotonic() + 10
            while not renaming.done() and not waits(watching, conn) and time.monotonic() < until:
                time.sleep(0.01)
        go_on.set()
        founding.result(60)
        with pytest.raises(SlugTaken):
            renaming.result(60)


def test_of_many_who_found_and_rename_at_once_no_two_hold_a_slug(registry: Registry) -> None:
    """Holds: has, or redirects from. Two who swap names don't wait for ever either."""
    slugs = [f"slug-{number}" for number in range(5)]
    ids = [f"t-{letter * 12}" for letter in "abcdefgh"]

    def work(tenant_id: str) -> int:
        draw, done = random.Random(tenant_id), 0
        with registry.connection() as conn:
            found(conn, tenant_id, tenant_id)
            for _ in range(60):
                try:
                    rename(conn, tenant_id, draw.choice([*slugs, tenant_id]))
                    done += 1
                except SlugTaken:
                    pass
                except psycopg.errors.CheckViolation:
                    pass  # to the one that it has: the action does not ask for that
                if draw.random() < 0.3:
                    conn.execute(
                        "UPDATE tenant SET former_slugs = former_slugs - %s WHERE id = %s",
                        [draw.choice(slugs), tenant_id],
                    )
        return done

    with ThreadPoolExecutor(4) as threads:
        renamed = list(threads.map(work, ids))
    assert sum(renamed) > 50
    with registry.connection() as conn:
        held = conn.execute(
            "SELECT name, count(DISTINCT id) AS n FROM (SELECT id, slug AS name FROM tenant"
            " UNION ALL SELECT id, jsonb_object_keys(former_slugs) FROM tenant) AS held"
            " GROUP BY name HAVING count(DISTINCT id) > 1"
        ).fetchall()
    assert held == []
