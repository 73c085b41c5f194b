"""The bookkeeping of a pool whose connections belong to many tenants: who may open, use, wait, evict.

A pool per tenant does not reach ten thousand tenants: each keeps threads and connections for
customers who are asleep. Here all share one budget, connections are opened for whoever comes and the
longest idle one, whosesoever it is, makes room. What remains to be decided is small but easy to get
wrong, so it stands here alone, without I/O or a clock: the thread pools and the asyncio pools
both call it, and both only do what it says. One process has one scheduler for both, so that the budget and
the tenants' limits are those of the process. It is not thread-safe: hold `lock` around each call, and
never while waiting for anything else. `Waiter.wake` is called from whichever thread gave something back.

Rules. Nobody overtakes: what becomes free goes to whoever has waited longest, within the tenant or
over the budget. A tenant holds at most its own number of connections, opens at most `connecting` at
a time, and has at most `waiting` requests in line, so a tenant whose database hangs holds a known
number of threads. After a failed connect the tenant is *blocked*: its requests fail at once, until a
single one may try again after a pause that doubles. Dedicated tenants stand outside the budget. Where
a connection is idle that is of the wrong kind for whoever waits, it is closed for one of the right kind.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic

from dataplane.checkout import (
    Blocked,
    C,
    Limits,
    PooledConnection,
    Reservation,
    Tenant,
    Waiter,
)
from dataplane.errors import DatabaseError, PoolExhausted
from dataplane.tenant_config import EPOCH_STEP, TenantConfig


class Scheduler(Generic[C]):
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._begin()

    def _begin(self) -> None:
        self.lock = threading.Lock()
        self.shared = 0  # connections that count against the budget
        self.dedicated = 0
        self.tenants: dict[str, Tenant[C]] = {}
        self.discarded: list[PooledConnection[C]] = []  # for the caller to close, outside of its lock
        self._idle: OrderedDict[PooledConnection[C], None] = (
            OrderedDict()
        )  # of the shared budget, longest idle first
        self._idle_dedicated: OrderedDict[PooledConnection[C], None] = OrderedDict()
        self._line: deque[Waiter[C]] = deque()  # for the budget, in order of `number`
        self._numbers = 0

    # ------------------------------------------------------------------------------- a request

    def take(
        self, target: TenantConfig, now: float, wake: Callable[[], None], kind: str = ""
    ) -> PooledConnection[C] | Reservation[C] | Blocked | Waiter[C]:
        """What a request for this tenant gets now; a connection of that `kind`. Raises PoolExhausted where
        the line is full.

        A tenant has one place at a time: where two configurations disagree the one of the newer
        epoch counts, for whoever comes with the older one too. One far behind is no older one: the
        resolver has let go of a forged entry.
        """
        tenant = self.tenants.get(target.tenant_id)
        if tenant is None:
            tenant = self.tenants[target.tenant_id] = Tenant(target, target.dedicated)
        elif target is not tenant.target and (
            target.epoch >= tenant.target.epoch or tenant.target.epoch - target.epoch > EPOCH_STEP
        ):
            self._follow(tenant, target)
        held = self._checkout(tenant, kind)
        if held is not None:
            return held
        blocked = self._blocked(tenant, now)
        if blocked is not None:
            return blocked
        if not tenant.waiting and self._may_open(tenant):
            opening = self._open(tenant, kind) if tenant.dedicated or not self._line else None
            if opening is not None:
                return opening
        if tenant.waiting >= self.limits.waiting:
            raise PoolExhausted(f"{tenant.waiting} requests are in line already", retry_after=1.0)
        self._numbers += 1
        waiter = Waiter(tenant, kind, self._numbers, wake)
        tenant.waiting += 1
        if self._may_open(tenant):
            self._line.append(waiter)
        else:
            tenant.line.append(waiter)
        return waiter

    def leave(self, waiter: Waiter[C]) -> bool:
        """Leave the line. False where something was granted meanwhile: the caller has it then."""
        if waiter.held is not None or waiter.opening is not None or waiter.error is not None:
            return False
        waiter.tenant.waiting -= 1
        for line in (waiter.tenant.line, self._line):
            if waiter in line:
                line.remove(waiter)
        return True

    # ------------------------------------------------------------------------------- what became of it

    def opened(self, opening: Reservation[C], conn: C) -> PooledConnection[C]:
        """The caller has the connection. If the tenant has moved meanwhile it is used this once."""
        tenant = opening.tenant
        tenant.connecting -= 1
        if opening.place == tenant.place:
            tenant.failures, tenant.error = 0, None
        self._serve(tenant)
        return PooledConnection(conn, opening)

    def failed(self, opening: Reservation[C], error: DatabaseError, now: float) -> None:
        """A connect failed: block the tenant, and tell all who wait for it."""
        tenant = opening.tenant
        if opening.place != tenant.place:
            self.not_opened(opening)  # where it is now may well answer
            return
        tenant.connecting -= 1
        self._count(tenant, -1)
        self._block(tenant, error, now)
        self._serve_budget()
        self._forget(tenant)

    def not_opened(self, opening: Reservation[C]) -> None:
        """A connect was given up for a reason that is not the tenant's: nobody is blocked."""
        tenant = opening.tenant
        tenant.connecting -= 1
        self._count(tenant, -1)
        self._serve(tenant)
        self._serve_budget()
        self._forget(tenant)

    def checkin(self, held: PooledConnection[C], now: float) -> bool:
        """Return a connection that is fit for reuse. False: it is not wanted any more, close it."""
        tenant = held.tenant
        over = self.shared > self.limits.budget and not tenant.dedicated
        if held.place != tenant.place or tenant.total > tenant.target.pool_size or over:
            self.drop(held)
            return False
        held.idle_since = now
        tenant.idle.append(held)
        self._idle_of(tenant)[held] = None
        self._serve(tenant)
        self._serve_budget()
        return True

    def drop(self, held: PooledConnection[C]) -> None:
        """A lent connection is closed, by whom it was lent to."""
        self._count(held.tenant, -1)
        self._serve(held.tenant)
        self._serve_budget()
        self._forget(held.tenant)

    def retire(self, tenant_id: str) -> None:
        """None of the tenant's connections is used again: its login or its place has changed."""
        tenant = self.tenants.get(tenant_id)
        if tenant is not None:
            self._retire(tenant)
            self._serve(tenant)
            self._serve_budget()
            self._forget(tenant)

    def expire(self, before: float, now: float) -> None:
        """Discard what has been idle since before that time, forget who was blocked long ago."""
        for idle in (self._idle, self._idle_dedicated):
            while idle and next(iter(idle)).idle_since < before:
                self._discard(next(iter(idle)))
        self._serve_budget()
        for tenant in [tenant for tenant in self.tenants.values() if not tenant.total]:
            if now > tenant.blocked_until + self.limits.longest_pause:
                tenant.failures, tenant.error = 0, None
            self._forget(tenant)

    def evict(self, wanted: Callable[[PooledConnection[C]], bool]) -> PooledConnection[C] | None:
        """The longest idle connection that is `wanted`, to be closed; None where there is none."""
        for held in (*self._idle, *self._idle_dedicated):
            if wanted(held):
                self._remove_idle(held)
                self._forget(held.tenant)
                return held
        return None

    def clear(self, kind: str = "") -> None:
        """Discard everything idle of that kind."""
        for held in [*self._idle, *self._idle_dedicated]:
            if held.kind == kind:
                self._discard(held)
        for tenant in list(self.tenants.values()):
            self._serve(tenant)
            self._forget(tenant)
        self._serve_budget()

    def forked(self) -> None:
        """In a child process: begin anew. The connections are the parent's, and closing them here would
        end them for it; they are kept, so that nobody closes them."""
        self._inherited = self.__dict__.copy()
        self._begin()

    # ------------------------------------------------------------------------------- inside

    def _may_open(self, tenant: Tenant[C]) -> bool:
        """For whom none of its idle connections is of use: one of them makes room."""
        allowed = 1 if tenant.failures else self.limits.connecting
        return tenant.total - len(tenant.idle) < tenant.target.pool_size and tenant.connecting < allowed

    def _blocked(self, tenant: Tenant[C], now: float) -> Blocked | None:
        if tenant.error is None:
            return None
        if now < tenant.blocked_until:
            return Blocked(tenant.error, tenant.blocked_until - now)
        # One tries again; the others are not made to wait for what will probably fail.
        return Blocked(tenant.error, self.limits.first_pause) if tenant.connecting else None

    def _block(self, tenant: Tenant[C], error: DatabaseError, now: float) -> None:
        pause = min(self.limits.first_pause * 2 ** min(tenant.failures, 16), self.limits.longest_pause)
        tenant.failures += 1
        tenant.blocked_until = now + pause
        tenant.error = error
        answer = Blocked(error, pause)
        own = [waiter for waiter in self._line if waiter.tenant is tenant]
        for waiter in own:
            self._line.remove(waiter)
        own.extend(tenant.line)
        tenant.line.clear()
        tenant.waiting = 0
        for waiter in own:
            waiter.error = answer
            waiter.wake()

    def _open(self, tenant: Tenant[C], kind: str) -> Reservation[C] | None:
        """Leave to open, if there is room or somebody idle makes it."""
        victim = None
        if tenant.total >= tenant.target.pool_size:
            victim = tenant.idle[0]
        elif not tenant.dedicated and self.shared >= self.limits.budget:
            if not self._idle:
                return None
            victim = next(iter(self._idle))
        tenant.connecting += 1
        self._count(tenant, +1)
        if victim is not None:
            self._remove_idle(victim)
            self._forget(victim.tenant)
        return Reservation(tenant, kind, tenant.target, tenant.place, victim)

    def _checkout(self, tenant: Tenant[C], kind: str) -> PooledConnection[C] | None:
        for held in reversed(tenant.idle):  # the one used last: its caches are warm, the others may expire
            if held.kind == kind:
                tenant.idle.remove(held)
                del self._idle_of(tenant)[held]
                return held
        return None

    def _serve(self, tenant: Tenant[C]) -> None:
        """Those in the tenant's own line who may use what is idle, or open, now."""
        for waiter in list(tenant.line):
            if not tenant.dedicated and self._line and self._line[0].number < waiter.number:
                self._serve_budget()
            held = self._checkout(tenant, waiter.kind)
            if held is not None:
                tenant.line.remove(waiter)
                self._hand(waiter, held)
            elif self._may_open(tenant):
                tenant.line.remove(waiter)
                opening = self._open(tenant, waiter.kind) if tenant.dedicated or not self._line else None
                if opening is not None:
                    self._grant(waiter, opening)
                    continue
                self._join_budget_line(waiter)
                if not self._serve_budget():
                    return

    def _join_budget_line(self, waiter: Waiter[C]) -> None:
        at = len(self._line)
        while at and self._line[at - 1].number > waiter.number:
            at -= 1
        self._line.insert(at, waiter)

    def _serve_budget(self) -> bool:
        """The line of the budget, in order, as far as there is room. True if somebody got some."""
        served = False
        while self._line and (self.shared < self.limits.budget or self._idle):
            waiter = self._line.popleft()
            tenant = waiter.tenant
            held = self._checkout(tenant, waiter.kind)
            if held is not None:
                self._hand(waiter, held)
                served = True
                continue
            opening = self._open(tenant, waiter.kind) if self._may_open(tenant) else None
            if opening is None:
                tenant.line.appendleft(waiter)
                continue
            self._grant(waiter, opening)
            served = True
        return served

    def _hand(self, waiter: Waiter[C], held: PooledConnection[C]) -> None:
        waiter.tenant.waiting -= 1
        waiter.held = held
        waiter.wake()

    def _grant(self, waiter: Waiter[C], opening: Reservation[C]) -> None:
        waiter.tenant.waiting -= 1
        waiter.opening = opening
        waiter.wake()

    def _idle_of(self, tenant: Tenant[C]) -> OrderedDict[PooledConnection[C], None]:
        return self._idle_dedicated if tenant.dedicated else self._idle

    def _remove_idle(self, held: PooledConnection[C]) -> None:
        held.tenant.idle.remove(held)
        del self._idle_of(held.tenant)[held]
        self._count(held.tenant, -1)

    def _count(self, tenant: Tenant[C], change: int) -> None:
        tenant.total += change
        if tenant.dedicated:
            self.dedicated += change
        else:
            self.shared += change

    def _discard(self, held: PooledConnection[C]) -> None:
        self._remove_idle(held)
        self.discarded.append(held)

    def _retire(self, tenant: Tenant[C]) -> None:
        tenant.place += 1
        tenant.failures, tenant.blocked_until, tenant.error = 0, 0.0, None
        for held in list(tenant.idle):
            self._discard(held)

    def _follow(self, tenant: Tenant[C], target: TenantConfig) -> None:
        """The tenant's configuration has changed."""
        moved = target.database != tenant.target.database
        tenant.target = target
        if moved:
            self._retire(tenant)
        if tenant.dedicated != target.dedicated:
            for held in tenant.idle:
                del self._idle_of(tenant)[held]
            total = tenant.total
            self._count(tenant, -total)
            tenant.dedicated = target.dedicated
            self._count(tenant, total)
            for held in tenant.idle:
                self._idle_of(tenant)[held] = None

    def _forget(self, tenant: Tenant[C]) -> None:
        if not tenant.total and not tenant.waiting and not tenant.failures:
            self.tenants.pop(tenant.target.tenant_id, None)
