"""Another slug: the new host serves, the old one leads there until its time is over and is then anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from controlplane.actions.action import dry_run, run
from controlplane.domain.errors import Conflict, Invalid
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.tenant import Phase
from controlplane.store import tenant
from controlplane.store.tenant import SlugTaken, TenantRow
from controlplane.workers.steps import routes
from tests.engine.test_life import paid
from tests.harness.engine import ZONE, Harness
from tests.harness.work import do_one, work_once

TENANT = tenant_id_for("sub_00000001")
OLD, NEW = "customer-1", "acme"
DAY = 86_400.0


def rename(harness: Harness, slug: str = NEW, *, tenant_id: str = TENANT, days: int = 30) -> int | None:
    """Its operation."""
    with harness.ctx.registry.connection() as conn:
        begun = run(
            conn, "rename", tenant_id, slug=slug, redirect_days=days, actor="support", reason="new name"
        )
    return begun.operation_id


def row(harness: Harness, tenant_id: str = TENANT) -> TenantRow:
    with harness.ctx.registry.connection() as conn:
        return tenant.get(conn, tenant_id)


def served(harness: Harness, slug: str) -> tuple[str, str | None] | None:
    """What its host's entry says, and where it leads."""
    entry = harness.cache.read(f"{slug}.{ZONE}")
    return None if entry is None else (entry.payload["status"], entry.payload["moved_to"])


def time_is_over(harness: Harness) -> None:
    """The redirections end now, and with them the time until which the look was put off."""
    with harness.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE tenant SET next_observation_at = clock_timestamp(), former_slugs ="
            " (SELECT jsonb_object_agg(key, clock_timestamp()) FROM jsonb_each(former_slugs))"
            " WHERE former_slugs <> '{}'"
        )


def test_the_new_host_serves_and_the_old_one_leads_there(harness: Harness) -> None:
    paid(harness)
    assert harness.write(1, "theirs")
    rename(harness)
    harness.work()
    assert served(harness, NEW) == ("active", None)
    assert served(harness, OLD) == ("moved", f"{NEW}.{ZONE}")
    entry = harness.cache.read(f"{OLD}.{ZONE}")
    assert entry is not None
    assert (entry.payload["database"], entry.payload["profile"]) == (None, {})
    assert harness.rows("sub_00000001") == ["theirs"], "nothing outside is called by it"
    assert row(harness).phase is Phase.ACTIVE
    assert harness.violations() == []
    harness.cache.flush()
    assert routes.publish_all(harness.ctx) == 2
    assert served(harness, OLD) == ("moved", f"{NEW}.{ZONE}")


def test_the_new_host_serves_before_the_old_one_leads_to_it(harness: Harness) -> None:
    paid(harness)
    before = rename(harness)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        steps = conn.execute(
            "SELECT name, target FROM step WHERE operation_id = %s ORDER BY seq", [before]
        ).fetchall()
    assert [(step["name"], step["target"]) for step in steps] == [
        ("announce", f"{NEW}.{ZONE}"),
        ("publish", f"{NEW}.{ZONE}"),
        ("publish", f"{OLD}.{ZONE}"),
    ]


def test_it_ends_by_itself_and_the_old_slug_is_anybodys(harness: Harness) -> None:
    harness.ctx = replace(harness.ctx, platform=replace(harness.ctx.platform, observe_every=400 * DAY))
    paid(harness)
    rename(harness, days=3)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        with pytest.raises(SlugTaken, match=f"it leads to tenant {TENANT} until 2"):
            run(conn, "clone", TENANT, slug=OLD, actor="support", reason="x")
        [due] = conn.execute("SELECT next_observation_at AS at FROM tenant").fetchall()
    late = (due["at"] - row(harness).former_slugs[OLD]).total_seconds()
    assert 0 <= late < 60, "it is looked at when the redirection ends"
    time_is_over(harness)
    work_once(harness.ctx)
    assert served(harness, OLD) == ("gone", None)
    assert served(harness, NEW) == ("active", None)
    assert row(harness).former_slugs == {}
    with harness.ctx.registry.connection() as conn:
        clone_id = run(conn, "clone", TENANT, slug=OLD, actor="support", reason="x").made
    harness.work()
    assert served(harness, OLD) == ("active", None)
    assert row(harness, str(clone_id)).slug == OLD
    assert harness.violations() == []


def test_without_a_redirection_the_old_host_is_gone_at_once(harness: Harness) -> None:
    paid(harness)
    rename(harness, days=0)
    harness.work()
    assert (served(harness, OLD), served(harness, NEW)) == (("gone", None), ("active", None))
    assert row(harness).former_slugs == {}


def test_a_slug_is_taken_back(harness: Harness) -> None:
    """The redirection turns round, and at no moment do the two lead to one another."""
    paid(harness)
    rename(harness)
    harness.work()
    operation = rename(harness, OLD)
    harness.work()
    assert (served(harness, OLD), served(harness, NEW)) == (("active", None), ("moved", f"{OLD}.{ZONE}"))
    assert list(row(harness).former_slugs) == [NEW]
    with harness.ctx.registry.connection() as conn:
        steps = conn.execute(
            "SELECT target FROM step WHERE operation_id = %s AND name = 'publish' ORDER BY seq", [operation]
        ).fetchall()
    assert [step["target"] for step in steps] == [f"{OLD}.{ZONE}", f"{NEW}.{ZONE}"]
    assert harness.violations() == []


def test_all_former_hosts_lead_to_the_last_one(harness: Harness) -> None:
    paid(harness)
    for slug in (NEW, "acme-two"):
        rename(harness, slug)
        harness.work()
    for slug in (OLD, NEW):
        assert served(harness, slug) == ("moved", f"acme-two.{ZONE}")
    assert harness.violations() == []


def test_the_same_slug_again_is_nothing(harness: Harness) -> None:
    paid(harness)
    rename(harness)
    harness.work()
    before = row(harness)
    assert rename(harness, days=300) is None
    assert row(harness) == before
    with harness.ctx.registry.connection() as conn:
        audited = conn.execute("SELECT detail FROM audit WHERE action = 'tenant.slug'").fetchall()
        assert conn.execute("SELECT FROM job WHERE kind = 'tenant'").rowcount == 0
    [[detail]] = [list(row.values()) for row in audited]
    assert (detail["slug"], detail["former_slug"], detail["reason"]) == (NEW, OLD, "new name")


def test_what_is_refused(harness: Harness) -> None:
    subscription = paid(harness)
    paid(harness, 2)
    other = tenant_id_for("sub_00000002")
    rename(harness)
    with harness.ctx.registry.connection() as conn:
        for slug, error in (
            (OLD, SlugTaken),
            (NEW, SlugTaken),
            ("www", Invalid),
            ("t-abcdefghijkl", Invalid),
            ("Acme", Invalid),
        ):
            for ask in (dry_run, partial(run, reason="r")):
                with pytest.raises(error):
                    ask(conn, "rename", other, slug=slug, actor="a")
        for days in (-1, 366, 1.5):
            with pytest.raises(Invalid, match="redirect_days: expected a whole number, 0 to 365"):
                run(conn, "rename", other, slug="free", redirect_days=days, actor="a", reason="r")
    assert row(harness, other).slug == "customer-2"
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    with pytest.raises(Conflict, match="is closed"):
        rename(harness, "too-late")


def test_who_pays_later_does_not_get_a_slug_that_redirects(harness: Harness) -> None:
    paid(harness)
    rename(harness)
    paid(harness, 2, metadata={"slug": OLD})
    assert row(harness, tenant_id_for("sub_00000002")).slug.startswith(f"{OLD}-")
    assert served(harness, OLD) == ("moved", f"{NEW}.{ZONE}")
    assert harness.violations() == []


def test_a_suspended_tenant_is_renamed_too_and_its_old_host_leads_to_its_page(harness: Harness) -> None:
    subscription = paid(harness)
    harness.subscribe(1, status="unpaid")
    harness.hear(subscription)
    harness.work()
    rename(harness)
    harness.work()
    moved = ("moved", f"{NEW}.{ZONE}")
    assert (served(harness, NEW), served(harness, OLD)) == (("suspended", None), moved)
    harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    assert (served(harness, NEW), served(harness, OLD)) == (("active", None), moved)
    assert harness.violations() == []


def test_a_tenant_that_is_not_made_yet_is_renamed_too(harness: Harness) -> None:
    """Its old host was announced, so it leads to the new one."""
    harness.hear(harness.subscribe(1))
    do_one(harness.ctx, JobKind.INTAKE)
    do_one(harness.ctx, JobKind.TENANT, TENANT)
    assert served(harness, OLD) == ("provisioning", None)
    rename(harness)
    harness.work()
    assert (served(harness, NEW), served(harness, OLD)) == (("active", None), ("moved", f"{NEW}.{ZONE}"))
    assert harness.violations() == []


def test_one_that_was_never_announced_gives_its_slug_up_all_the_same(harness: Harness) -> None:
    harness.hear(harness.subscribe(1))
    do_one(harness.ctx, JobKind.INTAKE)
    rename(harness, days=0)
    harness.work()
    assert row(harness).former_slugs == {}
    assert served(harness, NEW) == ("active", None)


def test_who_leaves_redirects_no_longer_and_keeps_the_slug_until_its_end(harness: Harness) -> None:
    """So who comes back in time finds the old host leading to it again."""
    subscription = paid(harness)
    rename(harness, days=3)
    harness.work()
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    assert (served(harness, NEW), served(harness, OLD)) == (("gone", None), ("gone", None))
    assert list(row(harness).former_slugs) == [OLD]
    harness.revive(1)
    harness.work()
    assert (served(harness, NEW), served(harness, OLD)) == (("active", None), ("moved", f"{NEW}.{ZONE}"))
    harness.subscribe(1, status="canceled")
    harness.hear(subscription)
    harness.work()
    time_is_over(harness)
    work_once(harness.ctx)
    assert row(harness).former_slugs == {}
    assert served(harness, OLD) == ("gone", None)


def test_a_custom_domain_is_served_on(harness: Harness) -> None:
    paid(harness, metadata={"custom_domain": "www.customer.dev"})
    harness.work()
    for _ in range(6):
        harness.pass_time()
        with harness.ctx.registry.connection() as conn:
            conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")
        work_once(harness.ctx)
    rename(harness)
    harness.work()
    entry = harness.cache.read("www.customer.dev")
    assert entry is not None
    assert (entry.payload["status"], entry.payload["slug"]) == ("active", NEW)


def test_a_dry_run_changes_nothing(harness: Harness) -> None:
    paid(harness)
    before = row(harness)
    with harness.ctx.registry.connection() as conn:
        found = dry_run(conn, "rename", TENANT, slug=NEW, redirect_days=3, actor="support")
        at_once = dry_run(conn, "rename", TENANT, slug=NEW, redirect_days=0, actor="support")
    assert isinstance(found, Mapping)
    assert isinstance(at_once, Mapping)
    assert (found["slug"], found["former_slug"]) == (NEW, OLD)
    until = datetime.fromisoformat(str(found["redirects_until"]))
    assert abs(until - datetime.now(UTC) - timedelta(days=3)) < timedelta(minutes=5)
    assert at_once["redirects_until"] is None
    assert row(harness) == before
