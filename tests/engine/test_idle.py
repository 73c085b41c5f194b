"""A cluster that pauses stays paused as long as nobody changes anything: every way there is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Retryable
from controlplane.localcloud.fakes.aws import LOGICAL_GROUP, FakeAccount
from controlplane.localcloud.fakes.databases import DATABASE
from controlplane.store import cluster
from controlplane.workers.drift.verify import verify
from controlplane.workers.schedule.duties import DUTIES
from tests.harness.engine import Harness

FIRST, SECOND = "sub_00000001", "sub_00000002"


@pytest.fixture
def asleep(harness: Harness) -> Harness:
    """Two tenants on a shared cluster that has paused."""
    plan = replace(harness.ctx.catalogue.plan("shared"), min_acu=0, seconds_until_auto_pause=300)
    catalogue = replace(harness.ctx.catalogue, plans={**harness.ctx.catalogue.plans, "shared": plan})
    # A parameter group with logical replication would keep it awake.
    platform = replace(harness.ctx.platform, cluster_parameter_group=None)
    harness.ctx = replace(harness.ctx, catalogue=catalogue, platform=platform)
    for number in (1, 2):
        harness.hear(harness.subscribe(number), "customer.subscription.created")
    harness.work()
    assert harness.violations() == []
    sleep(harness)
    return harness


def sleep(harness: Harness) -> None:
    at = harness.endpoint(harness.placement(FIRST))
    harness.databases.idle(at)
    assert not harness.databases.awake(at)


def renewal(harness: Harness) -> None:
    harness.subscribe(1, current_period_end=1_900_000_000)
    harness.hear(FIRST)
    harness.hear(FIRST, "invoice.paid")


def another_name(harness: Harness) -> None:
    """Its routes say so, its database does not."""
    harness.subscribe(1, metadata={"name": "Another"})
    harness.hear(FIRST)


def own_domain(harness: Harness) -> None:
    harness.subscribe(1, metadata={"custom_domain": "www.customer.dev"})
    harness.hear(FIRST)


def periodic_look(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")


def look_at_the_cluster(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE cluster SET observed_at = clock_timestamp() - interval '2 days'")


def duties(harness: Harness) -> None:
    for duty in DUTIES.values():
        duty.do(harness.ctx)


def drift_report(harness: Harness) -> None:
    assert verify(harness.ctx).findings == ()


@pytest.mark.parametrize(
    "act",
    [renewal, another_name, own_domain, periodic_look, look_at_the_cluster, duties, drift_report],
    ids=lambda act: act.__name__,
)
@pytest.mark.parametrize("status", ["active", "unpaid", "canceled"])
def test_whatever_changes_nothing_opens_no_connection(
    asleep: Harness, act: Callable[[Harness], None], status: str
) -> None:
    if status != "active":
        asleep.subscribe(2, status=status)
        asleep.hear(SECOND)
        asleep.work()
        sleep(asleep)
    at = asleep.endpoint(asleep.placement(FIRST))
    before = asleep.databases.connections(at)
    for _ in range(2):
        act(asleep)
        asleep.work()
    assert asleep.databases.connections(at) == before
    assert not asleep.databases.awake(at)
    with asleep.ctx.registry.connection() as conn:
        looked = [found.observed_at for found in cluster.living(conn)]
    assert None not in looked


def test_a_cluster_says_who_keeps_it_awake(asleep: Harness) -> None:
    """By a look at it, which wakes nobody and opens a connection only beside others."""
    placed, other = asleep.placement(FIRST), asleep.placement(SECOND)
    at, secret = asleep.endpoint(placed), asleep.ctx.providers.secrets.read(placed.app_secret)

    def seen() -> tuple[bool | None, list[str]]:
        look_at_the_cluster(asleep)
        asleep.work()
        with asleep.ctx.registry.connection() as conn:
            status = cluster.get(conn, placed.cluster_id).status or {}
        return status["awake"], [client["user"] for client in status["clients"]]

    assert seen() == (False, [])
    assert not asleep.databases.awake(at)
    asleep.databases.stay(at, secret)
    assert seen() == (True, [placed.app_roles[0]])
    asleep.databases.leave(at, secret)
    before = asleep.databases.connections(at)
    assert seen() == (True, [])
    assert asleep.databases.connections(at) == before
    sleep(asleep)
    asleep.ctx.providers.secrets.read(other.app_secret)
    assert seen() == (False, [])


def test_a_look_goes_on_where_nobody_tells_who_it_is(asleep: Harness) -> None:
    placed = asleep.placement(FIRST)
    asleep.ctx.providers.clusters.activity = _denied  # type: ignore[method-assign]
    look_at_the_cluster(asleep)
    asleep.work()
    with asleep.ctx.registry.connection() as conn:
        row = cluster.get(conn, placed.cluster_id)
    assert row.needs_attention is None
    assert (row.status or {})["awake"] is None
    assert verify(asleep.ctx).not_asked == (
        f"the databases of {placed.cluster_id}: whether it is paused is not known: no answer",
    )


def _denied(cluster_id: str) -> None:
    raise Retryable("no answer")


# --------------------------------------------------------------------- what must wake it all the same


def suspension(harness: Harness) -> None:
    harness.subscribe(1, status="unpaid")
    harness.hear(FIRST)


def distrust(harness: Harness) -> None:
    """Somebody has changed it by hand, and support has it looked at."""
    placed = harness.placement(FIRST)
    harness.databases.close_logins(harness.endpoint(placed), placed)
    sleep(harness)
    with harness.ctx.registry.connection() as conn:
        run(conn, "reprovision", placed.tenant_id, actor="support", reason="look")


def rotation(harness: Harness) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "rotate", harness.placement(FIRST).tenant_id, actor="support", reason="leaked")


def older_release(harness: Harness) -> None:
    """It was not at what its tenant is to have when it was observed last."""
    placed = harness.placement(FIRST)
    at = harness.endpoint(placed)
    key = f"{at.host}:{at.port}/{placed.database}"
    found = harness.world.get(DATABASE, key)
    del found["migrations"]["0002"]
    harness.world.put(DATABASE, key, found)
    with harness.ctx.registry.connection() as conn:
        conn.execute("""UPDATE tenant SET status = jsonb_set(status, '{database,release}', '"0001"')""")
    another_name(harness)


@pytest.mark.parametrize("act", [suspension, distrust, rotation, older_release], ids=lambda act: act.__name__)
def test_what_changes_the_database_finds_it_as_it_is(asleep: Harness, act: Callable[[Harness], None]) -> None:
    placed = asleep.placement(FIRST)
    at = asleep.endpoint(placed)
    before = asleep.databases.connections(at)
    act(asleep)
    asleep.work()
    assert asleep.databases.connections(at) > before
    assert asleep.violations() == []
    found = asleep.databases.observe(at, placed)
    assert (found.logins_open, found.release) == (act is not suspension, "0002")
    assert asleep.lets_in(placed) is (act is not suspension)
    assert verify(asleep.ctx, wake=True).findings == ()


def test_what_was_observed_of_the_last_home_is_not_taken_for_the_new_one(asleep: Harness) -> None:
    group = replace(asleep.ctx.platform, cluster_parameter_group=LOGICAL_GROUP)
    asleep.ctx = replace(asleep.ctx, platform=group)  # without it nothing can be moved
    old = asleep.placement(FIRST)
    account = FakeAccount(asleep.world)
    account.change("cluster", old.cluster_id, parameter_group=LOGICAL_GROUP)
    assert asleep.write(1, "a row")
    with asleep.ctx.registry.connection() as conn:
        run(conn, "move", old.tenant_id, to="shared", actor="support", reason="test")
    asleep.work()
    new = asleep.placement(FIRST)
    assert new.cluster_id != old.cluster_id
    with asleep.ctx.registry.connection() as conn:
        run(conn, "confirm-transfer", old.tenant_id, actor="support", reason="test")
    asleep.work()
    assert asleep.violations() == []
    assert (asleep.rows(FIRST), asleep.lets_in(new)) == (["a row"], True)
