"""Whatever happens, the planner comes to rest with what was asked for.

In a world (`tests/domain/world.py`) any steps fail, are done twice or cut off and any events come in between;
once both cease, every run ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.catalogue import Isolation
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase
from tests.domain.world import GRACE, HOST, OTHER_HOST, ROTATE_AFTER, Failed, Home, Transfer, World

S = StepName
SAME_STEP_AT_MOST = 3  # of `workers/engine/converge.py`: the engine calls a fourth one "did not take"
STEPS_AT_MOST = 60


def take(world: World, step: Step, fault: str) -> None:
    """`fault`: "" for none, "fails" before anything is done, "again" for twice, "cut n" for a worker that is
    killed at its n-th point, "error n" for an error there."""
    if fault == "fails":
        return
    kind, _, number = fault.partition(" ")
    try:
        if kind == "again":
            for _ in world.act(step):
                pass
            if step not in world.plan()[:1]:
                return
        for point, _ in enumerate(world.act(step), start=1):
            if kind == "cut" and point == int(number):
                return
            if kind == "error" and point == int(number):
                world.go_back()
                return
    except Failed:
        pass


def turn(world: World, fault: str = "") -> None:
    for step in world.plan()[:1]:
        if not world.grant(step):
            take(world, step, fault)


def lifecycle(to: Lifecycle) -> Callable[[World], None]:
    """What billing says. Who comes back is kept, unless the deletion has begun. A clone, for which nobody
    pays, is only ever closed."""

    def event(world: World) -> None:
        if world.begun or world.purged or (world.clone and to is not Lifecycle.CLOSED):
            return
        world.lifecycle = to
        if to is not Lifecycle.CLOSED:
            world.requested = world.approved = world.retention_over = world.noted = False
            world.copy = None

    return event


def upgrade(world: World) -> None:
    other = {Isolation.SHARED: Isolation.DEDICATED, Isolation.DEDICATED: Isolation.SHARED}
    world.isolation = other[world.isolation]


def ask_for_move(world: World) -> None:
    if movable(world):
        plan, to = world.plan_name, world.isolation
        world.transfer = Transfer(TransferKind.MOVE, world.home.id, plan, to, by_hand=True)


def ask_for_restore(world: World) -> None:
    if movable(world):
        plan, to = world.plan_name, world.isolation
        world.transfer = Transfer(TransferKind.RESTORE, world.home.id, plan, to, by_hand=True)


def movable(world: World) -> bool:
    ready = world.lifecycle is Lifecycle.ACTIVE and world.served
    return ready and world.transfer is None and world.current is not None


DECLINABLE = (TransferPhase.PREPARING, TransferPhase.COPYING, TransferPhase.FOLLOWING)


def decline_move(world: World) -> None:
    found = world.transfer
    if found is not None and found.kind is not TransferKind.CLONE and found.phase in DECLINABLE:
        found.phase, found.declined = TransferPhase.ABORTED, True


def confirm_move(world: World) -> None:
    if world.transfer is not None and world.transfer.phase is TransferPhase.REVERSIBLE:
        world.transfer.phase = TransferPhase.CONFIRMED


def lose_copy(world: World) -> None:
    """The source has lost its log, and the target what it had of it."""
    found = world.transfer
    if found is not None and found.kind is TransferKind.MOVE and found.phase is TransferPhase.FOLLOWING:
        found.streaming = found.copied = False
        world.there.rows = None


def approve_purge(world: World) -> None:
    closed = world.lifecycle is Lifecycle.CLOSED and world.transfer is None and not world.approved
    if closed and world.kept_for() is None:
        world.approve()


def request_purge(world: World) -> None:
    if world.lifecycle is Lifecycle.CLOSED and world.transfer is None and not world.approved:
        world.requested = True


def rename(world: World) -> None:
    """To and fro: the slug that it takes back redirects no longer."""
    if world.lifecycle is not Lifecycle.CLOSED:
        world.former[world.host] = False
        world.host = OTHER_HOST if world.host == HOST else HOST
        world.former.pop(world.host, None)


def pay(world: World) -> None:
    world.pays = not world.pays


def lose_cache(world: World) -> None:
    world.cache = {}


def unproven(world: World) -> None:
    for home in world.homes.values():
        home.access_proof = None


def forget(world: World) -> None:
    """Nothing that was confirmed is believed any more."""
    unproven(world)
    for home in world.homes.values():
        home.confirmed = home.app.recorded = None


def new_release(world: World) -> None:
    world.release = f"{int(world.release) + 1:04d}"


def passwords_lost(world: World) -> None:
    """Nobody sees that before a login is tried; by then there is a new release. Not in a pause, which lasts
    for a moment and in which no login is tried."""
    if world.transfer is not None and world.transfer.phase is TransferPhase.CUT:
        return
    new_release(world)
    unproven(world)
    for home in world.homes.values():
        home.app.on_server = None


def rollout(world: World) -> None:
    """It brings the database ahead of what the tenant asks for; not while it moves."""
    if world.current is not None and world.home.release == world.release and world.transfer is None:
        world.home.release = f"{int(world.release) + 1:04d}"


def ask_for_rotation(world: World) -> None:
    for home in world.homes.values():
        home.app.requested = home.app.generation + 1


def domains(*hosts: str) -> Callable[[World], None]:
    def event(world: World) -> None:
        world.domains = hosts

    return event


def time_passes(world: World) -> None:
    """Enough for whatever is only a matter of time."""
    world.retention_over = world.lifecycle is Lifecycle.CLOSED
    world.copy_overdue = world.purged
    world.former = dict.fromkeys(world.former, True)
    if world.transfer is not None:
        world.transfer.kept_long = True
    for home in world.homes.values():
        home.app.age += GRACE
        home.app.retire_in = None if home.app.retire_in is None else home.app.retire_in - GRACE
    world.hostnames = {host: replace(h, poll_due=not h.ready) for host, h in world.hostnames.items()}


def years_pass(world: World) -> None:
    for home in world.homes.values():
        home.app.age = ROTATE_AFTER


FAULTS = ("", "fails", "again", "cut 1", "cut 2", "cut 3", "error 1", "error 2")
EVENTS: Mapping[str, Callable[[World], None]] = {
    "active": lifecycle(Lifecycle.ACTIVE),
    "suspended": lifecycle(Lifecycle.SUSPENDED),
    "closed": lifecycle(Lifecycle.CLOSED),
    "one domain": domains("www.a.dev"),
    "two domains": domains("www.a.dev", "shop.a.dev"),
    "no domains": domains(),
} | {
    event.__name__: event
    for event in (
        upgrade,
        ask_for_move,
        ask_for_restore,
        decline_move,
        confirm_move,
        lose_copy,
        approve_purge,
        request_purge,
        rename,
        pay,
        lose_cache,
        forget,
        passwords_lost,
        new_release,
        rollout,
        ask_for_rotation,
        time_passes,
        years_pass,
    )
}  # fmt: skip


RUNS = st.lists(
    st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 12), st.sampled_from(FAULTS)), max_size=12
)
"""Something happens, so many steps are taken, and another one with a fault; and so on."""


BEGINNINGS = st.fixed_dictionaries(
    {
        "isolation": st.sampled_from(Isolation),
        "clone": st.booleans(),
        "unasked": st.booleans(),
        "differs": st.booleans(),
        "cloudflare": st.dictionaries(
            st.sampled_from(["www.a.dev", "shop.a.dev"]), st.sampled_from(["slow", "refused"])
        ),
    }
)


def founded(**beginning: Any) -> World:
    """A new tenant, or a clone that has no place yet."""
    world = World(**beginning)
    if world.clone:
        plan, to = world.plan_name, world.isolation
        world.transfer = Transfer(TransferKind.CLONE, None, plan, to, by_hand=True)
    else:
        world.homes[1], world.current = Home(1, world.isolation), 1
    return world


def come_to_rest(world: World) -> None:
    """Without faults and events. What a step waits for is granted; no step is taken more often than the
    engine lets it before something is granted."""
    taken: Counter[Step] = Counter()
    for _ in range(STEPS_AT_MOST):
        steps = world.plan()
        if not steps:
            return
        if world.grant(steps[0]):
            taken.clear()
            continue
        taken[steps[0]] += 1
        assert taken[steps[0]] <= SAME_STEP_AT_MOST, f"did not take: {steps[0]}"
        take(world, steps[0], "")
    raise AssertionError(f"it never ends: {[step.name for step in world.plan()]}")


def require_right(world: World) -> None:
    """What was asked for is so."""
    served = {host for host, route in world.cache.items() if route["status"] == "active"}
    assert world.former == {}, "each has had its time"
    assert "moved" not in {route["status"] for route in world.cache.values()}
    if world.lifecycle is Lifecycle.ACTIVE:
        home, goal = world.home, world.goal()
        assert world.cache[world.host] == {
            "status": "active",
            "placement": world.current,
            "release": world.release,
        }
        assert served == set(goal.routes)
        assert home.exists
        assert home.hardened
        assert home.logins_open
        assert home.rows is not None
        assert (home.release or "") >= world.release
        assert home.app.gets_in
        assert world.transfer is None or not world.transfer.phase.before_cut
        for host in world.domains:
            assert world.hostnames[host].ready or world.hostnames[host].refused
        return
    assert served == set()
    assert not any(home.logins_open for home in world.homes.values())
    if world.lifecycle is Lifecycle.CLOSED:
        assert not any(h.id for h in world.hostnames.values())
        assert {route["status"] for route in world.cache.values()} <= {"gone"}
        assert world.purged or world.kept_for() is not None
    if world.purged:
        assert not world.homes
        assert world.copy in (None, "deleted")


@settings(max_examples=300)
@given(BEGINNINGS, RUNS)
def test_once_all_stands_still_every_run_comes_to_rest_with_what_was_asked_for(
    beginning: dict[str, Any], run: list[tuple[str, int, str]]
) -> None:
    world = founded(**beginning)
    for event, turns, fault in run:
        EVENTS[event](world)
        for _ in range(turns):
            turn(world)
        turn(world, fault)
    for _ in range(3):  # what is a matter of time is due after the first
        come_to_rest(world)
        time_passes(world)
    come_to_rest(world)
    require_right(world)
    assert world.plan() == []


@given(RUNS)
def test_a_former_host_leads_to_one_that_leads_nowhere_else(run: list[tuple[str, int, str]]) -> None:
    """Whatever is cut off in between, and however often it is called otherwise."""
    world = founded(isolation=Isolation.SHARED, clone=False, unasked=False, differs=False, cloudflare={})
    come_to_rest(world)
    for event, turns, fault in run:
        EVENTS[event](world)
        rename(world)
        for _ in range(turns):
            turn(world)
        turn(world, fault)
        for host, route in world.cache.items():
            there = world.cache.get(route["to"], {}) if route["status"] == "moved" else {}
            assert there.get("to") != host, "to and fro"


def test_a_copy_that_is_lost_before_the_cut_is_made_anew() -> None:
    world = founded(isolation=Isolation.SHARED, clone=False, unasked=False, differs=False, cloudflare={})
    come_to_rest(world)
    upgrade(world)
    while world.transfer is None or world.transfer.phase is not TransferPhase.FOLLOWING:
        turn(world)
    lose_copy(world)
    come_to_rest(world)
    require_right(world)
    assert world.home.isolation is Isolation.DEDICATED
