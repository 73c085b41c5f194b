"""What one process remembers of hosts: bounded, with an age, and with the epochs that may not come back.

Two stores. `slots` holds the hosts that have a tenant; when it is full, what was not asked for since the
last look makes room (second chance: a hit sets a flag and moves nothing, so that it costs nothing).
`unknown` holds for some seconds that a host has none; it is apart so that a scanner evicts nobody.

Reading is free for all threads; whatever changes something here is called with the resolver's lock.
"""

from __future__ import annotations

import enum
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dataplane.releases import ALL, Releases
from dataplane.tenant_config import EPOCH_STEP, Invalidation, Status, TenantConfig

SECOND_CHANCES = 32  # looked at for one eviction


@dataclass(frozen=True, slots=True)
class Policy:
    """All times in seconds.

    `ttl`: an entry is confirmed this often (times 1 - `jitter` to 1) though invalidations arrive; for
    `grace` beyond it the old one is served while it is read anew behind. `unwatched_ttl`: instead of
    `ttl` while invalidations can't be heard. `unknown_ttl`: for hosts without a tenant and those being
    set up or updated. `max_age`: how long after its last confirmation an entry is served when nothing behind
    answers, tried again every `retry`. `wait`: for somebody else's read of the same host.
    """

    capacity: int = 50_000
    unknown_capacity: int = 10_000
    ttl: float = 60.0
    jitter: float = 0.2
    grace: float = 30.0
    unwatched_ttl: float = 2.0
    unknown_ttl: float = 5.0
    max_age: float = 6 * 3600.0
    retry: float = 1.0
    wait: float = 5.0
    hold_outdated: float = 30.0  # how long an invalidation's epoch is insisted on


class Slot:
    """One entry in memory. Times are of the memory's clock.

    Until `fresh_until` it is served without a thought, until `soft_until` while it is read anew behind
    the request, until `hard_until` where nobody behind can tell. `floor`: (epoch, until when): an
    invalidation said that less than this epoch is outdated."""

    __slots__ = (
        "config",
        "floor",
        "fresh_until",
        "hard_until",
        "refreshing",
        "serving",
        "soft_until",
        "used",
    )

    def __init__(
        self, config: TenantConfig, now: float, *, ttl: float, grace: float, max_age: float, serving: bool
    ) -> None:
        self.config = config
        self.serving = serving
        self.fresh_until = now + ttl
        self.soft_until = self.fresh_until + grace
        self.hard_until = now + max_age
        self.floor: tuple[int, float] | None = None
        self.used = False
        self.refreshing = False

    def doubt(self) -> None:
        """Ask before it is served again."""
        self.fresh_until = self.soft_until = 0.0


class Nothing(enum.Enum):
    NO_TENANT = "no tenant"  # a tier said so
    UNKNOWN = "unknown"  # no tier could answer


Outcome = Slot | Nothing


class Memory:
    """`releases`: those that this application serves. Whether a tenant's is one of them is decided when
    its entry is stored, so that a request pays nothing for it."""

    def __init__(self, policy: Policy, clock: Callable[[], float], releases: Releases = ALL) -> None:
        self._policy = policy
        self.releases = releases
        self._clock = clock
        self.slots: OrderedDict[str, Slot] = OrderedDict()
        self.unknown: OrderedDict[str, float] = OrderedDict()  # host → until when
        self.evictions = 0

    def is_unknown(self, name: str) -> bool:
        return self._clock() < self.unknown.get(name, 0.0)

    def store(self, name: str, config: TenantConfig | None, *, ttl: float) -> Outcome:
        """What a tier has said. `ttl`: for a tenant's entry."""
        policy, now = self._policy, self._clock()
        if config is None or config.status is Status.GONE:
            self.slots.pop(name, None)
            self.unknown.pop(name, None)
            while len(self.unknown) >= policy.unknown_capacity:
                self.unknown.popitem(last=False)
            self.unknown[name] = now + policy.unknown_ttl
            return Nothing.NO_TENANT
        serving = config.status is Status.ACTIVE and self.releases.serve(config.release)
        passing = config.status not in (Status.SUSPENDED, Status.MOVED) and not serving
        slot = Slot(
            config,
            now,
            ttl=self._spread(min(ttl, policy.unknown_ttl) if passing else ttl),
            grace=0.0 if passing else policy.grace,
            max_age=policy.max_age,
            serving=serving,
        )
        self.unknown.pop(name, None)
        known = self.slots.get(name)
        if known is None:
            self._make_room()
        else:
            slot.used = known.used
        self.slots[name] = slot
        return slot

    def keep(self, name: str) -> Outcome:
        """Nobody behind could tell: what may be answered all the same."""
        now = self._clock()
        slot = self.slots.get(name)
        if slot is None or now >= slot.hard_until:
            return Nothing.UNKNOWN
        if slot.config.epoch < self.invalidated(name):
            return Nothing.UNKNOWN  # known to be outdated: it may lead to another customer by now
        slot.fresh_until = now + self._spread(self._policy.retry)
        slot.soft_until = slot.hard_until  # nobody waits for the next try
        return slot

    def floor(self, name: str) -> int:
        """The epoch below which an entry of this host is an old one."""
        slot = self.slots.get(name)
        known = 0 if slot is None or self._clock() >= slot.hard_until else slot.config.epoch
        return max(known, self.invalidated(name))

    def invalidated(self, name: str) -> int:
        """The epoch that an invalidation insists on; 0 where none does."""
        slot = self.slots.get(name)
        if slot is None or slot.floor is None or self._clock() >= slot.floor[1]:
            return 0
        return slot.floor[0]

    def heed(self, invalidation: Invalidation) -> None:
        """An epoch a little below the known one is a late invalidation. One far below it says that the
        control plane has overwritten a forged entry: the host is looked up again."""
        self.unknown.pop(invalidation.host, None)
        slot = self.slots.get(invalidation.host)
        if slot is None:
            return
        if slot.config.epoch < invalidation.epoch:
            slot.floor = (invalidation.epoch, self._clock() + self._policy.hold_outdated)
            slot.doubt()
        elif not invalidation.epoch or slot.config.epoch - invalidation.epoch > EPOCH_STEP:
            slot.doubt()

    def doubt_all(self) -> None:
        self.unknown.clear()
        for slot in self.slots.values():
            slot.doubt()

    def shorten_all(self, seconds: float) -> None:
        """Nothing is fresh for longer than this from now on."""
        until = self._clock() + seconds
        for slot in self.slots.values():
            slot.fresh_until = min(slot.fresh_until, until)

    def _make_room(self) -> None:
        chances = SECOND_CHANCES
        while len(self.slots) >= self._policy.capacity:
            name, slot = next(iter(self.slots.items()))
            if slot.used and chances:
                chances -= 1
                slot.used = False
                self.slots.move_to_end(name)
            else:
                del self.slots[name]
                self.evictions += 1

    def _spread(self, seconds: float) -> float:
        """So that what was stored together does not age together."""
        return seconds * (1 - self._policy.jitter * random.random())  # noqa: S311
