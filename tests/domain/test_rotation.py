"""When a login is rotated, and names that everybody works out alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.placement import Placement
from controlplane.domain.rotation import DAY, SPREAD, idle_role, rotate_after, version_id

PLACED = Placement("p-aaaaaaaaaaaa", "t-aaaaaaaaaaaa", "c-bbbbbbbbbbbb")


def test_a_plan_without_an_age_never_rotates_by_itself() -> None:
    assert rotate_after(0, "t-aaaaaaaaaaaa") is None


@given(st.integers(1, 3650), st.text())
def test_rotations_are_spread_over_the_last_tenth_and_a_tenants_stays_where_it_is(
    days: int, tenant_id: str
) -> None:
    after = rotate_after(days, tenant_id)
    assert after is not None
    assert (1 - SPREAD) * days * DAY <= after <= days * DAY
    assert rotate_after(days, tenant_id) == after


def test_tenants_that_came_together_do_not_rotate_together() -> None:
    assert len({rotate_after(30, f"t-{number}") for number in range(100)}) == 100


def test_a_generation_has_one_version_of_its_own_that_secrets_manager_takes() -> None:
    versions = {
        version_id(placement, generation)
        for placement in (PLACED, Placement("p-bbbbbbbbbbbb", "t-aaaaaaaaaaaa", "c-bbbbbbbbbbbb"))
        for generation in (1, 2)
    }
    assert len(versions) == 4
    assert {len(version) for version in versions} == {64}
    assert version_id(PLACED, 1) in versions


def test_the_two_logins_of_the_application_take_turns() -> None:
    first, second = PLACED.app_roles
    assert (idle_role(PLACED, first), idle_role(PLACED, second)) == (second, first)
