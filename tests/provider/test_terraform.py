"""`ports.Terraform`: what the engine may rely on, from the real Terraform and from its fake alike."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.domain.errors import LeaseLost, NeedsHuman, Retryable
from controlplane.localcloud.fakes.aws import FakeAccount
from controlplane.workers.providers.ports import Found, PriorRun, StackRun, StateObject
from controlplane.workers.providers.terraform import lock_owner
from controlplane.workers.providers.terraform.inventory import PlacementsInventory
from tests.harness.terraform import (
    Events,
    FakeFixture,
    Fixture,
    RealFixture,
    again,
    never,
    placements_run,
    secrets_of,
)

IDS = ["p-aaaaaaaaaaaa", "p-bbbbbbbbbbbb", "p-cccccccccccc"]


def addresses(run: StackRun) -> set[str]:
    return set(PlacementsInventory.addresses_of(run.variables["placements"]))


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
    run, events = placements_run(fixture, 2), Events()
    assert {(c.address, c.action) for c in fixture.terraform.plan(run)} == {
        (address, "create") for address in addresses(run)
    }
    outputs = apply(fixture, run, events)
    assert set(outputs) == {"app_secret_arns"}
    arns = outputs["app_secret_arns"]
    assert sorted(arns) == sorted(run.variables["placements"])
    assert all(f":secret:placements/{placement}/app-" in arn for placement, arn in arns.items())
    assert {address for address, action in events.of("done") if action == "create"} == addresses(run)
    assert events.of("lock_taken")
    assert fixture.lock_id(run) is None

    later = again(run)
    assert fixture.terraform.plan(later) == []
    quiet = Events()
    assert apply(fixture, later, quiet) == outputs
    assert [e for kind in ("planned", "adopted", "recovered") for e in quiet.of(kind)] == []


def test_what_a_killed_run_made_is_adopted_and_not_made_again(fixture: Fixture) -> None:
    run = placements_run(fixture, 2)
    outputs = apply(fixture, run)
    fixture.lose_state(run)
    planned = fixture.terraform.plan(again(run))
    assert {(c.address, c.action, c.destructive) for c in planned} == {
        (a, "import", False) for a in addresses(run)
    }
    events = Events()
    assert apply(fixture, again(run), events) == outputs
    assert {address for address, _action in events.of("adopted")} == addresses(run)
    assert not created(events)


def test_a_strangers_lock_is_waited_for_and_then_brought_to_a_person(fixture: Fixture) -> None:
    run, now = placements_run(fixture), datetime.now(UTC)
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
    run, now = placements_run(fixture), datetime.now(UTC)
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
    run = placements_run(fixture)
    fixture.plant_stranger(run)
    with pytest.raises(NeedsHuman) as parked:
        apply(fixture, run)
    assert parked.value.runbook == "foreign-resource"


def test_a_lost_lease_ends_the_run_before_it_makes_anything(fixture: Fixture) -> None:
    """Its lock may stay (a machine too busy to end terraform within the grace): the next run breaks it."""
    run, events = placements_run(fixture), Events()
    with pytest.raises(LeaseLost):
        fixture.terraform.apply(run, on_event=events, stopped=lambda: True)
    assert events.of("started") == []
    assert events.of("done") == []


def test_nothing_is_destroyed_unapproved_and_all_that_is_approved_is(fixture: Fixture) -> None:
    run = placements_run(fixture, 2)
    apply(fixture, run)
    mine = PlacementsInventory.app_secret(run.variables["placements"][1])
    all_but_one, approved = frozenset(addresses(run) - {mine}), frozenset(addresses(run))
    for placements in (run.variables["placements"], []):  # what the state alone knows is protected as well
        refused_run = again(run, approved=all_but_one, placements=placements)
        with pytest.raises(NeedsHuman) as refused:
            fixture.terraform.destroy(refused_run, on_event=Events(), stopped=never)
        assert f"delete {mine}, which" in str(refused.value)
        assert refused.value.runbook == "destructive-terraform-plan"
    events = Events()
    fixture.terraform.destroy(again(run, approved=approved), on_event=events, stopped=never)
    assert deleted(events) == addresses(run)
    fixture.terraform.destroy(again(run, approved=approved), on_event=Events(), stopped=never)  # nothing left

    # they are wanted again while they still wait for their deletion
    events = Events()
    apply(fixture, again(run), events)
    assert {address for address, _action in events.of("adopted")} == addresses(run)
    assert not created(events)


# --------------------------------------------------------------------------- placements come and go


def created(events: Events) -> set[str]:
    return {address for address, action in events.of("done") if action == "create"}


def deleted(events: Events) -> set[str]:
    return {address for address, action in events.of("done") if action == "delete"}


def waiting(fixture: Fixture, run: StackRun) -> dict[str, bool]:
    """By name, whether a secret of these placements waits for its deletion; all that are there."""
    placements = run.variables["placements"]
    listed = fixture.inventory().secrets()
    return {name: deleting for name, deleting in listed if name.split("/")[1] in placements}


def test_a_batch_joins_those_that_are_there_and_an_empty_cluster_is_left_alone(fixture: Fixture) -> None:
    run = placements_run(fixture, placements=[])
    assert fixture.terraform.plan(run) == []
    assert apply(fixture, run) == {"app_secret_arns": {}}
    first = again(run, placements=placements_run(fixture, 1).variables["placements"])
    apply(fixture, first)
    more = again(run, placements=placements_run(fixture, 25).variables["placements"])
    both = again(run, placements=[*first.variables["placements"], *more.variables["placements"]])
    events = Events()
    outputs = apply(fixture, both, events)
    assert created(events) == addresses(more)
    assert sorted(outputs["app_secret_arns"]) == sorted(both.variables["placements"])
    assert set(waiting(fixture, both)) == set(secrets_of(both))


def test_a_placement_leaves_where_its_addresses_are_approved_and_no_other_does(fixture: Fixture) -> None:
    run = placements_run(fixture, 3)
    apply(fixture, run)
    going, *staying = run.variables["placements"]
    left = again(run, placements=[going])
    approved = frozenset(addresses(left))
    for others in (frozenset(), frozenset(addresses(run) - approved)):
        with pytest.raises(NeedsHuman, match=rf"delete .*{going}.*nobody approved") as refused:
            apply(fixture, again(run, placements=staying, approved=others))
        assert refused.value.runbook == "destructive-terraform-plan"
    with pytest.raises(NeedsHuman, match=staying[0]):  # approved is one, and two would go
        apply(fixture, again(run, placements=staying[1:], approved=approved))
    assert not any(waiting(fixture, run).values())

    smaller, events = again(run, placements=staying, approved=approved), Events()
    changes = fixture.terraform.plan(smaller)
    assert {(c.address, c.action, c.destructive) for c in changes} == {(a, "delete", True) for a in approved}
    outputs = apply(fixture, smaller, events)
    assert deleted(events) == approved
    assert created(events) == set()
    assert sorted(outputs["app_secret_arns"]) == sorted(staying)
    gone = dict.fromkeys(secrets_of(left), True) | dict.fromkeys(secrets_of(smaller), False)
    assert waiting(fixture, run) == gone

    # gone already is success, and what waits for its deletion stays so
    assert fixture.terraform.plan(smaller) == []
    quiet = Events()
    apply(fixture, smaller, quiet)
    assert deleted(quiet) == created(quiet) == set(quiet.of("adopted")) == set()
    assert waiting(fixture, run) == gone


def test_one_leaves_although_the_state_that_knew_it_is_lost(fixture: Fixture) -> None:
    """Else its secret would be nobody's: Terraform deletes what it knows."""
    run = placements_run(fixture, 2)
    apply(fixture, run)
    fixture.lose_state(run)
    going, staying = run.variables["placements"]
    approved = frozenset(addresses(again(run, placements=[going])))
    smaller = again(run, placements=[staying], approved=approved)
    planned = {(c.address, c.action, c.destructive) for c in fixture.terraform.plan(smaller)}
    kept = addresses(again(run, placements=[staying]))
    assert planned == {(a, "delete", True) for a in approved} | {(a, "import", False) for a in kept}
    events = Events()
    apply(fixture, smaller, events)
    assert deleted(events) == approved
    assert {address for address, _action in events.of("adopted")} == addresses(run)
    assert not created(events)
    assert waiting(fixture, run) == {name: f"/{going}/" in name for name in secrets_of(run)}
    assert fixture.terraform.plan(smaller) == []


def test_a_strangers_secret_is_not_deleted_for_one_of_ours(fixture: Fixture) -> None:
    run = placements_run(fixture)
    fixture.plant_stranger(run)
    for ends in (fixture.terraform.apply, fixture.terraform.destroy):
        with pytest.raises(NeedsHuman) as parked:
            ends(
                again(run, placements=[], approved=frozenset(addresses(run))),
                on_event=Events(),
                stopped=never,
            )
        assert parked.value.runbook == "foreign-resource"
    assert list(waiting(fixture, run).values()) == [False]


def test_the_workspace_of_a_cluster_without_placements_goes(fixture: Fixture) -> None:
    run = placements_run(fixture, 2)
    apply(fixture, run)
    empty = again(run, placements=[], approved=frozenset(addresses(run)))
    apply(fixture, empty)
    state = StateObject("placements", run.workspace, present=True, locked=False)
    assert state in list(fixture.inventory().states())
    fixture.terraform.destroy(again(run, placements=[]), on_event=Events(), stopped=never)
    assert run.workspace not in {state.workspace for state in fixture.inventory().states()}
    assert all(waiting(fixture, run).values())


def test_what_a_killed_run_deleted_and_its_state_still_names_is_gone(fixture: Fixture) -> None:
    run = placements_run(fixture, 2)
    apply(fixture, run)
    fixture.doom(run)
    without = again(run, placements=[])
    assert fixture.terraform.plan(without) == []
    fixture.terraform.destroy(without, on_event=Events(), stopped=never)
    assert run.workspace not in {state.workspace for state in fixture.inventory().states()}
    assert all(waiting(fixture, run).values())


def test_a_cluster_ends_with_the_placements_that_no_state_knows(fixture: Fixture) -> None:
    run = placements_run(fixture, 2)
    apply(fixture, run)
    fixture.lose_state(run)
    events = Events()
    ending = again(run, placements=run.variables["placements"][:1], approved=frozenset(addresses(run)))
    fixture.terraform.destroy(ending, on_event=events, stopped=never)
    assert deleted(events) == addresses(run)
    assert waiting(fixture, run) == dict.fromkeys(secrets_of(run), True)
    assert run.workspace not in {state.workspace for state in fixture.inventory().states()}


class Killed(BaseException):
    """A worker's death: nothing of ours runs any more."""


class Crashes:
    """Of a fake: notes the points that are reached, and is Killed at the one with this number."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen: list[str] | None = None

    def __call__(self, point: str) -> None:
        if self.seen is None:
            return
        self.seen.append(point)
        if len(self.seen) == self.at:
            self.seen = None
            raise Killed(point)


@pytest.mark.parametrize("lose", [False, True], ids=["state as it was before", "state lost"])
def test_a_fake_run_killed_at_any_call_is_followed_by_one_that_ends_it(lose: bool) -> None:
    """Of the real one: tests/terraform/test_faults.py."""
    killed: set[str] = set()
    while True:
        crashes = Crashes(at=len(killed) + 1)
        fixture = FakeFixture(crashes)
        run, started = placements_run(fixture, placements=IDS), datetime.now(UTC)
        apply(fixture, again(run, placements=IDS[:2]))
        going, *staying = IDS
        later = again(run, placements=staying, approved=frozenset(PlacementsInventory.addresses_of([going])))
        crashes.seen = []
        try:
            apply(fixture, later)
        except Killed as point:
            killed.add(str(point))
        else:
            break
        if lose:
            fixture.lose_state(run)
        apply(fixture, replace(later, prior_runs=(PriorRun(lock_owner(), started, None),)))
        assert waiting(fixture, run) == {name: going in name for name in secrets_of(run)}, killed
        assert FakeAccount(fixture.world).duplicates() == fixture.fake.orphans() == []
        assert fixture.terraform.plan(later) == []
    for address in addresses(run):
        assert {f"terraform.apply:{address}:{when}" for when in ("before", "after")} <= killed


def test_a_fake_run_that_is_stopped_between_two_keeps_what_it_did() -> None:
    fixture = FakeFixture()
    run, events = placements_run(fixture, placements=IDS), Events()
    apply(fixture, run)
    approved = frozenset(PlacementsInventory.addresses_of(IDS[:2]))
    smaller = again(run, placements=IDS[2:], approved=approved)
    with pytest.raises(LeaseLost):
        fixture.terraform.apply(smaller, on_event=events, stopped=lambda: bool(deleted(events)))
    assert len(deleted(events)) == sum(waiting(fixture, run).values()) == 1
    assert {c.address for c in fixture.terraform.plan(smaller)} == approved - deleted(events)
    apply(fixture, smaller, events)
    assert deleted(events) == approved


@pytest.mark.parametrize(
    "placements",
    [[f"p-aaaaaaaaaa{a}{b}" for a in "abcdefghijk" for b in "abcdefghij"][:101], ["p-UPPERCASE234"]],
    ids=["more than a state takes", "no id"],
)
def test_placements_that_the_stack_refuses_are_a_persons_matter(
    fixture: Fixture, placements: list[str]
) -> None:
    run = placements_run(fixture, placements=placements)
    with pytest.raises(NeedsHuman, match="Invalid value for variable") as parked:
        apply(fixture, run)
    assert parked.value.runbook == "terraform-configuration"
    assert waiting(fixture, run) == {}


def test_a_variable_that_is_missing_is_named(fixture: Fixture) -> None:
    run = placements_run(fixture)
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
    assert "placements" in first.variables["placements"]


def test_a_worker_with_newer_files_runs_the_release_that_is_named(fixture: Fixture) -> None:
    run = placements_run(fixture)
    outputs = apply(fixture, run)
    newer = fixture.newer()
    release = newer.publish().digest
    assert newer.plan(again(run)) == []
    quiet = Events()
    assert newer.apply(again(run), on_event=quiet, stopped=never) == outputs
    assert quiet.of("planned") == quiet.of("done") == []
    named = replace(again(run), release=release)
    change = [(PlacementsInventory.app_secret(run.variables["placements"][0]), "update", False)]
    # and a worker with older files runs the newer one, where that is named
    assert [(c.address, c.action, c.destructive) for c in fixture.terraform.plan(named)] == change
    fixture.terraform.apply(named, on_event=Events(), stopped=never)
    assert newer.plan(named) == []
    assert [(c.address, c.action, c.destructive) for c in newer.plan(again(run))] == change
    newer.destroy(again(run, approved=frozenset(addresses(run))), on_event=Events(), stopped=never)
    assert {c.action for c in fixture.terraform.plan(again(run))} == {"create"}


@pytest.mark.parametrize("lose", [True, False], ids=["missing", "damaged"])
def test_an_archive_that_is_not_there_stops_every_run_and_is_published_again(
    fixture: Fixture, lose: bool
) -> None:
    newer = fixture.newer()
    release = newer.publish().digest
    fixture.damage(release, lose=lose)
    run = replace(placements_run(fixture), release=release)
    for attempt in (
        lambda: newer.plan(run),
        lambda: newer.apply(run, on_event=Events(), stopped=never),
        lambda: newer.destroy(run, on_event=Events(), stopped=never),
    ):
        with pytest.raises(NeedsHuman) as parked:
            attempt()
        assert parked.value.runbook == "stack-release"
        assert f"release {release}" in str(parked.value)
        assert "'placements'" in str(parked.value)
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
