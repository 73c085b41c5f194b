"""A tenant's logins over time, on fakes: rotated, retired, asked for at the wrong moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.actions.action import run
from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.domain.rotation import DAY, SPREAD, rotate_after, version_id
from controlplane.store import placement
from controlplane.store.placement import Login
from controlplane.workers.providers.ports import Credential
from tests.harness.engine import Harness


@pytest.fixture
def placed(harness: Harness) -> Placement:
    subscription = harness.subscribe(1)
    harness.hear(subscription, "customer.subscription.created")
    harness.work()
    return harness.placement(subscription)


def ask(harness: Harness, placed: Placement) -> None:
    with harness.ctx.registry.connection() as conn:
        run(conn, "rotate", placed.tenant_id, actor="support", reason="a laptop was lost")


def in_use(harness: Harness, placed: Placement) -> Credential:
    return harness.ctx.providers.secrets.read(placed.app_secret)


def login(harness: Harness, placed: Placement) -> Login:
    with harness.ctx.registry.connection() as conn:
        return placement.login(conn, placed)


def grow_old(harness: Harness, days: float) -> None:
    with harness.ctx.registry.connection() as conn:
        conn.execute("UPDATE placement SET rotated_at = rotated_at - make_interval(secs => %s)", [days * DAY])
        conn.execute("UPDATE tenant SET next_observation_at = clock_timestamp()")


def audited(harness: Harness) -> list[str]:
    with harness.ctx.registry.connection() as conn:
        rows = conn.execute("SELECT action FROM audit WHERE action ~ 'rotate|retire' ORDER BY seq").fetchall()
    return [row["action"] for row in rows]


def test_the_other_login_takes_over_and_the_first_has_its_time(harness: Harness, placed: Placement) -> None:
    old = in_use(harness, placed)
    ask(harness, placed)
    harness.work()
    new = in_use(harness, placed)
    assert (old.username, new.username) == placed.app_roles
    assert (new.host, new.port, new.dbname) == (old.host, old.port, old.dbname)
    assert harness.lets_in(placed, old)
    assert harness.lets_in(placed, new)
    assert harness.cache.invalidations(placed.tenant_id) == 1
    kept = login(harness, placed)
    assert (kept.username, kept.generation, kept.requested) == (new.username, 2, 2)
    assert kept.retire_in is not None
    assert 890 < kept.retire_in <= 900
    harness.grace_ends()
    harness.work()
    assert not harness.lets_in(placed, old)
    assert harness.lets_in(placed, new)
    assert harness.cache.invalidations(placed.tenant_id) == 2
    assert login(harness, placed).retire_in is None
    assert harness.violations() == []
    assert audited(harness) == ["tenant.rotate", "credential.rotate", "credential.retire"]


def test_back_and_forth(harness: Harness, placed: Placement) -> None:
    seen = [in_use(harness, placed)]
    for _ in range(4):
        ask(harness, placed)
        harness.work()
        harness.grace_ends()
        harness.work()
        seen.append(in_use(harness, placed))
        assert [harness.lets_in(placed, credential) for credential in seen] == [False] * (len(seen) - 1) + [
            True
        ]
    assert [credential.username[-1] for credential in seen] == ["a", "b", "a", "b", "a"]
    assert len({credential.password for credential in seen}) == 5


def test_the_next_one_waits_until_the_last_is_over(harness: Harness, placed: Placement) -> None:
    ask(harness, placed)
    harness.work()
    second = in_use(harness, placed)
    ask(harness, placed)
    ask(harness, placed)
    harness.work()
    assert in_use(harness, placed) == second
    harness.grace_ends()
    harness.work()
    assert in_use(harness, placed).username == placed.app_roles[0]
    assert login(harness, placed).generation == 3
    assert harness.lets_in(placed, second)


def test_the_retirement_is_looked_for_in_time(harness: Harness, placed: Placement) -> None:
    ask(harness, placed)
    harness.work()
    with harness.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT extract(epoch FROM next_observation_at - clock_timestamp()) AS seconds FROM tenant"
        ).fetchone()
    assert row is not None
    assert 880 < row["seconds"] <= 900 < harness.ctx.platform.observe_every


def test_a_password_that_is_old_enough_is_rotated_by_itself(harness: Harness, placed: Placement) -> None:
    grow_old(harness, 26)
    harness.work()
    assert login(harness, placed).generation == 1
    grow_old(harness, 4)
    harness.work()
    assert login(harness, placed).generation == 2
    harness.grace_ends()
    harness.work()
    assert login(harness, placed).generation == 2
    assert harness.violations() == []


def test_never_by_itself_where_the_plan_says_so(harness: Harness, placed: Placement) -> None:
    shared = replace(harness.ctx.catalogue.plan("shared"), rotation_days=0)
    catalogue = replace(harness.ctx.catalogue, plans={**harness.ctx.catalogue.plans, "shared": shared})
    harness.ctx = replace(harness.ctx, catalogue=catalogue)
    grow_old(harness, 3650)
    harness.work()
    assert login(harness, placed).generation == 1


def test_a_suspended_tenant_gets_its_new_password_when_it_comes_back(
    harness: Harness, placed: Placement
) -> None:
    subscription = harness.subscribe(1, status="unpaid")
    harness.hear(subscription)
    harness.work()
    ask(harness, placed)
    harness.work()
    assert login(harness, placed).generation == 1
    harness.subscribe(1)
    harness.hear(subscription)
    harness.work()
    assert login(harness, placed).generation == 2
    assert harness.lets_in(placed)


def test_suspended_in_the_grace_period_the_first_login_never_opens_again(
    harness: Harness, placed: Placement
) -> None:
    old = in_use(harness, placed)
    ask(harness, placed)
    harness.work()
    for status in ("unpaid", "active"):
        harness.subscribe(1, status=status)
        harness.hear("sub_00000001")
        harness.grace_ends()
        harness.work()
    assert not harness.lets_in(placed, old)
    assert harness.lets_in(placed)
    assert harness.violations() == []


def test_a_secret_that_was_changed_by_hand_is_the_truth(harness: Harness, placed: Placement) -> None:
    """Somebody made the idle login the current one while a password for it was staged."""
    first = in_use(harness, placed)
    secrets = harness.ctx.providers.secrets
    staged = replace(first, username=placed.app_roles[1], password="canary-staged")
    secrets.stage(placed.app_secret, staged, token=version_id(placed, 2))
    by_hand = replace(staged, password="canary-by-hand")
    secrets.write(placed.app_secret, by_hand, token="h" * 32)
    ask(harness, placed)
    harness.work()
    assert in_use(harness, placed).username == placed.app_roles[0]
    assert harness.lets_in(placed)
    assert login(harness, placed).generation == 3
    assert harness.lets_in(placed, by_hand)
    assert not harness.lets_in(placed, staged)
    assert harness.violations() == []


def test_a_notice_that_can_not_be_sent_is_sent_later(harness: Harness, placed: Placement) -> None:
    def fail(point: str) -> None:
        if point == "secrets.promote:after":
            harness.cache.down()

    harness.world._crash = fail
    ask(harness, placed)
    with pytest.raises(AssertionError, match="not reconciled"):
        harness.work(rounds=2)
    assert login(harness, placed).generation == 1
    assert harness.lets_in(placed)
    harness.world._crash = lambda _point: None
    harness.cache.down(down=False)
    harness.work()
    assert login(harness, placed).generation == 2
    assert harness.cache.invalidations(placed.tenant_id) == 1
    assert harness.violations() == []


def test_periods_are_spread_and_bounded() -> None:
    ages = [rotate_after(30, tenant_id_for(f"sub_{n}")) for n in range(1000)]
    assert all(age is not None and 30 * DAY * (1 - SPREAD) <= age <= 30 * DAY for age in ages)
    assert len(set(ages)) == 1000
    assert rotate_after(30, "t-x") == rotate_after(30, "t-x")
    assert rotate_after(0, "t-x") is None


def test_each_generation_has_a_version_of_its_own() -> None:
    one, two = (Placement(f"p-{letter * 12}", "t-aaaaaaaaaaaa", "c-x") for letter in "ab")
    ids = {version_id(p, n) for p in (one, two) for n in range(1, 50)}
    assert len(ids) == 98
    assert {len(text) for text in ids} == {64}
