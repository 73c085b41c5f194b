"""Every step done twice, failing before and after its work, begun by another version; and every moment at
which a customer may leave.

The steps are not listed here: what a life of a tenant takes is what is tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controlplane.actions.action import run
from controlplane.domain.errors import Retryable
from controlplane.domain.job import JobKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Phase
from controlplane.localcloud.servers.postgres import PostgresServer
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from controlplane.workers.engine.heartbeat import Heartbeat
from controlplane.workers.engine.run import DEATHS_UNTIL_BACKOFF
from controlplane.workers.steps.registry import CLUSTER_ACTS, TENANT_ACTS
from tests.faults.storm import broken, out_of_step
from tests.harness.engine import NEWER, Harness
from tests.harness.work import do_one, work_once

Act = Callable[[Any], None]


def live(harness: Harness) -> str:
    """Sign up with a domain, get new passwords, be suspended, come back, leave."""
    subscription = harness.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    harness.hear(subscription)
    harness.work(60)
    with harness.ctx.registry.connection() as conn:
        run(conn, "rotate", tenant_id_for(subscription), actor="support", reason="test")
    harness.work(60)
    harness.grace_ends()
    harness.work(60)
    for status in ("unpaid", "active", "canceled"):
        harness.subscribe(1, plan="dedicated", status=status, metadata={"custom_domain": "www.customer.dev"})
        harness.hear(subscription)
        harness.work(60)
    return subscription


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[StepName, Act], Act]], None]:
    """Wrap every act."""

    def wrap(wrapper: Callable[[StepName, Act], Act]) -> None:
        for table in (TENANT_ACTS, CLUSTER_ACTS):
            for name, act in list(table.items()):
                monkeypatch.setitem(table, name, wrapper(name, act))  # type: ignore[arg-type]

    return wrap


MET = {
    StepName.ANNOUNCE,
    StepName.APPLY_CLUSTER_STACK,
    StepName.CREATE_DATABASE,
    StepName.WRITE_CREDENTIAL,
    StepName.SET_PASSWORD,
    StepName.ROTATE_CREDENTIAL,
    StepName.RETIRE_LOGIN,
    StepName.MIGRATE_SCHEMA,
    StepName.VERIFY_ACCESS,
    StepName.PUBLISH,
    StepName.REGISTER_HOSTNAME,
    StepName.CLOSE_LOGINS,
    StepName.OPEN_LOGINS,
    StepName.REMOVE_HOSTNAME,
}
"""Some that a life must have met, so that one in which nothing happens can't pass."""


ANOTHER_EACH_TIME = {StepName.WRITE_CREDENTIAL, StepName.ROTATE_CREDENTIAL}
"""These draw a new password whenever they are done; what keeps them from it is the look before."""


@pytest.mark.fault(19)
def test_every_step_may_be_done_twice(harness: Harness, acts: Callable[..., None]) -> None:
    done: Counter[StepName] = Counter()

    def twice(name: StepName, act: Act) -> Act:
        def both(work: Any) -> None:
            act(work)
            done[name] += 1
            if name not in ANOTHER_EACH_TIME:
                act(work)

        return both

    acts(twice)
    live(harness)
    assert set(done) >= MET
    assert broken(harness) == []
    assert out_of_step(harness) == []


@pytest.mark.fault(20)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_error_at_every_step_is_tried_again(
    harness: Harness, acts: Callable[..., None], *, after: bool
) -> None:
    failed: set[tuple[StepName, str]] = set()

    def once(name: StepName, act: Act) -> Act:
        def failing(work: Any) -> None:
            first = (name, work.step.target) not in failed
            failed.add((name, work.step.target))
            if first and not after:
                raise Retryable(f"{name} fails before its work")
            act(work)
            if first:
                raise Retryable(f"{name} fails after its work")

        return failing

    acts(once)
    live(harness)
    assert {name for name, _ in failed} >= MET
    assert broken(harness) == []
    assert out_of_step(harness) == []


@pytest.mark.fault(36, 37)
def test_what_one_version_began_another_finishes(harness: Harness) -> None:
    """The old one died in a step that the new one does not have, and the new one carries other stacks."""
    subscription = harness.subscribe(1)
    harness.hear(subscription)

    def die(point: str) -> None:
        if point == "databases.create.inside:after":
            raise KeyboardInterrupt

    harness.world._crash = die
    with pytest.raises(KeyboardInterrupt):
        harness.work()
    harness.world._crash = lambda _point: None
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE step SET name = 'create_tenant_schema' WHERE state = 'running'")
    first = harness.terraform.release
    newer = harness.carry(NEWER)
    _succeed(harness)
    harness.pass_time()
    harness.work()
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert broken(harness) == []
    with harness.ctx.registry.connection() as conn:
        states = conn.execute("SELECT state FROM step WHERE name = 'create_tenant_schema'").fetchall()
    assert states == [{"state": "abandoned"}]
    placed = harness.placement(subscription)
    assert (
        newer.applied("cluster", placed.cluster_id) == newer.applied("placements", placed.cluster_id) == first
    )


def _succeed(harness: Harness) -> None:
    """By another process."""
    died = harness.ctx
    died.heartbeat.close()
    lease, every = died.platform.lease, died.platform.heartbeat
    alive = Heartbeat(died.registry, "newer", seconds=lease, every=every)
    harness.ctx = replace(died, holder="newer", heartbeat=alive)


@pytest.mark.fault(34)
def test_an_operation_that_kills_its_workers_slows_down_and_says_so(harness: Harness) -> None:
    """Out of memory at the same step again and again: no worker may be spent on it every few seconds."""
    subscription = harness.subscribe(1)
    other = harness.subscribe(2)
    harness.hear(subscription)
    harness.hear(other)
    doomed = tenant_id_for(subscription)

    def die(point: str) -> None:
        if point == "config_cache.publish:before":
            raise KeyboardInterrupt

    while do_one(harness.ctx, JobKind.INTAKE) is not None:
        pass
    deaths = 0
    harness.world._crash = die
    for _ in range(DEATHS_UNTIL_BACKOFF):
        with pytest.raises(KeyboardInterrupt):
            do_one(harness.ctx, JobKind.TENANT, doomed)
        deaths += 1
        with harness.ctx.registry.connection() as conn:
            conn.execute("UPDATE job SET lease_until = '-infinity' WHERE state = 'running'")
    assert do_one(harness.ctx, JobKind.TENANT, doomed) is not None
    with harness.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT state, error, due_at > clock_timestamp() AS later FROM job WHERE subject = %s",
            [doomed],
        ).fetchone()
    assert row == {"state": "waiting", "error": f"its worker died {deaths} times", "later": True}
    harness.world._crash = lambda _point: None
    while do_one(harness.ctx) is not None:
        pass
    harness.work()
    assert harness.tenant(other).phase is Phase.ACTIVE
    assert harness.tenant(subscription).phase is Phase.ACTIVE
    assert broken(harness) == []


@pytest.mark.fault(58)
def test_a_suspended_tenants_unverified_domain_makes_nobody_look_again_and_again(harness: Harness) -> None:
    subscription = harness.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    harness.hear(subscription)
    work_once(harness.ctx)
    work_once(harness.ctx)
    harness.hostnames.stick("www.customer.dev")
    harness.subscribe(1, plan="dedicated", status="unpaid", metadata={"custom_domain": "www.customer.dev"})
    harness.hear(subscription)
    looks = sum(1 for _ in range(30) if work_once(harness.ctx))
    assert looks < 30, "there is always something to do"
    with harness.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT hostname.status, next_poll_at > clock_timestamp() AS later,"
            " next_observation_at >= next_poll_at - interval '1 second' AS in_step"
            " FROM tenant JOIN hostname ON tenant_id = id"
        ).fetchone()
    assert row == {"status": "pending", "later": True, "in_step": True}


@pytest.mark.fault(59, 60)
@pytest.mark.parametrize("stride", [pytest.param(16), pytest.param(2, marks=pytest.mark.soak)])
def test_a_customer_may_leave_at_any_outside_call(postgres_server: PostgresServer, stride: int) -> None:
    """Cancelled at every so many-th call that a sign-up makes."""
    template = postgres_server.create_database(f"leave_{stride}")
    with Registry(template, size=1) as registry, registry.connection() as conn:
        schema_version.upgrade(conn)
    wrong: list[str] = []
    number, points = 1, 2
    while number < points:
        name = f"leave_{stride}_{number}"
        harness = Harness(postgres_server.create_database(name, template=f"leave_{stride}"))
        where, met = _leave_at(harness, number)
        points = max(points, met)
        wrong += [f"{number} {where}: {what}" for what in (*broken(harness), *out_of_step(harness))]
        harness.close()
        postgres_server.drop_database(name)
        number += stride
    postgres_server.drop_database(f"leave_{stride}")
    assert points > 40
    assert wrong == []


def _leave_at(harness: Harness, number: int) -> tuple[str, int]:
    """The call at which the customer left, and how many calls there were."""
    subscription = harness.subscribe(1, plan="dedicated")
    harness.hear(subscription)
    status: list[str] = []

    def leave(point: str) -> None:
        status.append(point)
        if len(status) == number + 1:
            harness.subscribe(1, plan="dedicated", status="canceled")
            harness.hear(subscription, "customer.subscription.deleted")

    harness.world._crash = leave
    harness.work(60)
    harness.world._crash = lambda _point: None
    return (status[number] if number < len(status) else "never", len(status))
