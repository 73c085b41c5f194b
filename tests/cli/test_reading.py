from dataclasses import replace
from functools import partial

import pytest

from controlplane.domain.catalogue import PoolLimits
from controlplane.domain.pool import Quota
from controlplane.domain.status import Clients, ClusterStatus
from controlplane.services import pool
from controlplane.store import cluster, placement, route, stack
from tests.cli.conftest import Desk
from tests.web.site import CATALOGUE, event


def test_tenants_are_listed_and_shown(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme", domains=("app.acme.example",))
    listed = desk.ok("tenants", "list")
    assert "SLUG" in listed
    assert tenant_id in listed
    shown = desk.ok("tenants", "show", "acme")
    for word in ("pending", "team, active", "acme.tenants.example", "app.acme.example", "waiting", "cname"):
        assert word in shown
    assert desk.json("tenants", "show", "acme") == desk.site.get(f"/v1/tenants/{tenant_id}").json
    assert desk.json("tenants", "list") == desk.site.get("/v1/tenants").json


def test_a_refused_domain_is_shown_with_the_reason(desk: Desk) -> None:
    desk.site.found("sub_1", name="First", domains=("app.acme.example",))
    desk.site.found("sub_2", name="Second", domains=("app.acme.example",))
    shown = desk.ok("tenants", "show", "second")
    for words in ("app.acme.example", "refused", "belongs to another tenant", "hostname-conflict"):
        assert words in shown


def test_limits_and_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.cli.api.PAGE", 2)
    for number in range(5):
        desk.site.found(f"sub_{number}", name=f"Customer {number}")
    three = desk.json("tenants", "list", "--limit", 3)
    assert [item["slug"] for item in three["items"]] == ["customer-0", "customer-1", "customer-2"]
    assert three["next_cursor"] is not None
    everything = desk.json("tenants", "list", "--all")
    assert len(everything["items"]) == 5
    assert everything["next_cursor"] is None
    assert "there are more" in desk.run("tenants", "list", "--limit", 3).stderr
    assert "there are more" not in desk.run("tenants", "list", "--limit", 5).stderr


@pytest.mark.parametrize("noun", ["tenants", "operations", "events", "clusters", "contracts"])
def test_an_empty_listing_says_so(desk: Desk, noun: str) -> None:
    assert desk.ok(noun, "list") == f"no {noun}\n"
    assert desk.json(noun, "list") == {"items": [], "next_cursor": None}


def test_operations_are_filtered_by_slug_and_state(desk: Desk) -> None:
    one = desk.site.found("sub_1", name="Acme")
    desk.site.found("sub_2", name="Other")
    found = desk.json("operations", "list", "--resource", "acme", "--state", "waiting")["items"]
    assert [item["resource"] for item in found] == [one]
    assert desk.json("operations", "list", "--resource", one)["items"] == found
    shown = desk.ok("operations", "show", found[0]["id"])
    assert one in shown
    assert "no steps yet" in shown
    assert desk.json("operations", "show", found[0]["id"])["steps"] == []


def test_everybody_who_asked_for_an_operation_is_shown(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    desk.ok("tenants", "reprovision", "acme", "--reason", "looks odd")
    [item] = desk.json("operations", "list", "--resource", "acme")["items"]
    assert item["cause_count"] == 2
    for command in (("operations", "list"), ("tenants", "show", "acme")):
        assert "a test (+1 more)" in desk.ok(*command)
    shown = desk.ok("operations", "show", item["id"])
    for word in ("ASKED FOR", "looks odd", item["causes"][1]["actor"], item["causes"][1]["request"]):
        assert word in shown


def test_events_are_listed_and_shown(desk: Desk) -> None:
    desk.site.deliver(event("evt_1"))
    desk.site.deliver(event("evt_2", livemode=True))
    assert [item["id"] for item in desk.json("events", "list", "--state", "parked")["items"]] == ["evt_2"]
    assert "evt_1" in desk.ok("events", "list")
    shown = desk.ok("events", "show", "evt_1")
    assert "customer.subscription.created" in shown
    assert '"object": "event"' in shown
    desk.role = "viewer"
    assert '"object": "event"' not in desk.ok("events", "show", "evt_1")


def test_clusters_and_the_summary(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1")
    (cluster,) = desk.json("clusters", "list")["items"]
    assert "1 of 10" in desk.ok("clusters", "list")
    assert tenant_id in desk.ok("clusters", "show", cluster["id"])
    assert desk.json("summary")["clusters"]["total"] == 1
    summary = desk.ok("summary")
    assert "1 pending" in summary
    assert "0 of 1 ready" in summary


def test_a_cluster_says_by_which_release_it_runs(desk: Desk) -> None:
    desk.site.found("sub_1")
    (found,) = desk.json("clusters", "list")["items"]
    show = partial(desk.ok, "clusters", "show", found["id"])
    assert "none yet: the first apply takes the installed one" in show()
    assert "of another release" not in desk.ok("summary")
    with desk.site.registry.connection() as conn:
        stack.record_release(conn, "a" * 64, {}, installed=True)
        cluster.name_release(conn, found["id"], "a" * 64)
        assert f"{'a' * 12}, the installed one" in show()
        stack.record_release(conn, "b" * 64, {}, installed=True)
        assert f"{'a' * 12}; installed is {'b' * 12}" in show()
        assert "of another release" in desk.ok("summary")
        cluster.upgrade(conn, found["id"], "b" * 64)
        assert f"{'b' * 12}, being upgraded from {'a' * 12}, the installed one" in show()
        conn.execute("INSERT INTO stack (workspace, digest, outputs) VALUES (%s, 'x', '{}')", [found["id"]])
        stack.note_drift(conn, found["id"], [{"address": "a.b", "action": "update"}])
    assert "update a.b" in show()
    summary = desk.ok("summary")
    assert "of another release" not in summary
    assert "drifted" in summary


def test_a_cluster_says_who_keeps_it_awake(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1")
    (found,) = desk.json("clusters", "list")["items"]
    assert found["awake"] is None
    show = partial(desk.ok, "clusters", "show", found["id"])
    assert "awake" not in show()
    with desk.site.registry.connection() as conn:
        placed = placement.current(conn, tenant_id)
        assert placed is not None
    theirs = Clients(placed.database, placed.app_roles[0], "billing-export", 2, 7200.0, 3.25)
    ours = Clients("postgres", "platform_master", "", 1, 5.0, None)
    for awake, clients, words in (
        (False, (), ["no, as of"]),
        (True, (), ["kept so by nobody", "rds.logical_replication"]),
        (
            True,
            (theirs, ours),
            [f"2 of billing-export as {theirs.user}, {tenant_id}, connected for 7200.0 s"],
        ),
        (
            True,
            (theirs, ours),
            ["last statement 3.2 s ago", "no tenant (database postgres)", "no statement yet"],
        ),
    ):
        seen = ClusterStatus("d", "available", "available", hardened=True, awake=awake, clients=clients)
        with desk.site.registry.connection() as conn:
            cluster.set_status(conn, found["id"], seen.to_json())
        shown = show()
        assert [word for word in words if word not in shown] == []
    told = desk.json("clusters", "show", found["id"])
    assert (told["awake"], told["clients"][0]["tenant"], told["clients"][1]["tenant"]) == (
        True,
        tenant_id,
        None,
    )
    assert told["clients"][0]["sessions"] == 2
    assert "clients" not in told["status"]


def test_the_warm_pool_says_what_it_has_and_what_holds_it_back(desk: Desk) -> None:
    assert "no worker has looked" in desk.ok("pool", "show")
    limits = PoolLimits(max_clusters=1, max_idle_acu_hours_per_day=96)
    plan = replace(CATALOGUE.plans["team"], warm_slots=30)
    catalogue = replace(CATALOGUE, plans={"team": plan}, pool=limits)
    with desk.site.registry.connection() as conn:
        assert pool.tend(conn, catalogue, lambda row: "", Quota(clusters=9)) == 1
    shown = desk.ok("pool", "show")
    for words in ("team", "2 clusters: pool.max_clusters is 1", "12 ACU hours a day of at most 96", "9 more"):
        assert words in shown
    assert desk.json("pool", "show") == desk.site.get("/v1/pool").json


def test_parked_contracts_are_listed(desk: Desk) -> None:
    desk.site.rows(
        "INSERT INTO contract (id, outcome, reason, first_event_at)"
        " VALUES ('sub_9', 'parked', 'price: unknown', now())"
    )
    assert "price: unknown" in desk.ok("contracts", "list", "--outcome", "parked")


def test_what_a_customer_wrote_steers_no_terminal(desk: Desk) -> None:
    desk.site.found("sub_1", name="Acme")
    desk.site.rows(r"UPDATE tenant SET display_name = E'[red]\x1b[2J evil\nline'")
    shown = desk.ok("tenants", "show", "acme")
    assert "\x1b" not in shown
    assert "[red]?[2J evil?line" in shown


def test_wide_rows_are_never_cut(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    reason = "x" * 900
    desk.site.rows("UPDATE tenant SET needs_attention = %s, runbook = 'aws-quota'", reason)
    (_, row) = desk.ok("tenants", "list").splitlines()
    assert reason in row
    assert tenant_id in row
    assert "aws-quota" in row


def test_a_host_that_is_served_is_shown_as_such(desk: Desk) -> None:
    tenant_id = desk.site.found("sub_1", name="Acme")
    with desk.site.registry.connection() as conn:
        route.decide(conn, "acme.tenants.example", tenant_id, {"status": "active"})
    hosts = [line for line in desk.ok("tenants", "show", "acme").splitlines() if "acme.tenants" in line]
    assert any("active" in line for line in hosts)
