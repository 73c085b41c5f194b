"""What the scheduler deals in: limits, tenants, and the four things that a request can get.

A request for a connection gets one that is open (`PooledConnection`), leave to open one (`Reservation`), a
place in the line (`Waiter`), or learns that it is too early to try (`Blocked`). Each is of a `kind`: a
thread can't use a coroutine's connection, nor the other way round."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dataplane.errors import DatabaseError
from dataplane.tenant_config import TenantConfig

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Limits:
    """`budget`: connections of all tenants together, dedicated ones aside. `connecting`, `waiting`:
    of one tenant. `first_pause`, `longest_pause`: seconds that a tenant is blocked for after a
    failed connect; the pause doubles from the first to the longest."""

    budget: int = 100
    connecting: int = 2
    waiting: int = 16
    first_pause: float = 0.5
    longest_pause: float = 15.0

    def __post_init__(self) -> None:
        for name in ("budget", "connecting", "waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


class PooledConnection(Generic[C]):
    """A connection and its place in the systems."""

    __slots__ = ("conn", "idle_since", "kind", "place", "target", "tenant")

    def __init__(self, conn: C, opening: Reservation[C]) -> None:
        self.conn = conn
        self.tenant = opening.tenant
        self.target = opening.target  # where it leads
        self.kind = opening.kind
        self.place = opening.place  # another one than the tenant's by now: it is not reused
        self.idle_since = 0.0


class Waiter(Generic[C]):
    """A place in the line. Exactly one of `held`, `opening`, `error` is set when `wake` is called."""

    __slots__ = ("error", "held", "kind", "number", "opening", "tenant", "wake")

    def __init__(self, tenant: Tenant[C], kind: str, number: int, wake: Callable[[], None]) -> None:
        self.tenant = tenant
        self.kind = kind
        self.number = number
        self.wake = wake
        self.held: PooledConnection[C] | None = None
        self.opening: Reservation[C] | None = None
        self.error: Blocked | None = None


@dataclass(slots=True)
class Reservation(Generic[C]):
    """Leave to open a connection to `target`, already counted. `victim`: an idle one to close first."""

    tenant: Tenant[C]
    kind: str
    target: TenantConfig
    place: int
    victim: PooledConnection[C] | None


@dataclass(slots=True)
class Blocked:
    """The tenant's last connect failed with `error` and it is too early to try again."""

    error: DatabaseError
    retry_after: float


@dataclass(eq=False, slots=True)
class Tenant(Generic[C]):
    target: TenantConfig  # of the newest epoch that anybody has come with
    dedicated: bool
    place: int = 0  # rises when connections made until now must not be used again
    total: int = 0  # connections open, opening or lent
    connecting: int = 0
    idle: list[PooledConnection[C]] = field(default_factory=list)  # of every kind
    line: deque[Waiter[C]] = field(default_factory=deque)
    waiting: int = 0  # in `line` or in the line of the budget
    failures: int = 0
    blocked_until: float = 0.0
    error: DatabaseError | None = None
