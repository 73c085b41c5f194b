"""Ten inconsistencies planted beside two tenants; each is found, named, and repaired where it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from controlplane.domain.errors import Retryable
from controlplane.domain.finding import Fault, Finding, Repair
from controlplane.domain.placement import Placement
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.localcloud.fakes.config_cache import ENTRY
from controlplane.localcloud.fakes.custom_hostnames import HOSTNAME
from controlplane.localcloud.fakes.databases import DATABASE
from controlplane.localcloud.fakes.terraform import STATE
from controlplane.workers.drift.repairs import repair
from controlplane.workers.drift.verify import Report, verify
from tests.harness.engine import ZONE, Harness

NOBODY, NOWHERE = "t-zzzzzzzzzzzz", "c-zzzzzzzzzzzz"
LOST = "p-zzzzzzzzzzzz"
DOMAIN = "www.customer.dev"
HOST = f"customer-1.{ZONE}"


@pytest.fixture
def placed(harness: Harness) -> Placement:
    """Two tenants on one shared cluster; the first has a domain of its own."""
    for number, metadata in ((1, {"custom_domain": DOMAIN}), (2, {})):
        subscription = harness.subscribe(number, metadata=metadata)
        harness.hear(subscription, "customer.subscription.created")
    harness.work()
    for _ in range(4):
        harness.pass_time()
        harness.grace_ends()
        harness.work()
    return harness.placement("sub_00000001")


def look(harness: Harness, **options: object) -> Report:
    return verify(harness.ctx, **options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plant:
    """`plant` makes the fault; `repaired`: whether `--repair` and the engine bring the harness back."""

    system: str
    fault: Fault
    kind: str
    name: Callable[[Placement], str]
    plant: Callable[[Harness, Placement], object]
    repaired: bool


def orphan_cluster(harness: Harness, _: Placement) -> None:
    FakeAccount(harness.world).make("cluster", NOWHERE, status="available")


def lost_secret(harness: Harness, placed: Placement) -> None:
    FakeAccount(harness.world).delete("secret", placed.app_secret)


def orphan_secret(harness: Harness, _: Placement) -> None:
    account = FakeAccount(harness.world)
    account.make("secret", f"placements/{LOST}/app", versions={}, current=None, deleting=False)


def breach(harness: Harness, placed: Placement) -> None:
    other = harness.placement("sub_00000002")
    harness.databases.breach(harness.endpoint(placed), placed.app_roles[0], other.database)


def another_database(harness: Harness, placed: Placement) -> None:
    at = harness.endpoint(placed)
    database = {"placement": LOST, "tenant": NOBODY, "accepts": True, "doors": True, "migrations": {}}
    harness.world.put(DATABASE, f"{at.host}:{at.port}/p_zzzzzzzzzzzz", database)


def says(harness: Harness, placed: Placement, **identity: str) -> None:
    at = harness.endpoint(placed)
    key = f"{at.host}:{at.port}/{placed.database}"
    harness.world.put(DATABASE, key, harness.world.get(DATABASE, key) | identity)


def stale_route(harness: Harness, _: Placement) -> None:
    entry = harness.cache.read(HOST)
    assert entry is not None
    harness.world.put(ENTRY, HOST, {**entry.payload, "status": "suspended", "database": None})


def forgotten_route(harness: Harness, _: Placement) -> None:
    entry = harness.cache.read(HOST)
    assert entry is not None
    harness.cache.publish({**entry.payload, "host": f"old.{ZONE}", "tenant_id": NOBODY})


def missing(harness: Harness, _: Placement) -> None:
    harness.subscribe(3)


def open_role(harness: Harness, placed: Placement) -> None:
    FakeAccount(harness.world).change("policy", placed.cluster_id, opens="all")


def retagged_secret(harness: Harness, placed: Placement) -> None:
    """As nobody's: with another's tag that one's session would open it."""
    FakeAccount(harness.world).change("secret", placed.app_secret, placement="p-zzzzzzzzzzzz")


PLANTS = {
    "cluster": Plant("AWS", Fault.ORPHAN, "rds cluster", lambda _: NOWHERE, orphan_cluster, False),
    "lost secret": Plant(
        "Secrets Manager", Fault.MISSING, "secret", lambda p: p.app_secret, lost_secret, True
    ),
    "orphan secret": Plant(
        "Secrets Manager", Fault.ORPHAN, "secret", lambda _: f"placements/{LOST}/app", orphan_secret, False
    ),
    "lost role": Plant(
        "IAM",
        Fault.MISSING,
        "role",
        lambda p: p.cluster_id,
        lambda harness, p: (
            harness.world.drop("aws-role", p.cluster_id),
            harness.world.drop("aws-policy", p.cluster_id),
        ),
        True,
    ),
    "lost state": Plant(
        "Terraform",
        Fault.MISSING,
        "placements state",
        lambda p: p.cluster_id,
        lambda harness, p: harness.world.drop(STATE, f"placements/{p.cluster_id}"),
        True,
    ),
    "orphan state": Plant(
        "Terraform",
        Fault.ORPHAN,
        "cluster state",
        lambda _: NOWHERE,
        lambda harness, _: harness.world.put(STATE, f"cluster/{NOWHERE}", {"things": {}}),
        False,
    ),
    "lost hostname": Plant(
        "Cloudflare",
        Fault.MISSING,
        "custom hostname",
        lambda _: DOMAIN,
        lambda harness, _: harness.world.drop(HOSTNAME, DOMAIN),
        False,
    ),
    "orphan hostname": Plant(
        "Cloudflare",
        Fault.ORPHAN,
        "custom hostname",
        lambda _: "old.customer.dev",
        lambda harness, _: harness.hostnames.put("old.customer.dev", tenant_id=NOBODY),
        True,
    ),
    "stale route": Plant("Cache", Fault.DIFFERS, "route", lambda _: HOST, stale_route, True),
    "forgotten route": Plant("Cache", Fault.ORPHAN, "route", lambda _: f"old.{ZONE}", forgotten_route, True),
    "unheard subscription": Plant(
        "Stripe", Fault.DIFFERS, "subscription", lambda _: "sub_00000003", missing, True
    ),
    "orphan database": Plant(
        "PostgreSQL", Fault.ORPHAN, "database", lambda _: "p_zzzzzzzzzzzz", another_database, False
    ),
    "another placement": Plant(
        "PostgreSQL",
        Fault.BREACH,
        "identity",
        lambda p: p.database,
        lambda harness, p: says(harness, p, placement=LOST),
        False,
    ),
    "another tenant": Plant(
        "PostgreSQL",
        Fault.BREACH,
        "identity",
        lambda _: "p_",
        lambda harness, _: says(harness, harness.placement("sub_00000002"), tenant=NOBODY),
        False,
    ),
    "open role": Plant("IAM", Fault.BREACH, "role", lambda p: p.cluster_id, open_role, False),
    "retagged secret": Plant("AWS", Fault.DIFFERS, "secret", lambda p: p.app_secret, retagged_secret, True),
    "open wall": Plant("PostgreSQL", Fault.BREACH, "login", lambda p: p.app_roles[0], breach, False),
}


def test_a_fleet_in_order_has_no_findings_and_its_walls_hold(harness: Harness, placed: Placement) -> None:
    report = look(harness)
    assert report.findings == ()
    assert report.unread == report.untried == ()
    # Each login on the other's database, on postgres and on template1; each session on the other's secret,
    # and one without a tag on that and its own.
    assert report.tried == 2 * 3 + 2 * (1 + 2)
    assert report.monthly_usd == 0


@pytest.mark.parametrize("name", PLANTS)
def test_one_planted_fault_is_the_one_finding(harness: Harness, placed: Placement, name: str) -> None:
    plant = PLANTS[name]
    plant.plant(harness, placed)
    (finding,) = look(harness).findings
    assert (finding.system, finding.fault, finding.kind) == (plant.system, plant.fault, plant.kind)
    assert finding.name.startswith(plant.name(placed))
    repair(harness.ctx, [finding])
    harness.work()
    left = look(harness).findings
    assert (left == ()) is plant.repaired
    if finding.repair is None:
        assert left == (finding,)


def test_ten_at_once_are_all_named(harness: Harness, placed: Placement) -> None:
    several = [
        plant
        for name, plant in PLANTS.items()
        if name not in ("lost secret", "lost role", "lost state", "stale route")
    ]
    assert len(several) >= 10
    for plant in several:
        plant.plant(harness, placed)
    report = look(harness)
    found = {(f.system, f.fault, f.kind) for f in report.findings}
    assert found == {(p.system, p.fault, p.kind) for p in several}
    assert len(report.findings) == len(several)
    assert report.monthly_usd == 44.3
    assert {finding.fault for finding in report.findings[:4]} == {Fault.BREACH}
    assert report.findings[4].name == NOWHERE


def test_a_fault_that_is_gone_at_the_second_look_is_not_mended(harness: Harness, placed: Placement) -> None:
    PLANTS["orphan hostname"].plant(harness, placed)
    first = look(harness)
    harness.hostnames.delete(first.findings[0].target)
    PLANTS["stale route"].plant(harness, placed)
    second = look(harness)
    assert [finding.system for finding in second.findings] == ["Cache"]
    assert first.confirmed_by(second) == []


def test_no_repair_touches_what_has_become_somebodys(harness: Harness, placed: Placement) -> None:
    hostname = harness.hostnames.find(DOMAIN)
    entry = harness.cache.read(HOST)
    assert hostname is not None
    assert entry is not None
    wrong = [
        Finding(
            "Cloudflare",
            Fault.ORPHAN,
            "custom hostname",
            DOMAIN,
            "",
            placed.tenant_id,
            None,
            Repair.DELETE_HOSTNAME,
            hostname.id,
        ),
        Finding("Cache", Fault.ORPHAN, "route", HOST, "", repair=Repair.WITHDRAW, target=HOST),
        Finding(
            "Cache", Fault.MISSING, "route", "x.example", "", repair=Repair.REPUBLISH, target="x.example"
        ),
    ]
    assert [what for _, what in repair(harness.ctx, wrong)] == [
        "a tenant has it by now",
        "the registry routes it by now",
        "the registry no longer routes it",
    ]
    assert harness.hostnames.find(DOMAIN) is not None
    assert harness.cache.read(HOST) == entry
    assert look(harness).findings == ()


def test_repairs_are_audited_and_one_tenant_is_asked_for_once(harness: Harness, placed: Placement) -> None:
    PLANTS["retagged secret"].plant(harness, placed)
    FakeAccount(harness.world).change("secret", placed.app_secret, deleting=True)
    report = look(harness)
    done = repair(harness.ctx, report.findings)
    assert len(done) == 2
    assert len({what for _, what in done}) == 1
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute(
            "SELECT actor, resource FROM audit WHERE action = 'verify.reprovision'"
        ).fetchall()
    assert rows == [{"actor": "verify", "resource": placed.tenant_id}]


def test_a_system_that_is_down_is_told_of_and_the_others_still_count(
    harness: Harness, placed: Placement
) -> None:
    PLANTS["orphan secret"].plant(harness, placed)
    harness.cache.down()
    harness.hostnames.fail(Retryable("Cloudflare can't be reached"))
    report = look(harness)
    assert [finding.system for finding in report.findings] == ["Secrets Manager"]
    assert [line.split(":")[0] for line in report.unread] == ["Cloudflare", "the cache"]


def test_one_tenant_is_looked_at_alone(harness: Harness, placed: Placement) -> None:
    for name in ("lost secret", "cluster", "open wall"):
        PLANTS[name].plant(harness, placed)
    report = look(harness, tenant_id=placed.tenant_id)
    assert {finding.owner for finding in report.findings} == {placed.tenant_id}
    assert [
        finding.owner
        for finding in look(harness, tenant_id=harness.placement("sub_00000002").tenant_id).findings
    ] == []


def test_a_cluster_that_pauses_is_not_woken_unless_asked(harness: Harness, placed: Placement) -> None:
    """Neither woken nor kept awake, and its databases are not said to agree."""
    at, secret = harness.endpoint(placed), harness.ctx.providers.secrets.read(placed.app_secret)
    account = FakeAccount(harness.world)
    account.change("cluster", placed.cluster_id, min_acu=0, auto_pause=300, parameter_group=None)
    with harness.ctx.registry.connection() as conn:
        conn.execute("""UPDATE cluster SET spec = spec || '{"seconds_until_auto_pause": 300}'""")
    left_alone = f"the databases of {placed.cluster_id}: "
    for idle, why in ((False, "nobody is connected, and it is about to pause"), (True, "it is paused")):
        if idle:
            harness.databases.idle(at)
        before = harness.databases.connections(at)
        report = look(harness)
        assert (report.tried, report.findings, report.unread) == (6, (), ())
        assert report.not_asked == (left_alone + why,)
        assert harness.databases.connections(at) == before
    woken = look(harness, wake=True)
    assert (woken.tried, woken.not_asked) == (12, ())
    harness.databases.stay(at, secret)
    assert look(harness).tried == 12, "it is awake, and not for our sake"


def test_nothing_is_said_about_what_is_under_way(harness: Harness) -> None:
    subscription = harness.subscribe(1)
    harness.hear(subscription)
    seen: list[tuple[Finding, ...]] = []

    def between(point: str) -> None:
        if point.endswith(":after") and not point.startswith("inventory") and len(seen) < 60:
            harness.world._crash = lambda _point: None
            seen.append(look(harness).findings)
            harness.world._crash = between

    harness.world._crash = between
    harness.work()
    harness.world._crash = lambda _point: None
    assert len(seen) >= 20
    assert [found for found in seen if found] == []
    assert look(harness).findings == ()


def test_findings_are_values(harness: Harness, placed: Placement) -> None:
    PLANTS["orphan secret"].plant(harness, placed)
    (finding,) = look(harness).findings
    assert dataclasses.asdict(finding)["fault"] == "orphan"


def test_an_application_secret_with_anothers_tag_is_a_breach(harness: Harness, placed: Placement) -> None:
    other = harness.placement("sub_00000002")
    FakeAccount(harness.world).change("secret", other.app_secret, placement=placed.id)
    report = look(harness)
    assert {(f.system, f.fault, f.name) for f in report.findings} == {
        ("IAM", Fault.BREACH, placed.cluster_id),
        ("AWS", Fault.DIFFERS, other.app_secret),
    }
    breach = next(f for f in report.findings if f.fault is Fault.BREACH)
    assert f"{other.app_secret} as {placed.id}" in breach.detail
    assert len(report.untried) == 1  # the other one no longer opens its own
