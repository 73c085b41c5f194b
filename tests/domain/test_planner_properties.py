"""Over whatever record and status, those that no run reaches included: what deletes, opens or publishes is
planned only by the word that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from random import Random
from typing import Any

from hypothesis import given
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

S = StepName
DELETES_ROWS = {S.DROP_DATABASE, S.RELEASE_PLACEMENT}
OF_A_PURGE = DELETES_ROWS | {S.KEEP_COPY, S.AWAIT_SECRET_END, S.AWAIT_CLUSTER_END, S.CERTIFY, S.DELETE_COPY}

# ------------------------------------------------------------------------------------- one cluster

CLUSTERS = st.builds(
    ClusterStatus,
    stack_digest=st.sampled_from([None, "d", "older"]),
    status=st.sampled_from([None, "creating", "available"]),
    writer_status=st.sampled_from([None, "creating", "available"]),
    hardened=st.booleans(),
    destroyed=st.booleans(),
    keeps_key=st.booleans(),
    placements_digest=st.sampled_from([None, "", "p", "older"]),
    releasing=st.booleans(),
)
CLUSTER_GOALS = st.builds(
    ClusterGoal,
    st.sampled_from(ClusterLifecycle),
    stack_digest=st.just("d"),
    placements=st.sampled_from([0, 3]),
    placements_digest=st.just("p"),
    key=st.booleans(),
)
EFFECTS: Mapping[StepName, Callable[[ClusterGoal, ClusterStatus], ClusterStatus]] = {
    S.APPLY_CLUSTER_STACK: lambda goal, status: replace(
        status, stack_digest=goal.stack_digest, status=status.status or "creating"
    ),
    S.AWAIT_AVAILABLE: lambda _, status: replace(status, status="available", writer_status="available"),
    S.HARDEN_CLUSTER: lambda _, status: replace(status, hardened=True),
    S.APPLY_PLACEMENTS_STACK: lambda goal, status: replace(
        status, placements_digest=goal.placements_digest, releasing=False
    ),
    S.DESTROY_PLACEMENTS_STACK: lambda _, status: replace(status, placements_digest=None, releasing=False),
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
        assert not status.releasing
        assert status.placements_digest == "p" or not (goal.placements or status.placements_digest)
    else:
        assert status.destroyed
        assert status.status is None
        assert status.placements_digest is None
        assert goal.key or not status.keeps_key


@given(CLUSTER_GOALS, CLUSTERS)
def test_only_a_closed_cluster_is_destroyed_and_it_is_not_made_again(
    goal: ClusterGoal, status: ClusterStatus
) -> None:
    names = {step.name for step in plan_cluster(goal, status)}
    closed = goal.lifecycle is ClusterLifecycle.CLOSED
    destroying = {S.DESTROY_PLACEMENTS_STACK, S.DESTROY_CLUSTER_STACK}
    assert names <= (destroying if closed else EFFECTS.keys() - destroying)


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
    *[(None, "provisioning", "active", "suspended", "moved", "gone")] * len(HOSTS),
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
        secret_made=draw.choice(BOTH),
        database=draw.choice(DATABASES),
        app=draw.choice(CREDENTIALS),
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
        release=draw.choice((None, "0002")),
        access_proof=draw.choice((None, "p")),
        routes={host: {"status": "active" if active else "suspended"} for host in routed},
        announcement={"a.z": {"status": "provisioning"}} if active else {},
        domains=() if closed else HOSTS[1:2],
        withdrawn=tuple(host for host in HOSTS if host not in routed),
        released={host: host for host in HOSTS if host not in routed and draw.choice(BOTH)},
        rotate_after=draw.choice((None, 50.0)),
        purge=draw.choice(PURGES),
        retention=draw.choice(RETENTIONS) if closed else None,
        residence=draw.choice(RESIDENCES) if active else None,
        transfer=draw.choice((None, draw.choice(TRANSFERS))),
    )
    there = draw.choice((None, status_of(draw)))
    return replace(goal, secondary=goal), status_of(draw, secondary=there)


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
                assert step.placement == goal.transfer.other


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
