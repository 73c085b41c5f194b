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

from controlplane.domain.errors import Retryable
from controlplane.domain.operation import ResourceKind
from controlplane.domain.placement import tenant_id_for
from controlplane.domain.steps import StepName
from controlplane.domain.tenant import Phase
from controlplane.services import tenants
from controlplane.store import schema_version
from controlplane.store.registry import Registry
from localcloud.servers.postgres import PostgresServer
from tests.engine.house import House
from tests.faults.storm import broken, out_of_step
from workers.engine.converge import ORPHANED_UNTIL_BACKOFF, converge
from workers.jobs import intake
from workers.runtime import polling
from workers.steps.registry import CLUSTER_ACTS, TENANT_ACTS

Act = Callable[[Any], None]


def live(house: House) -> str:
    """Sign up with a domain, get new passwords, be suspended, come back, leave."""
    subscription = house.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription)
    house.work(60)
    with house.ctx.registry.connection() as conn:
        tenants.rotate(conn, tenant_id_for(subscription), actor="support", reason="test")
    house.work(60)
    house.grace_ends()
    house.work(60)
    for status in ("unpaid", "active", "canceled"):
        house.subscribe(1, plan="dedicated", status=status, metadata={"custom_domain": "www.customer.dev"})
        house.hear(subscription)
        house.work(60)
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
    StepName.APPLY_TENANT_STACK,
    StepName.CREATE_DATABASE,
    StepName.WRITE_CREDENTIAL,
    StepName.SET_PASSWORD,
    StepName.ROTATE_CREDENTIAL,
    StepName.RETIRE_LOGIN,
    StepName.MIGRATE_SCHEMA,
    StepName.PROVE,
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
def test_every_step_may_be_done_twice(house: House, acts: Callable[..., None]) -> None:
    done: Counter[StepName] = Counter()

    def twice(name: StepName, act: Act) -> Act:
        def both(work: Any) -> None:
            act(work)
            done[name] += 1
            if name not in ANOTHER_EACH_TIME:
                act(work)

        return both

    acts(twice)
    live(house)
    assert set(done) >= MET
    assert broken(house) == []
    assert out_of_step(house) == []


@pytest.mark.fault(20)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_error_at_every_step_is_tried_again(
    house: House, acts: Callable[..., None], *, after: bool
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
    live(house)
    assert {name for name, _ in failed} >= MET
    assert broken(house) == []
    assert out_of_step(house) == []


@pytest.mark.fault(36, 37)
def test_what_one_version_began_another_finishes(house: House) -> None:
    """The old one died in a step that the new one does not have, and the stack has changed."""
    subscription = house.subscribe(1)
    house.hear(subscription)

    def die(point: str) -> None:
        if point == "databases.create.inside:after":
            raise KeyboardInterrupt

    house.world._crash = die
    with pytest.raises(KeyboardInterrupt):
        house.work()
    house.world._crash = lambda _point: None
    with house.ctx.registry.connection() as conn:
        conn.execute("UPDATE step SET name = 'create_tenant_schema' WHERE state = 'running'")
    house.ctx = replace(house.ctx, stacks={"cluster": "s2", "tenant": "s2"}, holder="newer")
    house.pass_time()
    house.work()
    assert house.tenant(subscription).phase is Phase.ACTIVE
    assert broken(house) == []
    with house.ctx.registry.connection() as conn:
        states = conn.execute("SELECT state FROM step WHERE name = 'create_tenant_schema'").fetchall()
    assert states == [{"state": "abandoned"}]


@pytest.mark.fault(34)
def test_an_operation_that_kills_its_workers_slows_down_and_says_so(house: House) -> None:
    """Out of memory at the same step again and again: no worker may be spent on it every few seconds."""
    subscription = house.subscribe(1)
    other = house.subscribe(2)
    house.hear(subscription)
    house.hear(other)
    doomed = tenant_id_for(subscription)

    def deliver() -> None:
        with house.ctx.registry.connection() as conn:
            events = conn.execute("SELECT id FROM stripe_event").fetchall()
        for event in events:
            intake.handle_event(house.ctx, event["id"])

    def die(point: str) -> None:
        if point == "terraform.lock:before":
            raise KeyboardInterrupt

    deliver()
    deaths = 0
    house.world._crash = die
    for _ in range(ORPHANED_UNTIL_BACKOFF):
        with pytest.raises(KeyboardInterrupt):
            converge(house.ctx, ResourceKind.TENANT, doomed)
        deaths += 1
        with house.ctx.registry.connection() as conn:
            conn.execute("UPDATE lease SET until = '-infinity'")
    assert converge(house.ctx, ResourceKind.TENANT, doomed) is not None
    with house.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT state, error, next_attempt_at > clock_timestamp() AS later FROM operation"
            " WHERE resource_id = %s",
            [doomed],
        ).fetchone()
    assert row == {"state": "waiting", "error": f"its worker died {deaths} times in a row", "later": True}
    house.world._crash = lambda _point: None
    while converge(house.ctx) is not None:
        pass
    house.work()
    assert house.tenant(other).phase is Phase.ACTIVE
    assert house.tenant(subscription).phase is Phase.ACTIVE
    assert broken(house) == []


@pytest.mark.fault(58)
def test_a_suspended_tenants_unverified_domain_makes_nobody_look_again_and_again(house: House) -> None:
    subscription = house.subscribe(1, plan="dedicated", metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription)
    polling.work_once(house.ctx)
    polling.work_once(house.ctx)
    house.hostnames.stick("www.customer.dev")
    house.subscribe(1, plan="dedicated", status="unpaid", metadata={"custom_domain": "www.customer.dev"})
    house.hear(subscription)
    house.work()
    with house.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT status, next_look_at > clock_timestamp() + interval '10 minutes' AS later"
            " FROM tenant JOIN hostname ON tenant_id = id"
        ).fetchone()
    assert row == {"status": "pending", "later": True}


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
        house = House(postgres_server.create_database(name, template=f"leave_{stride}"))
        where, met = _leave_at(house, number)
        points = max(points, met)
        wrong += [f"{number} {where}: {what}" for what in (*broken(house), *out_of_step(house))]
        house.close()
        postgres_server.drop_database(name)
        number += stride
    postgres_server.drop_database(f"leave_{stride}")
    assert points > 40
    assert wrong == []


def _leave_at(house: House, number: int) -> tuple[str, int]:
    """The call at which the customer left, and how many calls there were."""
    subscription = house.subscribe(1, plan="dedicated")
    house.hear(subscription)
    seen: list[str] = []

    def leave(point: str) -> None:
        seen.append(point)
        if len(seen) == number + 1:
            house.subscribe(1, plan="dedicated", status="canceled")
            house.hear(subscription, "customer.subscription.deleted")

    house.world._crash = leave
    house.work(60)
    house.world._crash = lambda _point: None
    return (seen[number] if number < len(seen) else "never", len(seen))
