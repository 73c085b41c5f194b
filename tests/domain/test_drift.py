"""Eight systems compared with the registry's, one difference at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controlplane.domain import prices
from controlplane.domain.drift import compare, secret_name
from controlplane.domain.finding import Fault, Finding, Repair
from controlplane.domain.placement import Placement
from controlplane.domain.systems import (
    ClusterEntry,
    CustomHostname,
    HostnameEntry,
    Registry,
    StateEntry,
    Subscription,
    Systems,
    TaggedThing,
    TenantEntry,
)
from controlplane.domain.tenant import Lifecycle

A, C = "t-aaaaaaaaaaaa", "c-cccccccccccc"
NOBODY, NOWHERE, LOST = "t-zzzzzzzzzzzz", "c-zzzzzzzzzzzz", "p-zzzzzzzzzzzz"
HOME, OWN = "a.tenants.example", "www.a.dev"
PLACED = Placement("p-aaaaaaaaaaaa", A, C)
ROUTE = {"host": HOME, "tenant_id": A, "status": "active", "epoch": 7}
RDS = "arn:aws:rds:eu-central-1:123456789012"
SECRET = f"arn:aws:secretsmanager:eu-central-1:1:secret:{PLACED.app_secret}-AbCdEf"

REGISTRY = Registry(
    tenants={A: TenantEntry(A, Lifecycle.ACTIVE, made=True, contracts=("sub_a",))},
    current={A: PLACED},
    placements=[PLACED],
    clusters={C: ClusterEntry(C, made=True, destroyed=False)},
    hostnames={OWN: HostnameEntry(OWN, A, registered=True)},
    routes={HOME: ROUTE},
)
AGREED = Systems(
    registry=REGISTRY,
    tagged=[
        TaggedThing(f"{RDS}:cluster:{C}", None, None, C),
        TaggedThing(f"{RDS}:db:{C}-1", None, None, C),
        TaggedThing("arn:aws:kms:eu-central-1:123456789012:key/1", None, None, C),
        TaggedThing(SECRET, A, PLACED.id, C),
    ],
    states=[StateEntry("cluster", C, True, False), StateEntry("placements", C, True, False)],
    secrets={PLACED.app_secret: False},
    roles=[C],
    hostnames=[CustomHostname("id-1", OWN, A)],
    cache={HOME: ROUTE},
    subscriptions={"sub_a": Subscription("sub_a", "active", in_step=True, customer="cus_a")},
    databases={C: ["postgres", PLACED.database]},
)


def reported(systems: Systems, **options: Any) -> list[tuple[str, str, str, str]]:
    return [finding.key for finding in compare(systems, **options)]


def test_books_that_agree_say_nothing() -> None:
    assert compare(AGREED) == []


def test_a_book_that_was_not_read_says_nothing() -> None:
    assert compare(Systems(REGISTRY)) == []


def without(system: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in system.items() if name not in names}


CASES = {
    "a cluster is gone": (
        replace(AGREED, tagged=list(AGREED.tagged or ())[1:]),
        ("AWS", Fault.MISSING, "cluster", C),
        None,
    ),
    "a cluster that nobody has": (
        replace(
            AGREED,
            tagged=[*(AGREED.tagged or ()), TaggedThing(f"{RDS}:cluster:{NOWHERE}", None, None, NOWHERE)],
        ),
        ("AWS", Fault.ORPHAN, "rds cluster", NOWHERE),
        None,
    ),
    "a tagged thing of an unknown placement": (
        replace(
            AGREED,
            tagged=[*(AGREED.tagged or ()), TaggedThing("arn:aws:ec2:e:1:x/1", NOBODY, LOST, C)],
        ),
        ("AWS", Fault.ORPHAN, "ec2 x", "1"),
        None,
    ),
    "a state is lost": (
        replace(AGREED, states=list(AGREED.states or ())[:1]),
        ("Terraform", Fault.MISSING, "placements state", C),
        Repair.REPROVISION_CLUSTER,
    ),
    "a cluster's state is lost": (
        replace(AGREED, states=list(AGREED.states or ())[1:]),
        ("Terraform", Fault.MISSING, "cluster state", C),
        None,
    ),
    "a state that nobody has": (
        replace(AGREED, states=[*(AGREED.states or ()), StateEntry("placements", NOWHERE, True, False)]),
        ("Terraform", Fault.ORPHAN, "placements state", NOWHERE),
        None,
    ),
    "a lock that was left": (
        replace(
            AGREED,
            states=[*list(AGREED.states or ())[:1], StateEntry("placements", C, True, True)],
        ),
        ("Terraform", Fault.ORPHAN, "lock", C),
        None,
    ),
    "a secret is gone": (
        replace(AGREED, secrets=without(AGREED.secrets or {}, PLACED.app_secret)),
        ("Secrets Manager", Fault.MISSING, "secret", PLACED.app_secret),
        Repair.REPROVISION,
    ),
    "a secret waits for its deletion": (
        replace(AGREED, secrets={**(AGREED.secrets or {}), PLACED.app_secret: True}),
        ("Secrets Manager", Fault.MISSING, "secret", PLACED.app_secret),
        Repair.REPROVISION,
    ),
    "a secret that nobody has": (
        replace(AGREED, secrets={**(AGREED.secrets or {}), f"placements/{LOST}/app": False}),
        ("Secrets Manager", Fault.ORPHAN, "secret", f"placements/{LOST}/app"),
        None,
    ),
    "a role is gone": (
        replace(AGREED, roles=[]),
        ("IAM", Fault.MISSING, "role", C),
        Repair.REPROVISION_CLUSTER,
    ),
    "a role that nobody has": (
        replace(AGREED, roles=[C, NOWHERE, "somebody-elses"]),
        ("IAM", Fault.ORPHAN, "role", NOWHERE),
        None,
    ),
    "a secret with another placement's tag": (
        replace(AGREED, tagged=[*list(AGREED.tagged or ())[:3], TaggedThing(SECRET, A, LOST, C)]),
        ("AWS", Fault.DIFFERS, "secret", PLACED.app_secret),
        Repair.REPROVISION,
    ),
    "a secret with another cluster's tag": (
        replace(AGREED, tagged=[*list(AGREED.tagged or ())[:3], TaggedThing(SECRET, A, PLACED.id, NOWHERE)]),
        ("AWS", Fault.DIFFERS, "secret", PLACED.app_secret),
        Repair.REPROVISION,
    ),
    "a secret without tags of a placement": (
        replace(AGREED, tagged=[*list(AGREED.tagged or ())[:3], TaggedThing(SECRET, A, None, None)]),
        ("AWS", Fault.DIFFERS, "secret", PLACED.app_secret),
        Repair.REPROVISION,
    ),
    "a database is gone": (
        replace(AGREED, databases={C: ["postgres"]}),
        ("PostgreSQL", Fault.MISSING, "database", PLACED.database),
        None,
    ),
    "a database that nobody has": (
        replace(AGREED, databases={C: [PLACED.database, "p_zzzzzzzzzzzz", "postgres"]}),
        ("PostgreSQL", Fault.ORPHAN, "database", "p_zzzzzzzzzzzz"),
        None,
    ),
    "a hostname is gone": (
        replace(AGREED, hostnames=[]),
        ("Cloudflare", Fault.MISSING, "custom hostname", OWN),
        Repair.REPROVISION,
    ),
    "a hostname that nobody has": (
        replace(AGREED, hostnames=[*(AGREED.hostnames or ()), CustomHostname("id-2", "old.dev", NOBODY)]),
        ("Cloudflare", Fault.ORPHAN, "custom hostname", "old.dev"),
        Repair.DELETE_HOSTNAME,
    ),
    "a hostname under another's name": (
        replace(AGREED, hostnames=[CustomHostname("id-1", OWN, NOBODY)]),
        ("Cloudflare", Fault.DIFFERS, "custom hostname", OWN),
        None,
    ),
    "a route is gone": (
        replace(AGREED, cache={}),
        ("Cache", Fault.MISSING, "route", HOME),
        Repair.REPUBLISH,
    ),
    "a route differs": (
        replace(AGREED, cache={HOME: {**ROUTE, "status": "suspended"}}),
        ("Cache", Fault.DIFFERS, "route", HOME),
        Repair.REPUBLISH,
    ),
    "a route that somebody forged": (
        replace(AGREED, cache={HOME: None}),
        ("Cache", Fault.DIFFERS, "route", HOME),
        Repair.REPUBLISH,
    ),
    "a route that nobody has": (
        replace(AGREED, cache={HOME: ROUTE, "old.example": {**ROUTE, "tenant_id": NOBODY}}),
        ("Cache", Fault.ORPHAN, "route", "old.example"),
        Repair.WITHDRAW,
    ),
    "a subscription is gone": (
        replace(AGREED, subscriptions={}),
        ("Stripe", Fault.MISSING, "subscription", "sub_a"),
        None,
    ),
    "a subscription is out of step": (
        replace(AGREED, subscriptions={"sub_a": Subscription("sub_a", "canceled", False, "cus_a")}),
        ("Stripe", Fault.DIFFERS, "subscription", "sub_a"),
        Repair.APPLY_CONTRACTS,
    ),
    "somebody pays and has no tenant": (
        replace(
            AGREED,
            subscriptions={
                **(AGREED.subscriptions or {}),
                "sub_b": Subscription("sub_b", "active", False, "cus_b"),
            },
        ),
        ("Stripe", Fault.DIFFERS, "subscription", "sub_b"),
        Repair.APPLY_CONTRACTS,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_difference_alone_is_named(name: str) -> None:
    systems, key, repair = CASES[name]
    (finding,) = compare(systems)
    assert finding.key == key
    assert finding.repair is repair
    assert bool(repair) == bool(finding.target)


@pytest.mark.parametrize("name", CASES)
def test_what_is_worked_on_is_passed_over(name: str) -> None:
    systems, _, _ = CASES[name]
    (finding,) = compare(systems)
    at_work = {finding.owner or finding.name, A, C}
    assert compare(replace(systems, registry=replace(systems.registry, busy=at_work))) == []


def test_one_tenant_alone() -> None:
    systems, key, _ = CASES["a secret is gone"]
    assert reported(systems, tenant_id=A) == [key]
    assert reported(systems, tenant_id=NOBODY) == []


def test_what_costs_most_comes_first() -> None:
    leaks = replace(
        CASES["a cluster that nobody has"][0],
        secrets={**(AGREED.secrets or {}), f"placements/{LOST}/app": False},
        roles=[],
    )
    assert [finding.monthly_usd for finding in compare(leaks)] == [prices.CLUSTER, prices.SECRET, None]
    assert prices.CLUSTER == 43.8


def test_a_closed_tenant_keeps_what_it_has_and_needs_nothing() -> None:
    closed = replace(REGISTRY, tenants={A: replace(REGISTRY.tenants[A], lifecycle=Lifecycle.CLOSED)})
    assert compare(replace(AGREED, registry=closed)) == []
    nothing = replace(AGREED, registry=closed, secrets={}, subscriptions={}, databases={C: []})
    assert compare(nothing) == []


def test_a_tenant_that_was_never_ready_needs_nothing() -> None:
    new = replace(REGISTRY, tenants={A: replace(REGISTRY.tenants[A], made=False)})
    assert compare(replace(AGREED, registry=new, secrets={}, databases={C: []})) == []


def test_a_destroyed_clusters_key_may_wait_for_its_deletion_and_its_instance_may_not() -> None:
    gone = replace(
        REGISTRY,
        current={},
        placements=[],
        tenants={},
        hostnames={},
        routes={},
        clusters={C: replace(REGISTRY.clusters[C], destroyed=True)},
    )
    systems = Systems(gone, tagged=list(AGREED.tagged or ())[:3], states=[])
    assert reported(systems) == [
        ("AWS", Fault.ORPHAN, "rds cluster", C),
        ("AWS", Fault.ORPHAN, "rds db", f"{C}-1"),
    ]


def test_tombstones_are_no_routes() -> None:
    gone = {**ROUTE, "status": "gone"}
    registry = replace(REGISTRY, routes={HOME: ROUTE, "old.example": gone})
    cache = {HOME: ROUTE, "older.example": gone}
    assert compare(replace(AGREED, registry=registry, cache=cache)) == []


def test_a_restored_cluster_is_known_while_it_is_wanted_and_named_when_it_is_left() -> None:
    restored = "c-restoredaaaa"
    entry = ClusterEntry(restored, made=True, destroyed=False, restored=True, restored_for=A)
    there = replace(
        AGREED,
        tagged=[*(AGREED.tagged or ()), TaggedThing(f"{RDS}:cluster:{restored}", None, None, restored)],
        states=[*(AGREED.states or ()), StateEntry("cluster", restored, True, False)],
        databases={**AGREED.databases, restored: [PLACED.database, "p_bbbbbbbbbbbb"]},
    )

    def compared(known: ClusterEntry) -> list[tuple[str, str, str | None]]:
        registry = replace(REGISTRY, clusters={**REGISTRY.clusters, restored: known})
        return [(f.fault, f.name, f.owner) for f in compare(replace(there, registry=registry))]

    assert compared(entry) == []
    assert compared(replace(entry, left_over=True)) == [("orphan", restored, A)]
    assert ("orphan", restored, None) in {
        (f.fault, f.name, None) for f in compare(there) if f.kind == "rds cluster"
    }


# ------------------------------------------------------------------------------- what a finding says


def only(systems: Systems) -> Finding:
    (finding,) = compare(systems)
    return finding


@pytest.mark.parametrize(
    ("many", "named"),
    [(1, "a0"), (5, "a0, a1, a2, a3, a4"), (6, "a0, a1, a2, a3, a4, …")],
)
def test_a_cluster_that_its_last_look_found_changed_is_named_and_left_to_a_person(
    many: int, named: str
) -> None:
    entry = ClusterEntry(C, made=True, destroyed=False, drift=tuple(f"a{n}" for n in range(many)))
    found = only(replace(AGREED, registry=replace(REGISTRY, clusters={C: entry})))
    assert (found.system, found.fault, found.kind, found.name, found.owner) == (
        *("Terraform", Fault.DIFFERS, "cluster"),
        *(C, C),
    )
    assert found.detail == f"not as its stack has it: {named}"
    assert found.repair is None


def test_a_destroyed_cluster_has_no_drift() -> None:
    entry = ClusterEntry(C, made=True, destroyed=True, drift=("a",))
    registry = replace(REGISTRY, clusters={C: entry})
    assert not any(found.fault is Fault.DIFFERS for found in compare(replace(AGREED, registry=registry)))


def test_a_restored_cluster_that_is_lost_is_not_called_a_tenants_home() -> None:
    lost = replace(AGREED, tagged=list(AGREED.tagged or ())[1:])
    assert "restore it from a snapshot" in only(lost).detail
    restored = replace(REGISTRY.clusters[C], restored=True, restored_for=A)
    known = replace(REGISTRY, clusters={C: restored}, current={}, placements=[], tenants={}, hostnames={})
    systems = Systems(replace(known, routes={}), tagged=[])
    assert only(systems).detail.startswith(f"the restore of {A} has nothing to read from")


@pytest.mark.parametrize(
    ("thing", "whose", "owner"),
    [
        (TaggedThing(f"{RDS}:x:1", NOBODY, LOST, C), LOST, NOBODY),
        (TaggedThing(f"{RDS}:x:1", None, None, NOWHERE), NOWHERE, NOWHERE),
        (TaggedThing(f"{RDS}:x:1", None, None, None), "nobody", None),
    ],
)
def test_an_orphan_in_aws_is_told_by_the_nearest_thing_that_it_is_tagged_with(
    thing: TaggedThing, whose: str, owner: str | None
) -> None:
    found = only(replace(AGREED, tagged=[*(AGREED.tagged or ()), thing]))
    assert found.detail.startswith(f"tagged as {whose}'s")
    assert found.owner == owner


@pytest.mark.parametrize(
    ("stack", "workspace", "owner"),
    [("placements", C, C), ("cluster", C, C), ("placements", NOWHERE, NOWHERE)],
)
def test_a_lock_is_its_workspaces_owners(stack: str, workspace: str, owner: str) -> None:
    lock = StateEntry(stack, workspace, present=False, locked=True)
    assert only(replace(AGREED, states=[*(AGREED.states or ()), lock])).owner == owner


def test_a_route_that_differs_names_what_differs_and_who_could_have_signed_it() -> None:
    older = {**ROUTE, "status": "suspended", "epoch": 6}
    found = only(replace(AGREED, cache={HOME: older}))
    assert found.detail == "not what the registry decided: epoch, status"
    as_new = only(replace(AGREED, cache={HOME: {**ROUTE, "status": "suspended"}}))
    assert as_new.detail == (
        "not what the registry decided: status; forged: its epoch 7 is not below the registry's 7"
    )
    unsigned = only(replace(AGREED, cache={HOME: None}))
    assert unsigned.detail == "the entry is not signed with a key of ours"


def test_a_host_that_was_given_up_serves_nobody() -> None:
    gone = replace(REGISTRY, routes={HOME: {**ROUTE, "status": "gone", "epoch": 9}})
    systems = replace(AGREED, registry=gone)
    assert compare(replace(systems, cache={})) == []
    assert compare(replace(systems, cache={HOME: {**ROUTE, "status": "gone"}})) == []
    assert only(systems).detail == f"the host was given up, it leads to {A}"


def test_an_entry_without_our_signature_is_nobodys_and_left_to_a_person() -> None:
    forged = only(replace(AGREED, cache={HOME: ROUTE, "old.example": None}))
    assert (forged.owner, forged.repair, forged.target) == (None, None, "old.example")
    ours = only(replace(AGREED, cache={HOME: ROUTE, "old.example": {**ROUTE, "tenant_id": NOBODY}}))
    assert (ours.owner, ours.repair, ours.target) == (NOBODY, Repair.WITHDRAW, "old.example")


def test_a_subscription_out_of_step_is_told_with_its_tenant() -> None:
    internal = TenantEntry(NOBODY, Lifecycle.ACTIVE, made=True, contracts=(), internal=True)
    registry = replace(REGISTRY, tenants={**REGISTRY.tenants, NOBODY: internal})
    ended = {"sub_a": Subscription("sub_a", "canceled", False, "cus_a")}
    found = only(replace(AGREED, registry=registry, subscriptions=ended))
    assert (found.owner, found.detail) == (A, f"canceled at Stripe, and {A} is active")


def test_somebody_pays_for_a_tenant_as_long_as_one_of_its_contracts_is_there() -> None:
    several = replace(REGISTRY.tenants[A], contracts=("sub_old", "sub_a"))
    systems = replace(AGREED, registry=replace(REGISTRY, tenants={A: several}))
    assert compare(systems) == []
    nobody = replace(REGISTRY, tenants={A: replace(several, contracts=())})
    found = only(replace(AGREED, registry=nobody))
    assert (found.name, found.owner) == (A, A)
    assert found.detail == f"nobody pays for {A}: Stripe has no such subscription"


def test_a_subscription_out_of_step_is_repaired_at_its_customer() -> None:
    def stray(customer: str | None) -> Finding:
        found = {**(AGREED.subscriptions or {}), "sub_b": Subscription("sub_b", "active", False, customer)}
        return only(replace(AGREED, subscriptions=found))

    assert (stray("cus_b").repair, stray("cus_b").target) == (Repair.APPLY_CONTRACTS, "cus_b")
    assert (stray(None).repair, stray(None).target) == (None, "")
    assert stray("cus_b").detail == "active at Stripe, and it has no tenant"


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        (f"arn:aws:secretsmanager:eu-central-1:1:secret:{PLACED.app_secret}-AbCdEf", PLACED.app_secret),
        (f"arn:aws:secretsmanager:eu-central-1:1:secret:{PLACED.app_secret}", None),
        ("arn:aws:secretsmanager:eu-central-1:1:secret:somebody-elses-AbCdEf", None),
        (f"arn:aws:ssm:eu-central-1:1:parameter:{PLACED.app_secret}-AbCdEf", None),
        (PLACED.app_secret, None),
    ],
)
def test_a_tenants_secret_is_known_by_its_arn(arn: str, name: str | None) -> None:
    assert secret_name(arn) == name


@pytest.mark.parametrize("change", [{"made": False}, {"destroyed": True}, {"restored": True}])
def test_a_role_is_missed_where_logins_are_read_with_it(change: dict[str, bool]) -> None:
    entry = replace(REGISTRY.clusters[C], **change)
    registry = replace(REGISTRY, clusters={C: entry})
    assert compare(Systems(registry, roles=[])) == []
