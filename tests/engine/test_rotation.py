"""A tenant's logins over time, on fakes: rotated, retired, asked for at the wrong moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.placement import Placement, tenant_id_for
from controlplane.domain.rotation import DAY, SPREAD, rotate_after, version_id
from controlplane.services import tenants
from controlplane.store import placement
from controlplane.store.placement import Login
from tests.engine.house import House
from workers.providers.ports import Credential


@pytest.fixture
def placed(house: House) -> Placement:
    subscription = house.subscribe(1)
    house.hear(subscription, "customer.subscription.created")
    house.work()
    return house.placement(subscription)


def ask(house: House, placed: Placement) -> None:
    with house.ctx.registry.connection() as conn:
        tenants.rotate(conn, placed.tenant_id, actor="support", reason="a laptop was lost")


def in_use(house: House, placed: Placement) -> Credential:
    return house.ctx.providers.secrets.read(placed.app_secret)


def login(house: House, placed: Placement, name: str = "app") -> Login:
    with house.ctx.registry.connection() as conn:
        return placement.login(conn, placed, name)


def grow_old(house: House, days: float) -> None:
    with house.ctx.registry.connection() as conn:
        conn.execute(
            "UPDATE credential SET rotated_at = rotated_at - make_interval(secs => %s)", [days * DAY]
        )
        conn.execute("UPDATE tenant SET next_look_at = clock_timestamp()")


def audited(house: House) -> list[str]:
    with house.ctx.registry.connection() as conn:
        rows = conn.execute("SELECT action FROM audit WHERE action ~ 'rotate|retire' ORDER BY seq").fetchall()
    return [row["action"] for row in rows]


def test_the_other_login_takes_over_and_the_first_has_its_time(house: House, placed: Placement) -> None:
    old = in_use(house, placed)
    ask(house, placed)
    house.work()
    new = in_use(house, placed)
    assert (old.username, new.username) == placed.app_roles
    assert (new.host, new.port, new.dbname) == (old.host, old.port, old.dbname)
    assert house.lets_in(placed, old)
    assert house.lets_in(placed, new)
    assert house.cache.notices(placed.tenant_id) == 1
    kept = login(house, placed)
    assert (kept.username, kept.generation, kept.wanted) == (new.username, 2, 2)
    assert kept.retire_in is not None
    assert 890 < kept.retire_in <= 900
    house.grace_ends()
    house.work()
    assert not house.lets_in(placed, old)
    assert house.lets_in(placed, new)
    assert house.cache.notices(placed.tenant_id) == 2
    assert login(house, placed).retire_in is None
    assert login(house, placed, "migrator").generation == 2
    assert house.violations() == []
    assert audited(house) == ["tenant.rotate", "credential.rotate", "credential.rotate", "credential.retire"]


def test_back_and_forth(house: House, placed: Placement) -> None:
    seen = [in_use(house, placed)]
    for _ in range(4):
        ask(house, placed)
        house.work()
        house.grace_ends()
        house.work()
        seen.append(in_use(house, placed))
        assert [house.lets_in(placed, credential) for credential in seen] == [False] * (len(seen) - 1) + [
            True
        ]
    assert [credential.username[-1] for credential in seen] == ["a", "b", "a", "b", "a"]
    assert len({credential.password for credential in seen}) == 5


def test_the_next_one_waits_until_the_last_is_over(house: House, placed: Placement) -> None:
    ask(house, placed)
    house.work()
    second = in_use(house, placed)
    ask(house, placed)
    ask(house, placed)
    house.work()
    assert in_use(house, placed) == second
    house.grace_ends()
    house.work()
    assert in_use(house, placed).username == placed.app_roles[0]
    assert login(house, placed).generation == 3
    assert house.lets_in(placed, second)


def test_the_retirement_is_looked_for_in_time(house: House, placed: Placement) -> None:
    ask(house, placed)
    house.work()
    with house.ctx.registry.connection() as conn:
        row = conn.execute(
            "SELECT extract(epoch FROM next_look_at - clock_timestamp()) AS seconds FROM tenant"
        ).fetchone()
    assert row is not None
    assert 880 < row["seconds"] <= 900 < house.ctx.platform.look_every


def test_a_password_that_is_old_enough_is_rotated_by_itself(house: House, placed: Placement) -> None:
    grow_old(house, 26)
    house.work()
    assert login(house, placed).generation == 1
    grow_old(house, 4)
    house.work()
    assert login(house, placed).generation == 2
    assert login(house, placed, "migrator").generation == 2
    house.grace_ends()
    house.work()
    assert login(house, placed).generation == 2
    assert house.violations() == []


def test_never_by_itself_where_the_plan_says_so(house: House, placed: Placement) -> None:
    shared = replace(house.ctx.catalogue.plan("shared"), rotation_days=0)
    catalogue = replace(house.ctx.catalogue, plans={**house.ctx.catalogue.plans, "shared": shared})
    house.ctx = replace(house.ctx, catalogue=catalogue)
    grow_old(house, 3650)
    house.work()
    assert login(house, placed).generation == 1


def test_a_suspended_tenant_gets_its_new_password_when_it_comes_back(house: House, placed: Placement) -> None:
    subscription = house.subscribe(1, status="unpaid")
    house.hear(subscription)
    house.work()
    ask(house, placed)
    house.work()
    assert login(house, placed).generation == 1
    house.subscribe(1)
    house.hear(subscription)
    house.work()
    assert login(house, placed).generation == 2
    assert house.lets_in(placed)


def test_suspended_in_the_grace_period_the_first_login_never_opens_again(
    house: House, placed: Placement
) -> None:
    old = in_use(house, placed)
    ask(house, placed)
    house.work()
    for status in ("unpaid", "active"):
        house.subscribe(1, status=status)
        house.hear("sub_00000001")
        house.grace_ends()
        house.work()
    assert not house.lets_in(placed, old)
    assert house.lets_in(placed)
    assert house.violations() == []


def test_a_secret_that_was_changed_by_hand_is_the_truth(house: House, placed: Placement) -> None:
    """Somebody made the idle login the current one while a password for it was staged."""
    first = in_use(house, placed)
    secrets = house.ctx.providers.secrets
    staged = replace(first, username=placed.app_roles[1], password="canary-staged")
    secrets.stage(placed.app_secret, staged, token=version_id(placed, "app", 2))
    by_hand = replace(staged, password="canary-by-hand")
    secrets.write(placed.app_secret, by_hand, token="h" * 32)
    ask(house, placed)
    house.work()
    assert in_use(house, placed).username == placed.app_roles[0]
    assert house.lets_in(placed)
    assert login(house, placed).generation == 3
    assert house.lets_in(placed, by_hand)
    assert not house.lets_in(placed, staged)
    assert house.violations() == []


def test_a_notice_that_can_not_be_sent_is_sent_later(house: House, placed: Placement) -> None:
    def fail(point: str) -> None:
        if point == "secrets.promote:after":
            house.cache.down()

    house.world._crash = fail
    ask(house, placed)
    with pytest.raises(AssertionError, match="not settled"):
        house.work(rounds=2)
    assert login(house, placed).generation == 1
    assert house.lets_in(placed)
    house.world._crash = lambda _point: None
    house.cache.down(down=False)
    house.work()
    assert login(house, placed).generation == 2
    assert house.cache.notices(placed.tenant_id) == 1
    assert house.violations() == []


def test_periods_are_spread_and_bounded() -> None:
    ages = [rotate_after(30, tenant_id_for(f"sub_{n}")) for n in range(1000)]
    assert all(age is not None and 30 * DAY * (1 - SPREAD) <= age <= 30 * DAY for age in ages)
    assert len(set(ages)) == 1000
    assert rotate_after(30, "t-x") == rotate_after(30, "t-x")
    assert rotate_after(0, "t-x") is None


def test_each_generation_of_each_login_has_a_version_of_its_own() -> None:
    one, two = Placement("t-aaaaaaaaaaaa", 1, "c-x"), Placement("t-aaaaaaaaaaaa", 2, "c-x")
    ids = {version_id(p, name, n) for p in (one, two) for name in ("app", "migrator") for n in range(1, 50)}
    assert len(ids) == 196
    assert {len(text) for text in ids} == {64}
