"""The planner's order, and that every plan ends: applying the first step again and again settles."""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.planner import ClusterGoal, TenantGoal, plan_cluster, plan_tenant
from controlplane.domain.status import (
    ClusterStatus,
    CredentialStatus,
    DatabaseStatus,
    HostnameStatus,
    TenantStatus,
)
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle

S = StepName
NOTHING = TenantStatus(
    cluster_ready=False,
    secret_made=False,
    database=None,
    app=CredentialStatus(None, None),
    access_proof=None,
    routes={},
    hostnames=(),
)
READY = replace(NOTHING, cluster_ready=True, database=DatabaseStatus(False, False, False, None))
RECONCILED = TenantStatus(
    cluster_ready=True,
    secret_made=True,
    database=DatabaseStatus(True, True, True, "0002"),
    app=CredentialStatus("v1", "v1"),
    access_proof="p",
    routes={"a.z": {"status": "active"}},
    hostnames=(),
)
ACTIVE = TenantGoal(
    lifecycle=Lifecycle.ACTIVE,
    release="0002",
    access_proof="p",
    routes={"a.z": {"status": "active"}},
    announcement={"a.z": {"status": "provisioning"}},
    domains=(),
    withdrawn=(),
)


def names(steps: list[Step]) -> list[str]:
    return [f"{s.name}:{s.target}" if s.target else str(s.name) for s in steps]


def test_a_new_tenant_is_announced_before_anything_is_waited_for() -> None:
    steps = plan_tenant(replace(ACTIVE, access_proof=None), NOTHING)
    assert names(steps)[:2] == ["announce:a.z", "await_cluster"]


def test_on_a_ready_cluster_everything_follows_in_order() -> None:
    steps = plan_tenant(replace(ACTIVE, access_proof=None), READY)
    assert names(steps) == [
        "announce:a.z",
        "create_database",
        "open_logins",
        "await_secret",
        "write_credential",
        "set_password",
        "migrate_schema",
        "verify_access",
        "publish:a.z",
    ]


def test_a_settled_tenant_has_nothing_left() -> None:
    assert plan_tenant(ACTIVE, RECONCILED) == []


def test_each_difference_alone_yields_its_own_step() -> None:
    database = RECONCILED.database
    assert database is not None
    cases = {
        "await_secret": replace(RECONCILED, secret_made=False),
        "create_database": replace(RECONCILED, database=replace(database, hardened=False)),
        "open_logins": replace(RECONCILED, database=replace(database, logins_open=False)),
        "set_password": replace(RECONCILED, app=CredentialStatus("v2", "v1")),
        "migrate_schema": replace(RECONCILED, database=replace(database, release="0001")),
        "verify_access": replace(RECONCILED, access_proof="old"),
        "publish:a.z": replace(RECONCILED, routes={"a.z": {"status": "provisioning"}}),
    }
    for expected, status in cases.items():
        assert names(plan_tenant(ACTIVE, status)) == [expected]


def test_a_login_is_rotated_when_asked_for_or_old_and_retired_first() -> None:
    goal = replace(ACTIVE, rotate_after=100.0)
    young = CredentialStatus("v1", "v1", generation=4, requested=4, age=99.0)
    cases = {
        (): young,
        ("rotate_credential",): replace(young, requested=5),
        ("retire_login",): replace(young, requested=5, retire_in=-1.0),
        ("set_password",): replace(young, requested=5, password_from="v0"),
    }
    for expected, app in cases.items():
        assert names(plan_tenant(goal, replace(RECONCILED, app=app))) == list(expected)
    old = replace(young, age=100.0)
    assert names(plan_tenant(goal, replace(RECONCILED, app=old))) == ["rotate_credential"]
    assert plan_tenant(goal, replace(RECONCILED, app=replace(old, retire_in=5.0))) == []
    assert plan_tenant(ACTIVE, replace(RECONCILED, app=replace(old, age=1e9))) == []


def test_who_is_suspended_has_logins_retired_and_none_rotated() -> None:
    app = CredentialStatus("v1", "v1", requested=2, age=1e9, retire_in=-1.0)
    goal = replace(ACTIVE, lifecycle=Lifecycle.SUSPENDED, rotate_after=1.0)
    assert names(plan_tenant(goal, replace(RECONCILED, app=app))) == ["close_logins", "retire_login"]
    assert plan_tenant(goal, replace(NOTHING, app=app, routes=RECONCILED.routes)) == []


def test_a_flushed_cache_announces_and_publishes_again() -> None:
    assert names(plan_tenant(ACTIVE, replace(RECONCILED, routes={}))) == ["announce:a.z", "publish:a.z"]


def test_a_host_is_withdrawn_while_it_is_routed_or_its_slug_is_to_be_given_up() -> None:
    goal = replace(ACTIVE, withdrawn=("old.z",))
    for status, released, expected in (
        ("moved", {}, ["withdraw:old.z"]),
        ("moved", {"old.z": "old"}, ["withdraw:old.z"]),
        ("gone", {}, []),
        (None, {}, []),
        ("gone", {"old.z": "old"}, ["withdraw:old.z"]),
        (None, {"old.z": "old"}, ["withdraw:old.z"]),
    ):
        routed = {} if status is None else {"old.z": {"status": status}}
        observed = replace(RECONCILED, routes={**RECONCILED.routes, **routed})
        assert names(plan_tenant(replace(goal, released=released), observed)) == expected


def test_an_unverified_domain_comes_last_and_is_polled_only_when_due() -> None:
    goal = replace(ACTIVE, domains=("www.a.dev",))
    assert names(plan_tenant(goal, RECONCILED)) == ["register_hostname:www.a.dev"]
    pending = HostnameStatus("www.a.dev", "id", "pending", "pending_validation", poll_due=False)
    assert plan_tenant(goal, replace(RECONCILED, hostnames=(pending,))) == []
    due = replace(pending, poll_due=True)
    assert names(plan_tenant(goal, replace(RECONCILED, hostnames=(due,)))) == ["poll_hostname:www.a.dev"]
    refused = HostnameStatus("www.a.dev", None, "new", "new", poll_due=True, refused=True)
    assert plan_tenant(goal, replace(RECONCILED, hostnames=(refused,))) == []


def test_suspending_blocks_the_route_before_it_closes_the_logins() -> None:
    goal = replace(ACTIVE, lifecycle=Lifecycle.SUSPENDED, routes={"a.z": {"status": "suspended"}})
    assert names(plan_tenant(goal, RECONCILED)) == ["publish:a.z", "close_logins"]


def test_closing_withdraws_hosts_then_hostnames_then_logins_and_keeps_the_data() -> None:
    hostname = HostnameStatus("www.a.dev", "id", "active", "active", poll_due=False)
    status = replace(RECONCILED, hostnames=(hostname,))
    goal = replace(ACTIVE, lifecycle=Lifecycle.CLOSED, routes={}, announcement={}, withdrawn=("a.z",))
    assert names(plan_tenant(goal, status)) == ["withdraw:a.z", "remove_hostname:www.a.dev", "close_logins"]


def test_closing_what_was_never_made_makes_nothing() -> None:
    goal = replace(ACTIVE, lifecycle=Lifecycle.CLOSED, routes={}, announcement={}, withdrawn=("a.z",))
    assert plan_tenant(goal, NOTHING) == []


def test_clusters() -> None:
    goal = ClusterGoal(ClusterLifecycle.ACTIVE, "d")
    new = ClusterStatus(None, None, None, hardened=False)
    assert names(plan_cluster(goal, new)) == ["apply_cluster_stack", "await_available", "harden_cluster"]
    assert plan_cluster(goal, ClusterStatus("d", "available", "available", hardened=True)) == []
    failing = ClusterStatus("d", "failed", "available", hardened=True)
    assert names(plan_cluster(goal, failing)) == ["await_available"]


def test_a_closed_cluster_goes_and_its_key_when_no_snapshot_needs_it() -> None:
    goal = ClusterGoal(ClusterLifecycle.CLOSED, "d")
    there = ClusterStatus("d", "available", "available", hardened=True)
    gone = ClusterStatus(None, None, None, hardened=True, destroyed=True)
    assert names(plan_cluster(goal, there)) == ["destroy_cluster_stack"]
    assert names(plan_cluster(goal, replace(there, destroyed=True))) == ["destroy_cluster_stack"], (
        "it is back"
    )
    assert names(plan_cluster(goal, replace(gone, destroyed=False))) == ["destroy_cluster_stack"]
    assert plan_cluster(goal, gone) == []
    keeps = replace(gone, keeps_key=True)
    assert names(plan_cluster(goal, keeps)) == ["destroy_cluster_stack:key"]
    assert plan_cluster(replace(goal, key=True), keeps) == []
    assert plan_cluster(replace(goal, key=True), gone) == []


def test_a_clusters_second_stack_has_what_is_placed_there_and_loses_what_was_released() -> None:
    made = ClusterStatus("d", "available", "available", hardened=True)
    none, three = (ClusterGoal(ClusterLifecycle.ACTIVE, "d", count, "p") for count in (0, 3))
    begun, confirmed = replace(made, placements_digest=""), replace(made, placements_digest="p")
    assert plan_cluster(none, made) == plan_cluster(three, confirmed) == []
    assert names(plan_cluster(none, begun)) == ["apply_placements_stack"], "a killed run may have left some"
    [step] = plan_cluster(three, made)
    assert (step.name, step.reason) == ("apply_placements_stack", "3 placements: no stack is confirmed")
    assert names(plan_cluster(three, replace(confirmed, releasing=True))) == ["apply_placements_stack"]
    assert names(plan_cluster(three, replace(made, status="creating"))) == [
        "apply_placements_stack",
        "await_available",
    ]
    closed = replace(three, lifecycle=ClusterLifecycle.CLOSED)
    assert names(plan_cluster(closed, confirmed)) == ["destroy_placements_stack", "destroy_cluster_stack"]
    assert names(plan_cluster(closed, made)) == ["destroy_cluster_stack"]


def test_the_log_says_whether_a_thing_is_new_or_differs() -> None:
    cluster = ClusterGoal(ClusterLifecycle.ACTIVE, "d")
    made = ClusterStatus("d", "available", "available", hardened=True)
    for digest, why in (
        (None, "no stack is confirmed"),
        ("other", "the stack differs from what is asked for"),
    ):
        assert plan_cluster(cluster, replace(made, stack_digest=digest))[0].reason == why
    database = RECONCILED.database
    assert database is not None
    soft = replace(RECONCILED, database=replace(database, hardened=False))
    none = replace(RECONCILED, database=replace(database, exists=False))
    assert plan_tenant(ACTIVE, soft)[0].reason == "the database is not as hardened as it must be"
    assert plan_tenant(ACTIVE, none)[0].reason == "no database yet"


def test_a_database_is_not_asked_for_before_its_cluster_answers() -> None:
    for status in (replace(RECONCILED, cluster_ready=False), replace(RECONCILED, database=None)):
        assert names(plan_tenant(ACTIVE, status)) == ["await_cluster"]


def test_a_domain_that_cloudflare_never_knew_is_not_removed_there() -> None:
    unknown = HostnameStatus("www.a.dev", None, "new", "new", poll_due=False)
    assert plan_tenant(ACTIVE, replace(RECONCILED, hostnames=(unknown,))) == []
    known = replace(unknown, id="h-1")
    assert names(plan_tenant(ACTIVE, replace(RECONCILED, hostnames=(known,)))) == [
        "remove_hostname:www.a.dev"
    ]
