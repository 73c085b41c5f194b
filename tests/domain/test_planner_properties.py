"""Whatever happens, the planner ends, and deletes nothing that nobody gave up.

Two kinds of properties. In a world (`tests/domain/world.py`) any steps fail, are done twice or cut off and
any events come in between; once both cease, every run comes to rest with what was asked for. And over
records and statuses that are drawn freely, those that no run reaches included, what deletes, opens or
publishes is planned only by the word that it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.catalogue import Isolation
from controlplane.domain.cluster import ClusterLifecycle
from controlplane.domain.planner import (
    ClusterGoal,
    LastTransfer,
    PurgeGoal,
    ResidenceGoal,
    RetentionGoal,
    TenantGoal,
    TransferGoal,
    plan_cluster,
    plan_tenant,
)
from controlplane.domain.status import (
    ClusterStatus,
    CredentialStatus,
    DatabaseStatus,
    HostnameStatus,
    PurgeStatus,
    TenantStatus,
    TransferStatus,
)
from controlplane.domain.steps import Step, StepName
from controlplane.domain.tenant import Lifecycle
from controlplane.domain.transfer import TransferKind, TransferPhase
from tests.domain.world import GRACE, ROTATE_AFTER, ZONE_HOST, Failed, Home, Transfer, World

S = StepName
DELETES_ROWS = {S.DROP_DATABASE, S.DESTROY_TENANT_STACK, S.RELEASE_PLACEMENT}
OF_A_PURGE = DELETES_ROWS | {S.KEEP_COPY, S.AWAIT_CLUSTER_END, S.CERTIFY, S.DELETE_COPY}
SAME_STEP_AT_MOST = 3  # of `workers/engine/converge.py`: the engine calls a fourth one "did not take"
STEPS_AT_MOST = 60

# ------------------------------------------------------------------------------------------ a world


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
        world.transfer = Transfer(TransferKind.MOVE, world.home.number, plan, to, by_hand=True)


def ask_for_restore(world: World) -> None:
    if movable(world):
        plan, to = world.plan_name, world.isolation
        world.transfer = Transfer(TransferKind.RESTORE, world.home.number, plan, to, by_hand=True)


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


def pay(world: World) -> None:
    world.pays = not world.pays


def lose_cache(world: World) -> None:
    world.cache = {}


def unproven(world: World) -> None:
    world.access_proof = None
    if world.transfer is not None:
        world.transfer.access_proof = None


def forget(world: World) -> None:
    """Nothing that was confirmed is believed any more."""
    unproven(world)
    for home in world.homes.values():
        home.confirmed = home.app.recorded = home.migrator.recorded = None


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
        home.app.on_server = home.migrator.on_server = None


def rollout(world: World) -> None:
    """It brings the database ahead of what the tenant asks for; not while it moves."""
    if world.current is not None and world.home.release == world.release and world.transfer is None:
        world.home.release = f"{int(world.release) + 1:04d}"


def ask_for_rotation(world: World) -> None:
    for home in world.homes.values():
        home.app.requested, home.migrator.requested = home.app.generation + 1, home.migrator.generation + 1


def domains(*hosts: str) -> Callable[[World], None]:
    def event(world: World) -> None:
        world.domains = hosts

    return event


def time_passes(world: World) -> None:
    """Enough for whatever is only a matter of time."""
    world.retention_over = world.lifecycle is Lifecycle.CLOSED
    world.copy_overdue = world.purged
    if world.transfer is not None:
        world.transfer.kept_long = True
    for home in world.homes.values():
        for login in (home.app, home.migrator):
            login.age += GRACE
            login.retire_in = None if login.retire_in is None else login.retire_in - GRACE
    world.hostnames = {host: replace(h, poll_due=not h.ready) for host, h in world.hostnames.items()}


def years_pass(world: World) -> None:
    for home in world.homes.values():
        home.app.age = home.migrator.age = ROTATE_AFTER


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
    if world.lifecycle is Lifecycle.ACTIVE:
        home, goal = world.home, world.goal()
        assert world.cache[ZONE_HOST] == {
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
        assert home.migrator.recorded == home.migrator.secret
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


# ------------------------------------------------------------------------------------- one cluster

CLUSTERS = st.builds(
    ClusterStatus,
    stack_digest=st.sampled_from([None, "d", "older"]),
    status=st.sampled_from([None, "creating", "available"]),
    writer_status=st.sampled_from([None, "creating", "available"]),
    hardened=st.booleans(),
    destroyed=st.booleans(),
    keeps_key=st.booleans(),
)
CLUSTER_GOALS = st.builds(
    ClusterGoal, st.sampled_from(ClusterLifecycle), stack_digest=st.just("d"), key=st.booleans()
)
EFFECTS: Mapping[StepName, Callable[[ClusterGoal, ClusterStatus], ClusterStatus]] = {
    S.APPLY_CLUSTER_STACK: lambda goal, status: replace(
        status, stack_digest=goal.stack_digest, status=status.status or "creating"
    ),
    S.AWAIT_AVAILABLE: lambda _, status: replace(status, status="available", writer_status="available"),
    S.HARDEN_CLUSTER: lambda _, status: replace(status, hardened=True),
    S.DESTROY_CLUSTER_STACK: lambda goal, status: replace(
        status, status=None, writer_status=None, destroyed=True, keeps_key=goal.key
    ),
}


@given(CLUSTER_GOALS, CLUSTERS)
def test_a_cluster_is_made_or_destroyed_from_wherever_it_is(goal: ClusterGoal, status: ClusterStatus) -> None:
    for _ in range(len(EFFECTS)):
        for step in plan_cluster(goal, status)[:1]:
            status = EFFECTS[step.name](goal, status)
    assert plan_cluster(goal, status) == []
    if goal.lifecycle is ClusterLifecycle.ACTIVE:
        assert status.available
        assert status.hardened
        assert status.stack_digest == goal.stack_digest
    else:
        assert status.destroyed
        assert status.status is None
        assert goal.key or not status.keeps_key


@given(CLUSTER_GOALS, CLUSTERS)
def test_only_a_closed_cluster_is_destroyed_and_it_is_not_made_again(
    goal: ClusterGoal, status: ClusterStatus
) -> None:
    names = {step.name for step in plan_cluster(goal, status)}
    closed = goal.lifecycle is ClusterLifecycle.CLOSED
    assert names <= ({S.DESTROY_CLUSTER_STACK} if closed else EFFECTS.keys() - {S.DESTROY_CLUSTER_STACK})


# --------------------------------------------------------------- records and statuses, drawn freely

# Nothing here needs to be shrunk, and each part is one of few: a seed draws them, and all properties look at
# the same thousands of situations in the time in which Hypothesis draws some dozens.
BOTH = (False, True)


def every(what: Callable[..., Any], *values: Sequence[Any]) -> list[Any]:
    return [what(*each) for each in product(*values)]


HOSTS = ("a.z", "www.a.dev", "old.a.dev")
CREDENTIALS = every(
    CredentialStatus, (None, "v1"), (None, "v1"), (1,), (1, 2), (0.0, 100.0), (None, 0.0, 5.0)
)
DATABASES = [None, *every(DatabaseStatus, BOTH, BOTH, BOTH, (None, "0001", "0003"), BOTH)]
ROUTES = every(
    lambda *each: {host: {"status": s} for host, s in zip(HOSTS, each, strict=True) if s is not None},
    *[(None, "provisioning", "active", "suspended", "gone")] * len(HOSTS),
)
HOSTNAMES = [
    (),
    *every(lambda *each: (HostnameStatus(*each),), HOSTS, (None, "id"), ("active", "new"), ("active",), BOTH),
]
PURGINGS = [None, *every(PurgeStatus, *[BOTH] * 6)]
FOUND = every(TransferStatus, *[BOTH] * 6)
TRANSFERS = [
    found
    for found in every(
        TransferGoal, TransferPhase, (None, 2), BOTH, BOTH, TransferKind, ((), ("notes",)), BOTH
    )
    if found.phase.before_cut or not found.pointless
]
PURGES = [None, PurgeGoal(7, cluster_goes=False), PurgeGoal(7, cluster_goes=True)]
RETENTIONS = [None, *every(RetentionGoal, (0.0, 1.0), (None,), (None, "it pays"), BOTH, BOTH, BOTH)]
LAST = [None, *every(LastTransfer, TransferPhase, ("team", "starter"), BOTH, BOTH)]
RESIDENCES = [None, *every(ResidenceGoal, ("team",), Isolation, Isolation, LAST)]


def status_of(draw: Random, *, secondary: TenantStatus | None = None) -> TenantStatus:
    return TenantStatus(
        cluster_ready=draw.choice(BOTH),
        stack_digest=draw.choice((None, "d", "older")),
        database=draw.choice(DATABASES),
        app=draw.choice(CREDENTIALS),
        migrator=draw.choice(CREDENTIALS),
        access_proof=draw.choice((None, "p", "older")),
        routes=draw.choice(ROUTES),
        hostnames=draw.choice(HOSTNAMES),
        purging=draw.choice(PURGINGS),
        transfer=draw.choice(FOUND),
        secondary=secondary,
    )


def situation(draw: Random) -> tuple[TenantGoal, TenantStatus]:
    """A goal as the engine spells it out: only an active tenant is announced, has active routes and a
    residence, only a closed one has a retention."""
    lifecycle = draw.choice((Lifecycle.ACTIVE, Lifecycle.SUSPENDED, Lifecycle.CLOSED, Lifecycle.CLOSED))
    active, closed = lifecycle is Lifecycle.ACTIVE, lifecycle is Lifecycle.CLOSED
    routed = () if closed else HOSTS[: draw.randrange(3)]
    goal = TenantGoal(
        lifecycle=lifecycle,
        stack_digest="d",
        release=draw.choice((None, "0002")),
        access_proof=draw.choice((None, "p")),
        routes={host: {"status": "active" if active else "suspended"} for host in routed},
        announcement={"a.z": {"status": "provisioning"}} if active else {},
        domains=() if closed else HOSTS[1:2],
        withdrawn=tuple(host for host in HOSTS if host not in routed),
        rotate_after=draw.choice((None, 50.0)),
        purge=draw.choice(PURGES),
        retention=draw.choice(RETENTIONS) if closed else None,
        residence=draw.choice(RESIDENCES) if active else None,
        transfer=draw.choice((None, draw.choice(TRANSFERS))),
    )
    there = draw.choice((None, status_of(draw)))
    return replace(goal, secondary=replace(goal, stack_digest="other")), status_of(draw, secondary=there)


@cache
def planned() -> list[tuple[TenantGoal, TenantStatus, list[Step]]]:
    drawn = [situation(Random(seed)) for seed in range(10_000)]
    return [(goal, status, plan_tenant(goal, status)) for goal, status in drawn]


def before(steps: list[Step], name: StepName) -> list[StepName]:
    """The names of the steps that precede the first of this name."""
    names = [step.name for step in steps]
    return names[: names.index(name)]


def test_the_situations_call_for_every_step() -> None:
    every_step = {step.name for _, _, steps in planned() for step in steps}
    assert set(S) - every_step == EFFECTS.keys()


def test_nothing_is_deleted_without_the_word_that_it_needs() -> None:
    for goal, status, steps in planned():
        for step in steps:
            if step.name in OF_A_PURGE:
                assert goal.lifecycle is Lifecycle.CLOSED
                assert goal.purge is not None, "nobody has approved it"
            if step.name is S.DELETE_COPY:
                assert status.purging is not None
                assert (status.purging.purged, status.purging.copy_overdue) == (True, True)
            if step.name is S.REMOVE_PLACEMENT:
                assert goal.transfer is not None, "without a move there is only the current one"
                assert goal.transfer.phase in (TransferPhase.CONFIRMED, TransferPhase.ABORTED)
                assert step.placement == goal.transfer.number


def test_nobody_is_asked_to_decide_what_the_clock_must_not() -> None:
    """What makes the word that deleting needs: an order, and the confirmation of a move."""
    for goal, _, steps in planned():
        names = {step.name for step in steps}
        if S.CONFIRM_TRANSFER in names:
            assert goal.transfer is not None
            assert (goal.transfer.phase, goal.transfer.overdue) == (TransferPhase.REVERSIBLE, True)
        if S.ORDER_PURGE in names:
            due = goal.retention
            assert due is not None
            assert (due.left, due.kept_for, due.unasked, due.requested) == (0.0, None, True, False)


def test_who_is_suspended_or_leaves_gets_no_login_and_no_active_route() -> None:
    for goal, status, steps in planned():
        if goal.lifecycle is Lifecycle.ACTIVE:
            continue
        names = [step.name for step in steps]
        assert not {S.OPEN_LOGINS, S.ANNOUNCE, S.CUT_OVER, S.BEGIN_TRANSFER} & set(names)
        shown = [step for step in steps if step.name in (S.PUBLISH, S.WITHDRAW)]
        for step in shown:
            assert step.name is S.WITHDRAW or goal.routes[step.target]["status"] != "active"
        if status.database is not None and status.database.exists and status.database.logins_open:
            assert before(steps, S.CLOSE_LOGINS)[: len(shown)] == [step.name for step in shown]


def test_a_copy_is_kept_before_what_it_is_made_of_goes() -> None:
    for goal, status, steps in planned():
        names = {step.name for step in steps}
        for name in DELETES_ROWS & names:
            assert status.purging is not None
            database = status.database
            missing = database is not None and database.exists and not status.purging.copied
            assert (S.KEEP_COPY in before(steps, name)) is missing, f"{name}: {status}"
        if S.DROP_DATABASE in names:
            assert goal.purge is not None
            assert not goal.purge.cluster_goes, "the copy is a snapshot of the whole cluster"


def test_nothing_is_left_on_a_cluster_whose_slot_is_given_up() -> None:
    for goal, status, steps in planned():
        if S.RELEASE_PLACEMENT not in {step.name for step in steps}:
            continue
        assert goal.purge is not None
        database = status.database
        left = database is not None and (database.exists or database.roles)
        dropped = S.DROP_DATABASE in before(steps, S.RELEASE_PLACEMENT)
        assert dropped is (left and not goal.purge.cluster_goes)


def test_a_domain_is_taken_back_from_cloudflare_once_nobody_asks_for_it() -> None:
    for goal, status, steps in planned():
        removed = {step.target for step in steps if step.name is S.REMOVE_HOSTNAME}
        given = {hostname.host for hostname in status.hostnames if hostname.id is not None}
        assert removed <= given - set(goal.domains)
        if goal.lifecycle is Lifecycle.CLOSED:
            assert removed == given


def test_while_writing_is_paused_nothing_else_is_done() -> None:
    for goal, _, steps in planned():
        paused = goal.transfer is not None and goal.transfer.phase is TransferPhase.CUT
        if paused and goal.lifecycle is Lifecycle.ACTIVE:
            assert {step.name for step in steps} <= {S.CUT_OVER, S.ABORT_TRANSFER}


def test_what_can_not_be_taken_back_comes_when_all_else_is_done() -> None:
    for _, _, steps in planned():
        assert not {S.CERTIFY, S.ORDER_PURGE, S.BEGIN_TRANSFER} & {step.name for step in steps[:-1]}
