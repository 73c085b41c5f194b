"""A tenant on its way to another cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controlplane.domain.errors import LeaseLost
from controlplane.domain.placement import Placement
from controlplane.workers.providers.ports.clusters import ClusterEndpoint


@dataclass(frozen=True, slots=True)
class Home:
    """One end of a move: a placement's database on its cluster."""

    at: ClusterEndpoint
    placement: Placement


@dataclass(frozen=True, slots=True)
class MoveDescription:
    """`streaming`: the source keeps what is written from the beginning of the copy on. `copied`: the target
    has the rows that there were then."""

    streaming: bool
    copied: bool


@dataclass(frozen=True, slots=True)
class TableCompared:
    """`rows` of the source. `checksum`: None where counts alone were compared."""

    name: str
    rows: int
    checksum: str | None
    same: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """`size` in bytes, as text. `compared`: by `clone` alone."""

    tables: int
    rows: int
    size: int
    seconds: float
    compared: tuple[TableCompared, ...] = ()

    @property
    def summary(self) -> str:
        return f"{self.rows} rows of {self.tables} tables, {self.size} bytes"


@dataclass(frozen=True, slots=True)
class HandedOver:
    """`checked`: when the tables were compared, "before" the target took over or "after" it, on what it
    held at that moment."""

    tables: list[TableCompared]
    checked: str
    seconds: float

    @property
    def differing(self) -> list[str]:
        return [table.name for table in self.tables if not table.same]


@dataclass(frozen=True, slots=True)
class MoveRun:
    """Who does it. `fencing_token`: of the tenant's lease; a database that has observed a higher one refuses.
    `stopped`: once true, LeaseLost is raised."""

    fencing_token: int
    stopped: Callable[[], bool]

    def check(self) -> None:
        """Raises LeaseLost."""
        if self.stopped():
            raise LeaseLost("the move was stopped")


class Moves(Protocol):
    """Carries a tenant's rows from one database to another that has the same schema, while they change.

    Nothing but rows: both databases, their logins and the target's schema are there before. Raises
    Retryable, LeaseLost, and NeedsHuman("move") where something can't be carried.
    """

    def observe(self, source: Home, target: Home) -> MoveDescription: ...

    def require_followable(self, source: Home) -> None:
        """Raises NeedsHuman("move") where the source's cluster keeps no log that `begin` could use; `clone`
        needs none."""
        ...

    def begin(self, source: Home, target: Home, run: MoveRun) -> None:
        """From here on the source keeps its log for the target, until `clear`. Begun before is success."""
        ...

    def copy(self, source: Home, target: Home, run: MoveRun) -> Copied:
        """All rows as they were at one moment after `begin`, in one transaction of the target."""
        ...

    def follow(self, source: Home, target: Home, run: MoveRun) -> int:
        """Make in the target what was changed in the source since, until little is left; how many changes
        that were. Raises Retryable where the source changes faster."""
        ...

    def hand_over(
        self,
        source: Home,
        target: Home,
        run: MoveRun,
        *,
        pause: Callable[[], None],
        cut: Callable[[], None],
    ) -> HandedOver:
        """Call `pause`, which must end all writing to the source, carry the rest, compare, call `cut`,
        which makes the target the one that is used. `cut` is not called, and NeedsHuman raised, where a
        comparison shows a difference. What is too much to compare in between is compared after `cut`, on
        what the target held at that moment."""
        ...

    def clone(self, source: Home, target: Home, run: MoveRun) -> Copied:
        """All rows and sequences as they are at one moment, in one transaction of the target, compared
        before it ends. The source is only read, and may be another tenant's."""
        ...

    def clear(self, source: Home, target: Home | None) -> None:
        """End what `begin` began, on either end; `target` None where it is not to be reached."""
        ...
