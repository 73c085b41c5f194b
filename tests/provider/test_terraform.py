"""`ports.Terraform`: what the engine may rely on, from the real Terraform and from its fake alike."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.domain.errors import LeaseLost, NeedsHuman, Retryable
from controlplane.workers.providers.ports import Found, PriorRun
from controlplane.workers.providers.terraform import lock_owner
from controlplane.workers.providers.terraform.inventory import TenantInventory
from tests.harness.terraform import (
    Events,
    FakeFixture,
    Fixture,
    RealFixture,
    again,
    never,
    tenant_run,
)

ADDRESSES = {
    TenantInventory.app_secret,
    TenantInventory.migrator_secret,
}


@pytest.fixture(scope="session")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terraform")


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.acceptance)])
def fixture(request: pytest.FixtureRequest) -> Iterator[Fixture]:
    if request.param == "fake":
        yield FakeFixture()
        return
    request.getfixturevalue("aws")
    yield RealFixture(request.getfixturevalue("work_dir"))


def apply(fixture: Fixture, run, events: Events | None = None):
    return fixture.terraform.apply(run, on_event=events if events is not None else Events(), stopped=never)


def test_an_apply_makes_the_stack_and_a_second_one_changes_nothing(fixture: Fixture) -> None:
    run, events = tenant_run(fixture), Events()
    assert {c.address for c in fixture.terraform.plan(run)} == ADDRESSES
    outputs = apply(fixture, run, events)
    assert set(outputs) == {"app_secret_arn", "migrator_secret_arn"}
    assert f":secret:{run.variables['app_secret_name']}-" in outputs["app_secret_arn"]
    assert {address for address, action in events.of("done") if action == "create"} == ADDRESSES
    assert events.of("lock_taken")
    assert fixture.lock_id(run) is None

    later = again(run)
    assert fixture.terraform.plan(later) == []
    quiet = Events()
    assert apply(fixture, later, quiet) == outputs
    assert [e for kind in ("planned", "adopted", "recovered") for e in quiet.of(kind)] == []


def test_what_a_killed_run_made_is_adopted_and_not_made_again(fixture: Fixture) -> None:
    run = tenant_run(fixture)
    outputs = apply(fixture, run)
    fixture.lose_state(run)
    planned = fixture.terraform.plan(again(run))
    assert {(c.address, c.action, c.destructive) for c in planned} == {
        (a, "import", False) for a in ADDRESSES
    }
    events = Events()
    assert apply(fixture, again(run), events) == outputs
    assert {address for address, _action in events.of("adopted")} == ADDRESSES
    assert not [address for address, action in events.of("done") if action == "create"]


def test_a_strangers_lock_is_waited_for_and_then_brought_to_a_person(fixture: Fixture) -> None:
    run, now = tenant_run(fixture), datetime.now(UTC)
    prior = PriorRun("us@here", now - timedelta(hours=1), "11111111-1111-1111-1111-111111111111")
    fixture.plant_lock(run, lock_id="22222222-2222-2222-2222-222222222222", who="them@there", created=now)
    with pytest.raises(Retryable) as waiting:
        apply(fixture, again(run, prior=prior))
    assert waiting.value.after == 30
    fixture.plant_lock(
        run,
        lock_id="22222222-2222-2222-2222-222222222222",
        who="them@there",
        created=now - timedelta(minutes=30),
    )
    with pytest.raises(NeedsHuman) as parked:
        apply(fixture, again(run, prior=prior))
    assert parked.value.runbook == "foreign-state-lock"
    with pytest.raises(NeedsHuman):
        fixture.terraform.plan(run)
    assert fixture.lock_id(run) == "22222222-2222-2222-2222-222222222222"


@pytest.mark.parametrize("recorded", [True, False], ids=["by its id", "by its owner and time"])
def test_a_lock_of_our_own_dead_run_is_broken(fixture: Fixture, recorded: bool) -> None:
    run, now = tenant_run(fixture), datetime.now(UTC)
    lock_id = "33333333-3333-3333-3333-333333333333"
    fixture.plant_lock(run, lock_id=lock_id, who=lock_owner(), created=now)
    prior = (
        PriorRun("somebody@else", now, lock_id)
        if recorded
        else PriorRun(lock_owner(), now - timedelta(seconds=30), None)
    )
    events = Events()
    with pytest.raises(LeaseLost):  # ended there: the rest is an ordinary apply
        fixture.terraform.apply(
            again(run, prior=prior), on_event=events, stopped=lambda: bool(events.of("recovered"))
        )
    assert events.of("recovered") == [(lock_id, "unlock")]
    assert fixture.lock_id(run) != lock_id


def test_a_strangers_resource_under_our_name_is_left_alone(fixture: Fixture) -> None:
    run = tenant_run(fixture)
    fixture.plant_stranger(run)
    with pytest.raises(NeedsHuman) as parked:
        apply(fixture, run)
    assert parked.value.runbook == "foreign-resource"


def test_a_lost_lease_ends_the_run_before_it_makes_anything(fixture: Fixture) -> None:
    """Its lock may stay (a machine too busy to end terraform within the grace): the next run breaks it."""
    run, events = tenant_run(fixture), Events()
    with pytest.raises(LeaseLost):
        fixture.terraform.apply(run, on_event=events, stopped=lambda: True)
    assert events.of("started") == []
    assert events.of("done") == []


def test_nothing_is_destroyed_unapproved_and_all_that_is_approved_is(fixture: Fixture) -> None:
    run = tenant_run(fixture)
    apply(fixture, run)
    all_but_one = frozenset(ADDRESSES - {TenantInventory.app_secret})
    with pytest.raises(NeedsHuman, match=TenantInventory.app_secret) as refused:
        fixture.terraform.destroy(again(run, approved=all_but_one), on_event=Events(), stopped=never)
    assert refused.value.runbook == "destructive-terraform-plan"
    events, approved = Events(), frozenset(ADDRESSES)
    fixture.terraform.destroy(again(run, approved=approved), on_event=events, stopped=never)
    assert {address for address, action in events.of("done") if action == "delete"} == ADDRESSES
    fixture.terraform.destroy(again(run, approved=approved), on_event=Events(), stopped=never)  # nothing left

    # the customer comes back while the secrets still wait for their deletion
    events = Events()
    apply(fixture, again(run), events)
    assert {address for address, _action in events.of("adopted")} == ADDRESSES
    assert [address for address, action in events.of("done") if action == "create"] == []


def test_a_variable_that_is_missing_is_named(fixture: Fixture) -> None:
    run = tenant_run(fixture)
    del run.variables["environment"]  # type: ignore[attr-defined]
    with pytest.raises(NeedsHuman, match="environment") as parked:
        apply(fixture, run)
    assert parked.value.runbook == "terraform-configuration"


def test_the_version_is_known(fixture: Fixture) -> None:
    assert fixture.terraform.version().count(".") == 2


# ------------------------------------------------------------------------------- releases of the stacks


def test_a_release_is_published_once(fixture: Fixture) -> None:
    newer = fixture.newer()
    only_looked = newer.publish(dry_run=True)
    first, second = newer.publish(), newer.publish()
    assert [p.found for p in (only_looked, first, second)] == [Found.ABSENT, Found.ABSENT, Found.PRESENT]
    (digest,) = {p.digest for p in (only_looked, first, second)}
    (place,) = {p.place for p in (only_looked, first, second)}
    assert place == f"s3://terraform-states/releases/{digest}.tar"
    assert first.size == second.size > 0
    assert digest != fixture.terraform.publish(dry_run=True).digest
    assert "tenant_id" in first.variables["tenant"]


def test_a_worker_with_newer_files_runs_the_release_that_is_named(fixture: Fixture) -> None:
    run = tenant_run(fixture)
    outputs = apply(fixture, run)
    newer = fixture.newer()
    release = newer.publish().digest
    assert newer.plan(again(run)) == []
    quiet = Events()
    assert newer.apply(again(run), on_event=quiet, stopped=never) == outputs
    assert quiet.of("planned") == quiet.of("done") == []
    named = replace(again(run), release=release)
    change = [(TenantInventory.app_secret, "update", False)]
    # and a worker with older files runs the newer one, where that is named
    assert [(c.address, c.action, c.destructive) for c in fixture.terraform.plan(named)] == change
    fixture.terraform.apply(named, on_event=Events(), stopped=never)
    assert newer.plan(named) == []
    assert [(c.address, c.action, c.destructive) for c in newer.plan(again(run))] == change
    newer.destroy(again(run, approved=frozenset(ADDRESSES)), on_event=Events(), stopped=never)
    assert {c.action for c in fixture.terraform.plan(again(run))} == {"create"}


@pytest.mark.parametrize("lose", [True, False], ids=["missing", "damaged"])
def test_an_archive_that_is_not_there_stops_every_run_and_is_published_again(
    fixture: Fixture, lose: bool
) -> None:
    newer = fixture.newer()
    release = newer.publish().digest
    fixture.damage(release, lose=lose)
    run = replace(tenant_run(fixture), release=release)
    for attempt in (
        lambda: newer.plan(run),
        lambda: newer.apply(run, on_event=Events(), stopped=never),
        lambda: newer.destroy(run, on_event=Events(), stopped=never),
    ):
        with pytest.raises(NeedsHuman) as parked:
            attempt()
        assert parked.value.runbook == "stack-release"
        assert f"release {release}" in str(parked.value)
        assert "'tenant'" in str(parked.value)
        assert f"is {'missing' if lose else 'damaged'}" in str(parked.value)
        assert f"s3://terraform-states/releases/{release}.tar" in str(parked.value)
    assert newer.publish().found is (Found.ABSENT if lose else Found.DAMAGED)
    assert newer.publish().found is Found.PRESENT
    assert {change.action for change in newer.plan(run)} == {"create"}


def test_many_that_publish_at_once_leave_one_whole_archive(fixture: Fixture) -> None:
    newer = fixture.newer()
    with ThreadPoolExecutor(8) as pool:
        found = [p.found for p in pool.map(lambda _: newer.publish(), range(8))]
    assert set(found) <= {Found.ABSENT, Found.PRESENT}
    assert newer.publish().found is Found.PRESENT
