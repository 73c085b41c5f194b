"""Host → tenant, from memory in about a microsecond, and truthfully when nothing behind answers.

Several things can go wrong with a cache that decides whose data a request sees, and each has its rule.

*It lies after a change.* An invalidation marks the entry as outdated at once and names the epoch that
replaces it; from then on nothing older is served or stored, whatever a slow reader that began before
the change may bring back (`_Flight`, and the epochs of the cache, which only rise). Whoever could not hear
for a while treats all it knows as unconfirmed.

*It is forged.* Who can verify an entry can sign one, with any epoch. So the last tier's word stands above
an epoch that came from the cache: where the control plane has overwritten a forged entry with its own, which
is older by epoch, the cache's answer is not taken and the last tier is asked. What an invalidation insists on
binds that tier as well, for as long as an invalidation is believed.

*It is old.* An entry that has expired is passed over for the last tier's word: a route that somebody kept and
put back is the control plane's to refuse. Where the control plane does not answer it is served all the same,
and memory never asks for the time: an outage of any length takes no tenant off the air.

*It calls an outage a 404.* "There is none" is believed only from a tier that could tell. When none
can, what was confirmed within `Policy.max_age` is served, and an unknown host is answered
RoutingUnavailable (503).

*It amplifies.* One read at a time for a host, whoever waits shares it; hosts without a tenant are
remembered for some seconds in a memory of their own, so that no scanner can push the tenants out.

Entries that live long are refreshed behind the request that finds them old.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dataplane.errors import BeingUpdated, Moved, Provisioning, RoutingUnavailable, Suspended, UnknownHost
from dataplane.hosts import HostKind, Zones, normalise_host
from dataplane.invalidations import InvalidationListener, Subscriber
from dataplane.memory import Memory, Nothing, Outcome, Policy, Slot
from dataplane.releases import ALL, Releases
from dataplane.tenant_config import Invalidation, Status, TenantConfig
from dataplane.tiers import Tier, TierDown

# Headers that are spelled otherwise than the name in memory, with a port as a rule, come again as well.
_spelled = functools.lru_cache(maxsize=4096)(normalise_host)

READ_ATTEMPTS = 3  # of one load, when invalidations keep outdating what was read
MOVES = 3  # entries that are followed to a tenant; each names the host of its own moment, so one is enough


@dataclass(slots=True)
class Statistics:
    """Counted off the fast path: answers from memory are not among them."""

    loads: int = 0  # reads behind the memory, each shared by all who asked at that time
    refreshes: int = 0  # of them, behind a request that had its answer
    shared: int = 0  # requests that waited for somebody else's read
    stale: int = 0  # times an entry was kept because nothing behind answered
    unavailable: int = 0  # answered RoutingUnavailable
    late: int = 0  # reads that an invalidation overtook: not stored
    invalidations: int = 0


class _Flight:
    """A read of one host that is under way."""

    __slots__ = ("done", "heard", "result", "suspect", "wanted")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Outcome = Nothing.UNKNOWN
        self.suspect = False  # an invalidation may have been missed since the read began
        self.heard = False  # one has come since the read began,
        self.wanted = 0  # and this is the newest epoch that one named


class Resolver:
    """`resolve(host)` for threads, `resolve_async(host)` for an event loop; one of them a process.

    `cache` and `fallback` are asked in this order. Without a `fallback`, "not in the cache" is taken
    as "no tenant" unless the host is known: after the loss of a cache cold hosts would get a 404
    until they are published again, and a forged entry would stay in memory until `policy.max_age` though the
    cache was repaired, so production has a fallback. `invalidations`: None means that entries
    are only as fresh as `policy.ttl`. `releases`: those of the tenants' schema that this application
    serves; who has another is answered BeingUpdated.
    """

    def __init__(
        self,
        *,
        cache: Tier | None = None,
        fallback: Tier | None = None,
        invalidations: InvalidationListener | None = None,
        zones: Zones | None = None,
        policy: Policy | None = None,
        releases: Releases = ALL,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tiers = [tier for tier in (cache, fallback) if tier is not None]
        if not self._tiers:
            raise ValueError("cache, fallback: expected at least one tier to read from, got none")
        self._cache = cache
        self._last_word = fallback is not None
        self._invalidations = invalidations
        self._zones = zones or Zones()
        self._policy = policy or Policy()
        self._releases = releases
        self._clock = clock
        self._now = now
        self._subscribers: list[Subscriber] = []
        self.statistics = Statistics()
        self._reset()
        _resolvers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._memory = Memory(self._policy, self._clock, self._releases)
        self._slots = self._memory.slots
        self._flights: dict[str, _Flight] = {}
        self._tasks: dict[tuple[int, str], asyncio.Future[Outcome]] = {}
        self._hearing = self._invalidations is None
        self._behind: ThreadPoolExecutor | None = None
        self._loaders: ThreadPoolExecutor | None = None
        self._started = False

    # ------------------------------------------------------------------------------- asking

    def resolve(self, host: str) -> TenantConfig:
        """The active tenant at this raw Host header. Raises BadHost, UnknownHost, Moved, Suspended,
        Provisioning, BeingUpdated, RoutingUnavailable."""
        # A name that is in memory is a normalised one, and normalising it again would not change it:
        # so the raw header is tried first, and parsed only when that finds nothing.
        slot = self._slots.get(host)
        if slot is not None and slot.serving and slot.fresh_until > self._clock():
            slot.used = True
            return slot.config
        name = self._name(host)
        outcome = self._known(name)
        return self._answer(name, self._load(name) if outcome is None else outcome)

    async def resolve_async(self, host: str) -> TenantConfig:
        """As `resolve`, for coroutines: reads behind happen in a few threads, one read a host
        however many coroutines of this loop ask."""
        slot = self._slots.get(host)
        if slot is not None and slot.serving and slot.fresh_until > self._clock():
            slot.used = True
            return slot.config
        name = self._name(host)
        outcome = self._known(name)
        if outcome is None:
            loop = asyncio.get_running_loop()
            key = (id(loop), name)
            task = self._tasks.get(key)
            if task is None:
                task = loop.run_in_executor(self._executor(), self._load, name)
                self._tasks[key] = task
                task.add_done_callback(lambda _: self._tasks.pop(key, None))
            outcome = await asyncio.shield(task)
        return self._answer(name, outcome)

    def follow(self, host: str) -> TenantConfig:
        """As `resolve`, for work that was begun at a host from which its tenant has moved since: at the one
        where it is now. A request is redirected instead, since links and cookies are of a host."""
        for _ in range(MOVES):
            try:
                return self.resolve(host)
            except Moved as moved:
                host = moved.to
        raise RoutingUnavailable(retry_after=self._policy.retry)  # entries of two moments: one is old

    def subscribe(self, subscriber: Subscriber) -> None:
        """Be notified of every invalidation, from the listener's thread."""
        self._subscribers.append(subscriber)

    def start(self) -> None:
        """Listen for invalidations. The first read does it as well; calling this early saves that read
        from being done twice."""
        with self._lock:
            starting, self._started = not self._started, True
        if starting and self._invalidations is not None:
            self._invalidations.start(self)

    def close(self) -> None:
        """Stop the threads. Memory still answers."""
        if self._invalidations is not None:
            self._invalidations.close()
        for executor in (self._behind, self._loaders):
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        """How many tenants' hosts are in memory."""
        return len(self._slots)

    # ------------------------------------------------------------------------------- memory

    def _name(self, host: str) -> str:
        name = _spelled(host)
        if self._zones.zones and self._zones.classify(name)[0] is HostKind.PLATFORM:
            raise UnknownHost
        return name

    def _known(self, name: str) -> Outcome | None:
        """What memory may answer by itself; None where somebody behind must be asked first."""
        now = self._clock()
        slot = self._slots.get(name)
        if slot is not None:
            slot.used = True
            if now < slot.fresh_until:
                return slot
            if now < slot.soft_until:
                self._refresh_behind(name, slot)
                return slot
            return None
        return Nothing.NO_TENANT if self._memory.is_unknown(name) else None

    def _answer(self, name: str, outcome: Outcome) -> TenantConfig:
        if isinstance(outcome, Slot):
            if outcome.serving:
                return outcome.config
            if outcome.config.status is Status.SUSPENDED:
                raise Suspended
            if outcome.config.moved_to is not None:
                raise Moved(outcome.config.moved_to)
            if outcome.config.status is Status.ACTIVE:
                raise BeingUpdated(retry_after=self._policy.unknown_ttl)
            raise Provisioning(retry_after=self._policy.unknown_ttl)
        if outcome is Nothing.NO_TENANT:
            raise UnknownHost
        self.statistics.unavailable += 1
        raise RoutingUnavailable(retry_after=self._policy.retry)

    def _refresh_behind(self, name: str, slot: Slot) -> None:
        with self._lock:
            if slot.refreshing or self._slots.get(name) is not slot:
                return
            slot.refreshing = True
            self.statistics.refreshes += 1
            if self._behind is None:
                self._behind = ThreadPoolExecutor(2, "dataplane-refresh")
            executor = self._behind
        try:
            executor.submit(self._load, name)
        except RuntimeError:  # the interpreter is ending, or `close` was called
            slot.refreshing = False

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._loaders is None:
                self._loaders = ThreadPoolExecutor(8, "dataplane-load")
            return self._loaders

    # ------------------------------------------------------------------------------- reading behind

    def _load(self, name: str) -> Outcome:
        """Read behind the memory, together with everybody who wants the same host now."""
        if not self._started:
            self.start()
        with self._lock:
            slot = self._slots.get(name)
            if slot is not None and not slot.refreshing and self._clock() < slot.fresh_until:
                return slot  # somebody else's read ended between our look and this lock
            flight = self._flights.get(name)
            mine = flight is None
            if flight is None:
                flight = self._flights[name] = _Flight()
                self.statistics.loads += 1
            else:
                self.statistics.shared += 1
        if not mine:
            if flight.done.wait(self._policy.wait):
                return flight.result
            with self._lock:
                return self._keep(name)
        try:
            flight.result = self._read(name, flight)
        finally:
            with self._lock:
                self._flights.pop(name, None)
                current = self._slots.get(name)
                if current is not None:
                    current.refreshing = False
            flight.done.set()
        return flight.result

    def _read(self, name: str, flight: _Flight) -> Outcome:
        for _ in range(READ_ATTEMPTS):
            with self._lock:
                flight.suspect = flight.heard = False
                invalidated = max(flight.wanted, self._memory.invalidated(name))
                floor = max(invalidated, self._memory.floor(name))
            try:
                config = self._ask(name, floor, invalidated)
            except TierDown:
                with self._lock:
                    return self._keep(name)
            with self._lock:
                overtaken = flight.heard and (config is None or config.epoch < flight.wanted)
                if not overtaken and not flight.suspect:
                    return self._store(name, config)
                self.statistics.late += 1
        with self._lock:
            return self._keep(name)

    def _ask(self, name: str, floor: int, invalidated: int) -> TenantConfig | None:
        """Tier by tier; the last one's "there is none" counts, the cache's only where it is last.

        The cache's entry must be of epoch `floor` or more, the fallback's of `invalidated`. One of the cache
        that has expired counts where the fallback can't tell.
        """
        trouble: TierDown | None = None
        config: TenantConfig | None = None
        expired: TenantConfig | None = None
        for tier in self._tiers:
            try:
                config = tier.read(name)
            except TierDown as error:
                if expired is not None:
                    return expired
                trouble = error
                continue
            least = floor if tier is self._cache else invalidated
            if config is None:
                trouble = None
            elif config.epoch < least:
                trouble = TierDown(f"an entry of epoch {config.epoch}, {least} was seen already")
            elif tier is self._cache and self._last_word and config.expired(self._now()):
                expired = config
            else:
                return config
        if trouble is not None:
            raise trouble
        if not self._last_word and name in self._slots:
            raise TierDown("the cache has lost an entry without a tombstone")
        return None

    def _store(self, name: str, config: TenantConfig | None) -> Outcome:
        """With the lock held."""
        ttl = self._policy.ttl if self._hearing else self._policy.unwatched_ttl
        return self._memory.store(name, config, ttl=ttl)

    def _keep(self, name: str) -> Outcome:
        """With the lock held."""
        kept = self._memory.keep(name)
        if isinstance(kept, Slot):
            self.statistics.stale += 1
        return kept

    # ------------------------------------------------------------------------------- hearing

    def connected(self) -> None:
        """Invalidations are heard from now on; what came before may have been missed."""
        if self._cache is not None:
            self._cache.alive()
        with self._lock:
            self._hearing = True
            self._memory.doubt_all()
            for flight in self._flights.values():
                flight.suspect = True

    def lost(self) -> None:
        with self._lock:
            if not self._hearing:
                return
            self._hearing = False
            self._memory.shorten_all(self._policy.unwatched_ttl)

    def invalidated(self, invalidation: Invalidation) -> None:
        if invalidation.kind == "config" and invalidation.host:
            with self._lock:
                self.statistics.invalidations += 1
                self._memory.heed(invalidation)
                flight = self._flights.get(invalidation.host)
                if flight is not None:
                    flight.heard = True
                    flight.suspect = flight.suspect or not invalidation.epoch
                    flight.wanted = max(flight.wanted, invalidation.epoch)
        for subscriber in self._subscribers:
            subscriber(invalidation)

    def forked(self) -> None:
        """In a child process: threads, connections in use and locks are the parent's."""
        if self._invalidations is not None:
            self._invalidations.forked()
        self._reset()


_resolvers: weakref.WeakSet[Resolver] = weakref.WeakSet()


def _after_fork() -> None:
    for resolver in list(_resolvers):
        resolver.forked()


os.register_at_fork(after_in_child=_after_fork)
