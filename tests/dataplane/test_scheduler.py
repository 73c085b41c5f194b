"""The pool scheduler, against any order of events: nothing is checked out twice, lost, or over the limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dataplane.checkout import (
    Blocked,
    Limits,
    PooledConnection,
    Reservation,
    Waiter,
)
from dataplane.errors import DatabaseUnavailable, PoolExhausted
from dataplane.scheduler import Scheduler
from dataplane.tenant_config import MAX_EPOCH
from tests.dataplane.tiers import config

NAMES = ("a", "b", "c", "vip")
KINDS = ("thread", "coroutine")
LIMITS = Limits(budget=3, connecting=2, waiting=3, first_pause=1, longest_pause=8)


def target(name: str, epoch: int = 1, port: int = 5432):  # type: ignore[no-untyped-def]
    made = config(f"{name}.example", epoch, pool_size=2, dedicated=name == "vip")
    assert made.database is not None
    return replace(made, database=replace(made.database, port=port))


class Accounts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Scheduler[int] = Scheduler(LIMITS)
        self.now = 0.0
        self.conns = 0
        self.closed: set[int] = set()
        self.made_for: dict[int, object] = {}
        self.kind_of: dict[int, str] = {}
        self.checked_out: list[PooledConnection[int]] = []
        self.opening: list[Reservation[int]] = []
        self.waiting: list[Waiter[int]] = []
        self.woken = 0
        self.epoch = 1
        self.port = dict.fromkeys(NAMES, 5432)

    def wake(self) -> None:
        self.woken += 1

    def take_in(
        self, grant: PooledConnection[int] | Reservation[int] | Blocked | Waiter[int], kind: str
    ) -> None:
        assert isinstance(grant, Blocked) or grant.kind == kind, "what the other kind can't use"
        if isinstance(grant, PooledConnection):
            assert self.kind_of[grant.conn] == kind
            assert grant not in self.checked_out, "lent to two at once"
            assert grant.conn not in self.closed
            assert grant.place == grant.tenant.place, "a retired connection was lent"
            assert self.made_for[grant.conn] == grant.tenant.target.database, "it leads elsewhere"
            self.checked_out.append(grant)
        elif isinstance(grant, Reservation):
            if grant.victim is not None:
                assert grant.victim not in self.checked_out
                own = grant.victim.tenant is grant.tenant
                assert own or not grant.victim.tenant.dedicated
                assert not own or grant.victim.kind != kind, "closed one that it could have used"
                self.closed.add(grant.victim.conn)
            self.opening.append(grant)
        elif isinstance(grant, Waiter):
            self.waiting.append(grant)

    def collect(self) -> None:
        """What every caller does after a call: close what was discarded, let the woken go on."""
        for held in self.scheduler.discarded:
            assert held not in self.checked_out
            assert held.conn not in self.closed, "closed twice"
            self.closed.add(held.conn)
        self.scheduler.discarded = []
        for waiter in list(self.waiting):
            outcomes = [x for x in (waiter.held, waiter.opening, waiter.error) if x is not None]
            assert len(outcomes) <= 1
            if outcomes:
                self.waiting.remove(waiter)
                self.woken -= 1
                self.take_in(outcomes[0], waiter.kind)
        assert self.woken == 0, "woken without a reason"

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(KINDS))
    def take(self, name: str, kind: str) -> None:
        try:
            where = target(name, self.epoch, self.port[name])
            self.take_in(self.scheduler.take(where, self.now, self.wake, kind), kind)
        except PoolExhausted:
            mine = [t for t in self.waiting if t.tenant.target.slug == name]
            assert len(mine) == LIMITS.waiting
        self.collect()

    @precondition(lambda self: self.checked_out)
    @rule(data=st.data(), fit=st.booleans())
    def checkin(self, data: st.DataObject, fit: bool) -> None:
        held = self.checked_out.pop(data.draw(st.integers(0, len(self.checked_out) - 1)))
        if not fit:
            self.scheduler.drop(held)
            self.closed.add(held.conn)
        elif not self.scheduler.checkin(held, self.now):
            self.closed.add(held.conn)
        self.collect()

    @precondition(lambda self: self.opening)
    @rule(data=st.data(), outcome=st.sampled_from(["opened", "failed", "given up"]))
    def connect(self, data: st.DataObject, outcome: str) -> None:
        opening = self.opening.pop(data.draw(st.integers(0, len(self.opening) - 1)))
        if outcome == "opened":
            self.finish(opening)
        elif outcome == "failed":
            self.scheduler.failed(opening, DatabaseUnavailable(), self.now)
        else:
            self.scheduler.not_opened(opening)
        self.collect()

    def finish(self, opening: Reservation[int]) -> None:
        self.conns += 1
        self.made_for[self.conns] = opening.target.database
        self.kind_of[self.conns] = opening.kind
        self.checked_out.append(self.scheduler.opened(opening, self.conns))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.scheduler.leave(waiter)
        self.collect()

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(idle=st.sampled_from([0.0, 5.0]))
    def expire(self, idle: float) -> None:
        self.scheduler.expire(self.now - idle, self.now)
        self.collect()

    @rule(name=st.sampled_from(NAMES))
    def retire(self, name: str) -> None:
        self.scheduler.retire(f"t-{name}")
        self.collect()

    @rule(name=st.sampled_from(NAMES))
    def move(self, name: str) -> None:
        self.epoch += 1
        self.port[name] += 1

    @invariant()
    def within_the_limits(self) -> None:
        shared = sum(not held.tenant.dedicated for held in self.checked_out) + sum(
            not opening.tenant.dedicated for opening in self.opening
        )
        assert shared <= self.scheduler.shared <= LIMITS.budget
        assert self.scheduler.dedicated <= 2
        for tenant in self.scheduler.tenants.values():
            checked_out = sum(held.tenant is tenant for held in self.checked_out)
            opening = sum(o.tenant is tenant for o in self.opening)
            waiting = sum(t.tenant is tenant for t in self.waiting)
            assert tenant.total == checked_out + opening + len(tenant.idle) <= tenant.target.pool_size
            assert tenant.connecting == opening <= LIMITS.connecting
            assert tenant.waiting == waiting <= LIMITS.waiting

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Someone in line means that something is in use whose end will serve him."""
        for waiter in self.waiting:
            tenant = waiter.tenant
            idle = [held.kind for held in tenant.idle]
            assert waiter.kind not in idle, "waits beside an idle connection of its own"
            if tenant.connecting < (1 if tenant.failures else LIMITS.connecting):
                assert not idle, "waits though one of the other kind could be closed for it"
                full = tenant.total >= tenant.target.pool_size
                assert full or tenant.dedicated or not self.scheduler._idle, "waits though another's is idle"
            own = any(h.tenant is tenant for h in self.checked_out) or any(
                o.tenant is tenant for o in self.opening
            )
            room = self.scheduler.shared < LIMITS.budget
            assert own or (not tenant.dedicated and not room), "waits though it could open"

    def teardown(self) -> None:
        """Whatever came before: once all is given back nobody waits and nothing is left open."""
        for _ in range(200):
            if self.opening:
                opening = self.opening.pop()
                self.finish(opening)
            elif self.checked_out:
                held = self.checked_out.pop()
                if not self.scheduler.checkin(held, self.now):
                    self.closed.add(held.conn)
            self.collect()
        assert not self.waiting
        for kind in KINDS:
            self.scheduler.clear(kind)
            self.collect()
            assert all(
                held.kind != kind for tenant in self.scheduler.tenants.values() for held in tenant.idle
            )
        self.now += 100
        self.scheduler.expire(self.now, self.now)
        assert self.closed == set(range(1, self.conns + 1)), "every connection was closed once"
        assert (self.scheduler.shared, self.scheduler.dedicated, self.scheduler.tenants) == (0, 0, {})


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def wake() -> None:
    """Tests that look at tickets need nobody to be woken."""


def opened(scheduler: Scheduler[int], name: str, conn: int = 0) -> PooledConnection[int]:
    grant = scheduler.take(target(name), 0, wake)
    assert isinstance(grant, Reservation)
    return scheduler.opened(grant, conn)


def test_who_waited_longest_is_served_first_over_all_tenants() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits(budget=2))
    first, second = opened(scheduler, "a", 1), opened(scheduler, "a", 2)
    b = scheduler.take(target("b"), 0, wake)
    again = scheduler.take(target("a"), 0, wake)
    assert isinstance(b, Waiter)
    assert isinstance(again, Waiter)
    scheduler.checkin(first, 1)
    assert b.opening is not None, "the busy tenant does not keep the newcomer out"
    assert b.opening.victim is first
    assert again.held is None
    scheduler.checkin(second, 2)
    assert again.held is second


def test_an_idle_connection_of_the_other_kind_makes_room() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits(budget=2))
    first, second = opened(scheduler, "a", 1), opened(scheduler, "b", 2)
    waits = scheduler.take(target("c"), 0, wake, "coroutine")
    assert isinstance(waits, Waiter)
    scheduler.checkin(first, 1)
    assert waits.opening is not None
    assert waits.opening.kind == "coroutine"
    assert waits.opening.victim is first
    scheduler.checkin(second, 2)
    grant = scheduler.take(target("b"), 3, wake, "coroutine")
    assert isinstance(grant, Reservation)
    assert grant.victim is second, "the tenant's own, which it can't use"


def test_a_failed_connect_answers_all_who_wait_and_then_one_tries() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits(connecting=1, first_pause=1, longest_pause=4))
    grant = scheduler.take(target("a"), 0, wake)
    waits = scheduler.take(target("a"), 0, wake)
    assert isinstance(grant, Reservation)
    assert isinstance(waits, Waiter)
    pauses = []
    now = 0.0
    for _ in range(4):
        scheduler.failed(grant, DatabaseUnavailable("dead"), now)
        blocked = scheduler.take(target("a"), now, wake)
        assert isinstance(blocked, Blocked)
        pauses.append(blocked.retry_after)
        now += blocked.retry_after
        grant = scheduler.take(target("a"), now, wake)
        assert isinstance(grant, Reservation)
        assert isinstance(scheduler.take(target("a"), now, wake), Blocked), "only one tries"
    assert pauses == [1, 2, 4, 4]
    assert waits.error is not None
    assert str(waits.error.error) == "dead"
    scheduler.opened(grant, 1)
    assert isinstance(scheduler.take(target("a"), now, wake), Reservation), "it works again for everybody"


def test_the_newer_epoch_says_where_the_tenant_is() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits())
    held = opened(scheduler, "a", 1)
    scheduler.checkin(held, 0)
    moved = scheduler.take(target("a", epoch=2, port=6000), 0, wake)
    assert isinstance(moved, Reservation)
    assert scheduler.discarded == [held]
    scheduler.checkin(scheduler.opened(moved, 2), 0)
    late = scheduler.take(target("a", epoch=1, port=5432), 0, wake)
    assert isinstance(late, PooledConnection)
    assert late.conn == 2, "a request with the older configuration follows"


def test_an_epoch_that_was_forged_does_not_keep_the_tenant_where_it_led() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits())
    held = opened(scheduler, "a", 1)
    scheduler.checkin(held, 0)
    forged = scheduler.take(target("a", epoch=MAX_EPOCH, port=6666), 0, wake)
    assert isinstance(forged, Reservation)
    scheduler.checkin(scheduler.opened(forged, 2), 0)
    back = scheduler.take(target("a", epoch=1), 0, wake)
    assert isinstance(back, Reservation)
    assert back.tenant.target.database is not None
    assert back.tenant.target.database.port == 5432


def test_a_connection_that_was_being_opened_while_the_tenant_moved_is_used_once() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits())
    slow = scheduler.take(target("a"), 0, wake)
    scheduler.retire("t-a")
    assert isinstance(slow, Reservation)
    held = scheduler.opened(slow, 1)
    assert not scheduler.checkin(held, 0)
    slow = scheduler.take(target("a"), 0, wake)
    assert isinstance(slow, Reservation)
    scheduler.take(target("a", epoch=2, port=6000), 0, wake)
    scheduler.failed(slow, DatabaseUnavailable("the old place"), 0)
    assert isinstance(scheduler.take(target("a", epoch=2, port=6000), 0, wake), Reservation), (
        "not blocked for that"
    )


def test_a_plan_that_became_dedicated_leaves_the_budget() -> None:
    scheduler: Scheduler[int] = Scheduler(Limits(budget=1))
    held = opened(scheduler, "a", 1)
    scheduler.checkin(held, 0)
    promoted = replace(target("a", epoch=2), dedicated=True)
    assert scheduler.take(promoted, 0, wake) is held
    assert (scheduler.shared, scheduler.dedicated) == (0, 1)
    assert isinstance(scheduler.take(target("b"), 0, wake), Reservation)
    demoted = scheduler.take(target("a", epoch=3), 0, wake)
    assert isinstance(demoted, Waiter)
    assert not scheduler.checkin(held, 0), "back in a budget that is full: closed"


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="budget: expected at least 1, got 0"):
        Limits(budget=0)
